"""The page that a run writes: what was promised, what was found, and with what."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

from cmo_stack import servers

from cmo_bench.exporter.machine import machine
from cmo_bench.exporter.report import Section, failed, table, targets_table
from cmo_bench.rules.backfill import CHUNK_DAYS
from cmo_bench.rules.history import STEP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cmo_bench.rules.laboratory import Effort, Laboratory

COMMAND: Final = "python -m cmo_bench.rules"
PACKAGES: Final = ("cmo-observability", "numpy", "prometheus-client", "promql-parser")
SERVERS: Final[tuple[servers.ServerName, ...]] = ("prometheus", "promtool", "alertmanager")

_HEAD: Final = """# What the rules read, how true they are, and how soon they page

<!-- Written by `make bench-rules`; do not edit. -->

The compiled rules of `cmo-015` beside the rules that Sloth and Pyrra emit for the same objectives, on the
same data in a real Prometheus; and the time from live queries failing to the page at the receiver.
"""

_METHOD: Final = f"""## How it is measured

- **The history** is made from a seed: counters of one service every {STEP_SECONDS} s, up to 10 to 70 minutes
  before the run. Each day has a rush hour in which a tenth of the queries fails, and a night of six hours in
  which nobody asks; on six days the service restarts, its counters begin at 0, and what it had counted since
  the last scrape is lost. It is written as OpenMetrics, {CHUNK_DAYS} days at a time, and made into blocks by
  `promtool tsdb create-blocks-from openmetrics`.
- **What else is exposed** (other scenarios, memory, breakers, Prometheus' and Alertmanager's own metrics) is
  taken from an exporter, a Prometheus and an Alertmanager as they run, and written with those values as far
  back as a rule evaluated at the end reads it, a day at least. Other scenarios of the history's counters are
  there for that time alone: over 30 days they would be nothing but zeros that no 30-day result reads.
- **Recorded series** are the real rules' own: `promtool tsdb create-blocks-from rules` evaluates each group
  at its interval against the running Prometheus. No rule sees what another has recorded in the same pass, so
  there is a pass for each layer of rules that build on each other. Each rule is evaluated as far back as
  another reads what it records: those that the 30-day result is made of, over the 30 days.
- **Sloth's and Pyrra's rules** are written from what they document of Sloth 0.12 and Pyrra 0.9, with the
  settings that they have by themselves: Sloth's groups have no interval and are evaluated at the global one
  ({STEP_SECONDS} s, as ours); Pyrra's have 2m30s for the increase over 30 days and 30 s for burn rates, and
  its `performanceOverAccuracy` is off. Both are told the cheapest queries that say the same, and of
  objectives that differ by their target alone just one. What our rules read beyond those objectives (alerts
  on causes, and on monitoring itself) counts against us.
- **Samples read** are Prometheus' own count, `totalQueryableSamples` of an instant query with `stats=all`.
- **Fault to page** runs the committed files; only ports, paths and intervals are those of the run.
"""


def page(sections: Sequence[Section], laboratory: Laboratory, options: Sequence[str], minutes: float) -> str:
    """The page, in Markdown.

    Args:
        sections: what was measured.
        laboratory: where.
        options: of the command line.
        minutes: how long the run took.
    """
    summary = "FAILED: not every target holds." if failed(sections) else "No target has failed."
    parts = [_HEAD, "## Targets\n", summary + "\n", *targets_table(sections), ""]
    for section in sections:
        parts += [f"## {section.title}\n", section.text + "\n", *section.table, ""]
    return "\n".join([*parts, _METHOD, *_circumstances(laboratory.effort, options, minutes)]) + "\n"


def data(laboratory: Laboratory) -> Section:
    """What the measurements are made on."""
    month = laboratory.month
    rows = [
        ("samples of the service's history", f"{month.backfilled.samples:,}"),
        ("the same as text, written and deleted piece by piece", _megabytes(month.backfilled.text_bytes)),
        ("samples of what else is exposed", f"{month.surrounding.samples:,}"),
        ("passes of promtool over the rules", str(month.passes)),
        ("all blocks, recorded series of all tools included", _megabytes(month.block_bytes)),
        ("seconds that it took to make", f"{month.seconds:.0f}"),
    ]
    queries = sum(
        int(counts.sum()) for key, counts in month.history.seen.items() if key[0] == "cmo_queries_total"
    )
    return Section(
        "The data",
        f"{laboratory.effort.days} days and 3 hours at {STEP_SECONDS} s, {queries:,} live queries, "
        f"{len(month.history.restarts)} restarts.",
        table(("what", "how much"), rows),
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def _circumstances(effort: Effort, options: Sequence[str], minutes: float) -> list[str]:
    times = f"{effort.repetitions} times to the page at each interval"
    amounts = f"{effort.days} days, {times}; {minutes:.0f} minutes.\n"
    return [
        "## With what\n",
        f"    {' '.join((COMMAND, *options))}\n",
        f"{machine()}.",
        amounts,
        "| what | version |",
        "|---|---|",
        *(
            f"| {server.name} | {'.'.join(map(str, server.version))} |"
            for server in map(servers.newest, SERVERS)
        ),
        *(f"| {name} | {_version(name)} |" for name in PACKAGES),
    ]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "from the source tree"
