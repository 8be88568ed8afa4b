"""What a request costs when nothing is around the application: no server, no socket."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cmo_bench.exporter import variants
from cmo_bench.exporter.comparison import compare, exemplars_target, fresh_processes
from cmo_bench.exporter.figures import Rounds, Spread
from cmo_bench.exporter.laboratory import turns
from cmo_bench.exporter.report import Section, table
from cmo_bench.exporter.scraping import scrape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cmo_bench.exporter.children import Child
    from cmo_bench.exporter.laboratory import Laboratory

_MICROSECONDS: Final = 1e6
_EMPTY: Final = "empty_loop"
_CALLS: Final = {
    "queries": "a query through the interface (`with exporter.query()`, its outcome and cache result)",
    "component_calls": "a component call (`with query.component()`)",
}


def requests_in_process(laboratory: Laboratory) -> Section:
    """Measure every variant in turns, in several fresh processes."""
    draws = laboratory.effort.draws
    measured: dict[str, list[float]] = {name: [] for name in variants.TITLES}
    exposition = ""
    for draw in range(1, draws + 1):
        with fresh_processes(laboratory, variants.TITLES) as subjects:
            for name, microseconds in _requests(laboratory, subjects, f"in process, {draw} of {draws}"):
                measured[name].append(microseconds)
            exposition = scrape(subjects[variants.OURS_TRACES].ask("metrics_url")["url"])
    section = compare(
        "In process",
        "The application is called directly, one request after the other, each in a task of its own. "
        "Microseconds of processor time a request, of the whole process: threads that send telemetry count. "
        f"Fresh processes of each variant: {draws}, one after the other.",
        Rounds(measured, variants.BARE, draws),
        {},
    )
    return replace(section, targets=(*section.targets, exemplars_target(exposition)))


def _requests(
    laboratory: Laboratory, subjects: Mapping[str, Child], label: str
) -> Iterator[tuple[str, float]]:
    """The rounds of one draw: a variant, and its microseconds a request."""
    effort = laboratory.effort
    for subject in subjects.values():
        subject.ask("requests", effort.warm_up)
        laboratory.settle(subject)
    for turn in turns(tuple(subjects), effort.rounds_of_a_draw, label):
        for name in turn:
            subjects[name].ask("requests", effort.lead_in)
            yield name, _microseconds(subjects[name], "requests", effort.requests)


def calls_in_process(laboratory: Laboratory) -> Section:
    """Measure the interface by itself."""
    effort = laboratory.effort
    names = [_EMPTY, *_CALLS]
    measured: dict[str, list[float]] = {name: [] for name in names}
    with laboratory.subject(variants.OURS) as subject:
        for name in names:
            subject.ask(name, effort.warm_up)
        laboratory.settle(subject)
        for turn in turns(names, effort.rounds, "calls"):
            for name in turn:
                measured[name].append(_microseconds(subject, name, effort.requests * 4))
    rounds = Rounds(measured, _EMPTY)
    return Section(
        "The interface by itself",
        "Microseconds of processor time a call, without the loop around it. For information.",
        table(
            ("call", "median (quartiles)"),
            [(title, str(Spread.of(rounds.added(name)))) for name, title in _CALLS.items()],
        ),
    )


def _microseconds(subject: Child, command: str, number: int) -> float:
    seconds: float = subject.ask(command, number)["process"]
    return seconds * _MICROSECONDS / number
