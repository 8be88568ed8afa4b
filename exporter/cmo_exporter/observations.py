"""One call that is being watched, from when it is made to its last word, as a query or as a component call.

The decorators know how functions of each kind run; what is counted when one begins and ends is here. No
method raises, whatever the functions do that the service has handed in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from cmo_exporter import catalogue
from cmo_exporter.outcomes import Outcome, StreamEnd, as_outcome

if TYPE_CHECKING:
    from cmo_exporter.catalogue import Metric
    from cmo_exporter.components import ComponentCall
    from cmo_exporter.guard import ErrorCounter
    from cmo_exporter.outcomes import Classifier
    from cmo_exporter.queries import Query


class Observation(ABC):
    """A call being watched; its first end counts, and every later one changes nothing."""

    __slots__ = ("_classify", "_ended", "_last", "_pieces")

    metric: Metric

    def __init__(self, classify: Classifier | None) -> None:
        self._classify = classify
        self._ended = False
        self._pieces = 0
        self._last: object = None

    @property
    @abstractmethod
    def errors(self) -> ErrorCounter:
        """Where errors inside these methods are counted."""

    @abstractmethod
    def begin(self) -> None:
        """The call is made."""

    def piece(self, piece: object) -> None:
        """The stream has brought forth something."""
        if piece is None or (type(piece) in (str, bytes) and not piece):
            return
        self._pieces += 1
        if self._classify is not None:
            self._last = piece

    def returned(self, result: object) -> None:
        """The call has returned this."""
        if not self._ended:
            self._ended = True
            self._finish(self._classified(result), None)

    def exhausted(self) -> None:
        """The stream has come to its end."""
        self.returned(StreamEnd(self._pieces, self._last))
        self._last = None

    def raised(self, error: BaseException) -> None:
        """The call, or the stream, has been ended by this."""
        if not self._ended:
            self._ended = True
            self._finish(None, error)

    def abandoned(self) -> None:
        """Whoever asked for the stream no longer wants it."""
        self.raised(GeneratorExit())

    @abstractmethod
    def _finish(self, outcome: Outcome | None, error: BaseException | None) -> None: ...

    def _classified(self, result: object) -> Outcome | None:
        if self._classify is None:
            return None
        try:
            return as_outcome(self._classify(result))
        except Exception as error:  # noqa: BLE001 - whoever cannot tell a success has not seen one
            self.errors.report(self.metric, error)
            return Outcome("error")


class QueryObservation(Observation):
    """A whole query; or a part of the one in progress, whose end is then not ours to say."""

    __slots__ = ("_departures", "_joined", "_query")

    metric = catalogue.QUERIES

    def __init__(
        self, query: Query, classify: Classifier | None, departures: tuple[type[BaseException], ...]
    ) -> None:
        super().__init__(classify)
        self._query = query
        self._departures = departures
        self._joined = query.in_progress

    @property
    def errors(self) -> ErrorCounter:
        """Where errors inside these methods are counted."""
        return self._query.errors

    def begin(self) -> None:
        """The question has arrived."""
        if not self._joined:
            self._query.begin()

    def piece(self, piece: object) -> None:
        """The first piece is the first token."""
        super().piece(piece)
        if self._pieces == 1:
            self._query.first_token()

    def _finish(self, outcome: Outcome | None, error: BaseException | None) -> None:
        if outcome is not None:
            self._query.concluded(outcome.name, outcome.source)
        if isinstance(error, self._departures):
            self._query.client_left()
        if not self._joined:
            self._query.finish(error)
        elif isinstance(error, TimeoutError):
            # Of this the transport sees no more than a failed response; of all else it knows best.
            self._query.timed_out()


class ComponentObservation(Observation):
    """A call of a component."""

    __slots__ = ("_call",)

    metric = catalogue.COMPONENT_CALLS

    def __init__(self, call: ComponentCall, classify: Classifier | None) -> None:
        super().__init__(classify)
        self._call = call

    @property
    def errors(self) -> ErrorCounter:
        """Where errors inside these methods are counted."""
        return self._call.errors

    def begin(self) -> None:
        """The component is called."""
        self._call.__enter__()

    def _finish(self, outcome: Outcome | None, error: BaseException | None) -> None:
        if outcome is not None:
            self._call.outcome(outcome.name)
        self._call.__exit__(None if error is None else type(error), error, None)
