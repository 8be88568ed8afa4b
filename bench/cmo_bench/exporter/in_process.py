"""What a request costs when nothing is around the application: no server, no socket."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from cmo_bench.exporter import variants
from cmo_bench.exporter.comparison import check_recorded, compare
from cmo_bench.exporter.figures import Rounds, Spread
from cmo_bench.exporter.laboratory import measurable, turns
from cmo_bench.exporter.report import Section, table

if TYPE_CHECKING:
    from cmo_bench.exporter.children import Child
    from cmo_bench.exporter.laboratory import Laboratory

_MICROSECONDS: Final = 1e6
_EMPTY: Final = "empty_loop"
_CALLS: Final = {
    "queries": "a query through the interface (`with exporter.query()`, its outcome and cache result)",
    "component_calls": "a component call (`with query.component()`)",
}


def requests_in_process(laboratory: Laboratory) -> Section:
    """Measure every variant, each in a process of its own, in turns."""
    effort = laboratory.effort
    names = measurable()
    measured: dict[str, list[float]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        subjects = {name: stack.enter_context(laboratory.subject(name)) for name in names}
        for subject in subjects.values():
            subject.ask("requests", effort.warm_up)
            subject.ask("settle")
        for turn in turns(names, effort.rounds, "in process"):
            for name in turn:
                seconds = subjects[name].ask("requests", effort.requests)["process"]
                measured[name].append(seconds * _MICROSECONDS / effort.requests)
        check_recorded(laboratory, subjects, effort.warm_up + effort.rounds * effort.requests)
    return compare(
        "In process",
        "The application is called directly, one request after the other, each in a task of its own. "
        "Microseconds of processor time a request, of the whole process: threads that send telemetry count.",
        Rounds(measured, variants.BARE),
        {},
    )


def calls_in_process(laboratory: Laboratory) -> Section:
    """Measure the interface by itself."""
    effort = laboratory.effort
    names = [_EMPTY, *_CALLS]
    measured: dict[str, list[float]] = {name: [] for name in names}
    with laboratory.subject(variants.OURS) as subject:
        for name in names:
            subject.ask(name, effort.warm_up)
        subject.ask("settle")
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
