"""The table of variants beside each other, the targets that follow from it, and that each did its work."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from cmo_exporter.catalogue import QUERY_DURATION

from cmo_bench.exporter import variants
from cmo_bench.exporter.children import ChildError
from cmo_bench.exporter.figures import Spread
from cmo_bench.exporter.report import Section, Target, Verdict, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cmo_bench.exporter.children import Child
    from cmo_bench.exporter.figures import Rounds
    from cmo_bench.exporter.laboratory import Laboratory

# Our variant, the one it is held against, the share of what that one adds, and how that share is said.
_PROMISES: Final = (
    (variants.OURS, variants.INSTRUMENTATOR, 1 / 3, "HTTP and query metrics add at most a third of what"),
    (variants.OURS_SHARED, variants.INSTRUMENTATOR, 1 / 2, "with shared storage at most half of what"),
    (variants.OURS_TRACES, variants.OTEL, 1 / 2, "with traces and exemplars at 100 % at most half of what"),
)
_SIGNALS: Final = {
    variants.OURS_TRACES: ("traces",),
    variants.OTEL_METRICS: ("metrics",),
    variants.OTEL: ("metrics", "traces"),
}


def compare(title: str, text: str, rounds: Rounds, rates: Mapping[str, float]) -> Section:
    """The section of one way to measure; `rates` are requests a second, where a client counted them."""
    head: tuple[str, ...] = (
        "variant",
        "µs a request: median (quartiles)",
        "added: median (quartiles)",
        "of instrumentator's",
    )
    rows = [_row(rounds, name) for name in rounds.values]
    if rates:
        head = (*head, "requests a second")
        rows = [(*row, f"{rate:.0f}") for row, rate in zip(rows, rates.values(), strict=True)]
    return Section(title, text, table(head, rows), tuple(_targets(title, rounds)))


def _row(rounds: Rounds, name: str) -> tuple[str, ...]:
    if name == rounds.base:
        return (variants.TITLES[name], str(rounds.spread(name)), "", "")
    share = rounds.share(name, variants.INSTRUMENTATOR)
    added = Spread.of(rounds.added(name))
    return (variants.TITLES[name], str(rounds.spread(name)), str(added), f"{share.value:.2f}")


def _targets(title: str, rounds: Rounds) -> Iterator[Target]:
    for own, other, limit, words in _PROMISES:
        promise = f"{title}: {words} {variants.TITLES[other].partition(',')[0]} adds"
        yield Target.at_most(promise, rounds.share(own, other), limit)


@contextlib.contextmanager
def fresh_processes(laboratory: Laboratory, names: Iterable[str]) -> Iterator[Mapping[str, Child]]:
    """One draw: a fresh process with each of these variants.

    At its end, what each has recorded is held against what it was sent: a variant that does nothing is cheap.

    Raises:
        ChildError: a variant has not recorded every request, or has sent no telemetry that it should have.
    """
    with contextlib.ExitStack() as stack:
        subjects = {name: stack.enter_context(laboratory.subject(name)) for name in names}
        yield subjects
        for name, subject in subjects.items():
            check_recorded(name, subject, laboratory.effort.requests_of_a_draw)
            subject.ask("close")
            check_sent(name, laboratory.telemetry_of(subject))


def check_recorded(name: str, subject: Child, requests: int) -> None:
    """Hold what a variant shows against the requests that it was sent.

    Raises:
        ChildError: they differ.
    """
    recorded = subject.ask("recorded")["requests"]
    if recorded is not None and recorded != requests:
        raise ChildError(f"{name} was sent {requests} requests and shows {recorded:.0f}.")


def check_sent(name: str, sent: Mapping[str, int]) -> None:
    """Hold the telemetry that came from a variant against what it should send.

    Raises:
        ChildError: a signal is missing.
    """
    for signal in _SIGNALS.get(name, ()):
        if not sent.get(signal):
            raise ChildError(f"{name} has sent the collector no {signal}.")


def exemplars_target(exposition: str) -> Target:
    """Whether the variant with exemplars serves any."""
    buckets = [line for line in exposition.splitlines() if line.startswith(f"{QUERY_DURATION.name}_bucket")]
    found = sum("trace_id=" in line for line in buckets)
    promise = "The variant with traces and exemplars serves exemplars of the queries' duration"
    return Target(promise, f"{found} buckets have one", Verdict.HOLDS if found else Verdict.FAILED)
