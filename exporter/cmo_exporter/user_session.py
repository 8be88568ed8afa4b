"""A user's session that the service opens and closes itself, where it sees users come and go.

A websocket does (a Chainlit chat begins and ends); a plain HTTP request does not, and its session opens with
the first query and goes idle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from cmo_exporter import catalogue
from cmo_exporter.guard import never_raises

if TYPE_CHECKING:
    from types import TracebackType

    from cmo_exporter.guard import ErrorCounter
    from cmo_exporter.recorder import Recorder
    from cmo_exporter.sessions import SessionKey


class UserSession:
    """One user who is there; a context manager, plain or asynchronous. No method raises.

    It stays open, however long the user thinks, until it is closed; queries under the same session id and
    scenario belong to it and count no further user.
    """

    __slots__ = ("_key", "_open", "_recorder", "_scenario")

    def __init__(self, recorder: Recorder, scenario: str, key: SessionKey | None) -> None:
        self._recorder = recorder
        self._scenario = scenario
        self._key = key
        self._open = False

    @property
    def errors(self) -> ErrorCounter:
        """Where errors inside these methods are counted."""
        return self._recorder.errors

    @never_raises(catalogue.ACTIVE_USERS)
    def begin(self) -> None:
        """The user has come. `with` does this; callbacks that cannot use it call it themselves."""
        if self._open:
            return
        if self._key is not None:
            self._open = self._recorder.ledger.open_session(self._scenario, self._key)
        if not self._open:
            self._recorder.instruments.dropped(catalogue.ACTIVE_USERS.name)

    @never_raises(catalogue.ACTIVE_USERS)
    def end(self) -> None:
        """The user has left; with a query still in progress, the session closes with that. Again: nothing."""
        if self._open and self._key is not None:
            self._open = False
            self._recorder.ledger.close_session(self._key)

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    async def __aenter__(self) -> Self:
        self.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
