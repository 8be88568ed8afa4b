"""A call of one component for one query: timed from its beginning to its end, counted by its outcome."""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Self

from cmo_exporter import catalogue
from cmo_exporter.catalogue import OTHER, QUERY_OUTCOMES
from cmo_exporter.guard import never_raises
from cmo_exporter.instruments import closed
from cmo_exporter.postponed_ends import put_aside

if TYPE_CHECKING:
    from types import TracebackType

    from cmo_exporter.guard import ErrorCounter
    from cmo_exporter.ledger import ComponentBook
    from cmo_exporter.query_record import Model, QueryRecord, Step
    from cmo_exporter.recorder import Recorder


class ComponentCall:
    """One call of a component; a context manager.

    Its outcome follows from how it is left: without an exception it is a success, by `TimeoutError` a
    timeout, by cancellation cancelled, by any other exception an error. `outcome` overrides that, for
    components that return their failures.
    """

    __slots__ = (
        "_began",
        "_book",
        "_component",
        "_forks",
        "_model",
        "_outcome",
        "_record",
        "_recorder",
        "_scenario",
        "_step",
    )

    def __init__(
        self,
        recorder: Recorder,
        scenario: str,
        component: str,
        record: QueryRecord | None = None,
        model: Model | None = None,
    ) -> None:
        self._recorder = recorder
        self._scenario = scenario
        self._component = component
        self._began: float | None = None
        self._forks = 0
        self._book: ComponentBook | None = None
        self._outcome: str | None = None
        self._record = record
        self._model = model
        self._step: Step | None = None

    @property
    def errors(self) -> ErrorCounter:
        """Where errors inside these methods are counted."""
        return self._recorder.errors

    @never_raises(catalogue.COMPONENT_CALLS)
    def outcome(self, outcome: str) -> None:
        """Say what came of the call: success, error, timeout, rejected or cancelled; the last word counts."""
        known = closed(outcome, QUERY_OUTCOMES)
        if known is None:
            self._recorder.instruments.dropped(catalogue.COMPONENT_CALLS.name)
        self._outcome = known or OTHER

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish(error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    @never_raises(catalogue.COMPONENT_IN_PROGRESS)
    def _begin(self) -> None:
        if self._began is None:
            ledger = self._recorder.ledger
            self._forks = ledger.forks
            self._book = ledger.component(self._scenario, self._component)
            ledger.begin_call(self._book)
            self._began = monotonic()
            watch = self._recorder.watch
            if watch is not None:
                self._step = watch.step(self._record, self._component, self._model)

    @never_raises(catalogue.COMPONENT_CALLS)
    def _finish(self, error: BaseException | None, ended: float = 0.0) -> None:
        ledger = self._recorder.ledger
        if self._began is None or self._book is None or self._forks != ledger.forks:
            return  # it has not begun, or in the parent of this process
        ended = ended or monotonic()
        if error is not None and put_aside(error, partial(self._finish, error, ended)):
            return
        seconds = ended - self._began
        self._began = None
        outcome = self._outcome or _outcome_of(error)
        ledger.finish_call(self._book, outcome, seconds)
        if self._step is not None:
            span = self._step.span
            exemplar = None if span is None else span.exemplar()
            if exemplar is not None:
                self._book.durations[outcome].remember(seconds, exemplar)
            self._step.finish(outcome, seconds, error)


def _outcome_of(error: BaseException | None) -> str:
    if error is None:
        return "success"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
        return "cancelled"
    return "error"
