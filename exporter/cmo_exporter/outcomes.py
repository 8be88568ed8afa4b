"""What came of a call, read from what it returned.

The services this is made for return their failures: an object with error details, an apology, or nothing at
all. Trusting that whatever did not raise was a success would count an outage as success. So whoever wraps a
call hands in a classifier, a function from the returned object to an `Outcome`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cmo_exporter.errors import ExporterError

_ERROR_FIELDS: Final = ("error_details",)
_TEXT_FIELDS: Final = ("answer", "response", "content", "text")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call.

    Attributes:
        name: success, error, timeout, rejected or cancelled.
        source: where the user's answer came from (cache, lightrag, perplexity, stale, default), if there is
            one. An answer from ``stale`` or ``default`` is an error, whatever the name says. Calls of a
            component have no use for it.
    """

    name: str
    source: str | None = None


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """What a classifier gets of a stream that has come to its end.

    Attributes:
        pieces: how many there were; None and empty strings are none.
        last: the last of them; None when there was none.
    """

    pieces: int
    last: object = None


Classifier = Callable[[Any], Outcome | str]
"""From what was returned, or the `StreamEnd` of a stream, to what came of it; a bare string is its name."""


def as_outcome(said: object) -> Outcome:
    """What a classifier said, as an outcome.

    Raises:
        TypeError: it said nothing that is one.
    """
    if isinstance(said, Outcome):
        return said
    if isinstance(said, str):
        return Outcome(said)
    raise TypeError(f"A classifier returns an Outcome or the name of one, not {type(said).__name__}.")


def returned_failures(
    source: str | Callable[[Any], str] | None = None,
    *,
    error_fields: str | Iterable[str] = _ERROR_FIELDS,
    text_fields: str | Iterable[str] = _TEXT_FIELDS,
    apologies: str | Iterable[str] = (),
) -> Classifier:
    """A classifier for services that return their failures instead of raising them.

    An error is: nothing (None, blank text, a stream without pieces), an object or mapping with something in
    one of the error fields, and a text that holds one of the apologies. All else is a success.

    Args:
        source: where answers come from, or a function that reads it from what was returned. Needed for
            queries, so that answers are counted by source; of no use for components.
        error_fields: attributes or keys that say that something went wrong.
        text_fields: attributes or keys that may hold the text of the answer; the first that is text counts.
        apologies: phrases by which an apology is known, wherever they stand in it, in any case of letters.

    Raises:
        ExporterError: a field or a phrase is empty, or no text.
    """
    errors, texts = _words("error_fields", error_fields), _words("text_fields", text_fields)
    phrases = tuple(phrase.casefold() for phrase in _words("apologies", apologies))

    def classify(returned: Any) -> Outcome:
        if returned is None or (isinstance(returned, StreamEnd) and not returned.pieces):
            return Outcome("error")
        if any(_field(returned, name) for name in errors):
            return Outcome("error")
        text = _text(returned, texts)
        if text is not None and not text.strip():
            return Outcome("error")
        if text is not None and any(phrase in text.casefold() for phrase in phrases):
            return Outcome("error", "default")
        return Outcome("success", source(returned) if callable(source) else source)

    return classify


def _words(argument: str, given: str | Iterable[str]) -> tuple[str, ...]:
    """One or several, none of which is empty: an empty phrase would be in every answer."""
    words = (given,) if isinstance(given, str) else tuple(given)
    for word in words:
        if not isinstance(word, str) or not word.strip():
            raise ExporterError(f"{argument} holds {word!r}; expected text that is not empty.")
    return words


def _field(returned: object, name: str) -> object:
    if isinstance(returned, Mapping):
        return returned.get(name)
    return getattr(returned, name, None)


def _text(returned: object, fields: tuple[str, ...]) -> str | None:
    if isinstance(returned, StreamEnd):
        return None
    candidates = (returned, *(_field(returned, name) for name in fields))
    return next((text for text in candidates if isinstance(text, str)), None)
