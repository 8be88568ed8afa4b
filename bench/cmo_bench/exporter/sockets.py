"""What a request costs in a server: uvicorn with one worker, loaded from another process."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Final

from cmo_bench.exporter import variants
from cmo_bench.exporter.comparison import compare, fresh_processes
from cmo_bench.exporter.figures import Rounds
from cmo_bench.exporter.laboratory import turns
from cmo_bench.exporter.load import CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cmo_bench.exporter.children import Child
    from cmo_bench.exporter.laboratory import Laboratory
    from cmo_bench.exporter.report import Section

_MICROSECONDS: Final = 1e6


def requests_over_sockets(laboratory: Laboratory) -> Section:
    """Measure what the targets speak of, each behind a server of its own, in turns, in several processes.

    Here two rounds differ more than in process, so there have to be many; the other variants would leave no
    time for them.
    """
    requests, draws = laboratory.effort.requests, laboratory.effort.draws
    measured: dict[str, list[float]] = {name: [] for name in variants.JUDGED}
    rates: dict[str, list[float]] = {name: [] for name in variants.JUDGED}
    for draw in range(1, draws + 1):
        with fresh_processes(laboratory, variants.JUDGED) as subjects:
            for name, processor, wall in _rounds(laboratory, subjects, f"over sockets, {draw} of {draws}"):
                measured[name].append(processor * _MICROSECONDS / requests)
                rates[name].append(requests / wall)
    return compare(
        "Over sockets",
        f"uvicorn (asyncio, h11) with one worker; a client in another process holds {CONNECTIONS} keep-alive "
        "connections, each of which asks again when it has its answer. Microseconds of processor time of the "
        "server a request, all its threads; beside it what the client saw. "
        f"Fresh processes of each variant: {draws}, one after the other.",
        Rounds(measured, variants.BARE, draws),
        {name: statistics.median(rates[name]) for name in rates},
    )


def _rounds(
    laboratory: Laboratory, subjects: Mapping[str, Child], label: str
) -> Iterator[tuple[str, float, float]]:
    """The rounds of one draw: a variant, processor seconds of its server, and seconds of the clock."""
    effort, load = laboratory.effort, laboratory.load
    ports = {name: subject.ask("serve")["port"] for name, subject in subjects.items()}
    for name, subject in subjects.items():
        load.ask("requests", ports[name], effort.warm_up)
        laboratory.settle(subject)
    for turn in turns(tuple(subjects), effort.rounds_of_a_draw, label):
        for name in turn:
            subjects[name].ask("collect")
            load.ask("requests", ports[name], effort.lead_in)
            subjects[name].ask("flush")
            yield name, *_round(subjects[name], load, ports[name], effort.requests)
    for port in ports.values():
        load.ask("leave", port)


def _round(subject: Child, load: Child, port: int, requests: int) -> tuple[float, float]:
    """Processor seconds of the server, and seconds of the clock."""
    before = subject.ask("processor_time")["process"]
    wall: float = load.ask("requests", port, requests)["seconds"]
    subject.ask("flush")
    return subject.ask("processor_time")["process"] - before, wall
