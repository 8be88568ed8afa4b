"""Read what a service sends: one JSON object, or server-sent events that come piece by piece.

Nothing of it is trusted: it may be anything, of any length, and cut off anywhere. Of the service's own
account, the trail, only what is in the catalogue's lists is kept, so that whatever a service writes there can
neither name a label nor fill a log.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from cmo_exporter.catalogue import OTHER, QUERY_OUTCOMES, SOURCES

MAXIMUM_BYTES: Final = 1_000_000
"""No answer to a user is longer; what goes on for ever must not fill our memory."""


class UnreadableError(Exception):
    """What came is not what the interface promises; the message says so without quoting it."""


@dataclass(frozen=True)
class Answer:
    """The text that a user reads, and what the service says of it: None where it says nothing."""

    text: str = field(repr=False)
    outcome: str | None = None
    source: str | None = None


def read_json(body: bytes) -> Answer:
    """The answer in the body of a response.

    Raises:
        UnreadableError: there is none.
    """
    content = _object(body)
    if not isinstance(content.get("answer"), str):
        raise UnreadableError("no text under `answer`")
    return Answer(content["answer"], *_trail(content))


class EventReader:
    """Puts an answer together from the bytes of an event stream, however they are cut.

    Attributes:
        begun: whether a piece of the answer has come.
        done: whether the event that ends the answer has come; what follows it is not read.
    """

    def __init__(self) -> None:
        self.begun = False
        self.done = False
        self._pieces: list[str] = []
        self._trail: tuple[str | None, str | None] = (None, None)
        self._rest: list[bytes] = []
        self._event = ""
        self._data: list[bytes] = []

    def feed(self, received: bytes) -> None:
        """Take the next bytes.

        Raises:
            UnreadableError: an event is not what the interface promises.
        """
        *lines, rest = received.split(b"\n")
        if lines:
            lines[0] = b"".join((*self._rest, lines[0]))
            self._rest.clear()
        # Put together only when its end has come: a service may send a long line byte by byte.
        self._rest.append(rest)
        for line in lines:
            if self.done:
                return
            self._line(line.removesuffix(b"\r"))

    def answer(self) -> Answer:
        """The answer, as far as it has come."""
        return Answer("".join(self._pieces), *self._trail)

    def _line(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            self._dispatch()
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"data":
            self._data.append(value)

    def _dispatch(self) -> None:
        event, data = self._event, b"\n".join(self._data)
        self._event, self._data = "", []
        if event == "token":
            text = _object(data).get("text")
            if not isinstance(text, str):
                raise UnreadableError("a `token` event without `text`")
            self._pieces.append(text)
            self.begun = self.begun or text != ""
        elif event == "done":
            self._trail = _trail(_object(data))
            self.done = True


def _object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise UnreadableError("no JSON") from None
    if not isinstance(content, dict):
        raise UnreadableError("JSON, but no object")
    return content


def _trail(content: dict[str, Any]) -> tuple[str | None, str | None]:
    trail = content.get("trail")
    if not isinstance(trail, dict):
        return None, None
    return _known(trail.get("outcome"), QUERY_OUTCOMES), _known(trail.get("source"), SOURCES)


def _known(value: object, words: tuple[str, ...]) -> str | None:
    if value is None:
        return None
    return value if isinstance(value, str) and value in words else OTHER
