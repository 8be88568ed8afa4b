"""The page that a run writes: what was promised, what was found, and with what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_bench.exporter.machine import machine, packages
from cmo_bench.exporter.report import failed, targets_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cmo_bench.exporter.laboratory import Laboratory
    from cmo_bench.exporter.report import Section

COMMAND: Final = "python -m cmo_bench.exporter"

_HEAD: Final = """# What the exporter costs

<!-- Written by `make bench-exporter`; do not edit. -->

What the exporter adds to a FastAPI service, beside what other instrumentations add to the same service, all
measured in one run. The numbers depend on the machine and on what else it does; the ratios hardly do.
"""

_METHOD: Final = """## How it is measured

- The service answers `POST /query` with its question and does nothing else. Its body is validated by a
  pydantic model, as a service's would be. Ours also says the query's outcome and cache result.
- "Bare" is FastAPI without any telemetry: FastAPI 0.162 and later has OpenTelemetry metrics of its own,
  which are off for every variant by `FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})`.
- Each variant runs in a process of its own, is warmed up, and is then measured in turns with the others, in
  many short rounds, which begin with another variant each time. Garbage is collected before each round and
  the collector stays on in it. The first requests of a round are not measured: meanwhile the other services
  have had the processor and its caches, as nobody has where a service works. What a variant adds is taken
  within each round.
- After a share of the rounds all processes end, and fresh ones are measured in the next share. In another
  process the same code easily adds a fifth more or less, as its memory is laid out otherwise and its hashes
  have another seed: a comparison of single processes is partly luck. The rounds of all processes are put
  together.
- Times are processor time of the whole process, so that other processes on the machine hardly count, and
  threads that send telemetry or watch memory and the event loop do.
- Ours is started: it serves `/metrics` and watches memory and the event loop. Spans go to a collector in
  another process, over OTLP, by the SDK's batches; what a round's requests have left in a batch is sent, and
  counted, in that round.
- After its last round each process must show the requests that it was sent, or have sent its telemetry.
- Numbers are medians with quartiles. Intervals of ratios and of P99 hold 95 % of 1,000 bootstrap resamples:
  of the rounds, and where variants are compared first of the fresh processes that the rounds were measured
  in. A target is judged by the ratio itself.
"""


def page(sections: Sequence[Section], laboratory: Laboratory, options: Sequence[str]) -> str:
    """The page, in Markdown."""
    summary = "FAILED: not every target holds." if failed(sections) else "No target has failed."
    parts = [_HEAD, "## Targets\n", summary + "\n", *targets_table(sections), ""]
    for section in sections:
        parts += [f"## {section.title}\n", section.text + "\n", *section.table, ""]
    return "\n".join([*parts, _METHOD, *_circumstances(laboratory, options)]) + "\n"


def _circumstances(laboratory: Laboratory, options: Sequence[str]) -> list[str]:
    effort = laboratory.effort
    pinned = (
        "What is measured is kept on one core, and what loads it on another."
        if laboratory.measured_core is not None
        else "There is one core, which what is measured shares with what loads it."
    )
    amounts = (
        f"{effort.rounds} rounds of {effort.requests} requests after {effort.lead_in} that are not measured, "
        f"divided among {effort.draws} fresh processes "
        f"of each variant after {effort.warm_up} to warm up, "
        f"{effort.slices} pairs of slices, {effort.scrapes} scrapes, {effort.processes} processes."
    )
    return [
        "## With what\n",
        f"    {' '.join((COMMAND, *options))}\n",
        f"{machine()}.",
        pinned,
        f"{amounts}\n",
        "| package | version |",
        "|---|---|",
        *(f"| {name} | {version} |" for name, version in packages()),
    ]
