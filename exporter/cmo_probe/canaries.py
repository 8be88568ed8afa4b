"""The canaries: questions whose right answer is known beforehand, and what it is known by.

They come from a small YAML file, held here against everything that would make a canary blind: an expected
word that stands in the question itself would be found in an apology that repeats the question.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml
from cmo_exporter.catalogue import SOURCES

from cmo_probe.errors import CanariesError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAXIMUM_CANARIES: Final = 20
"""Each canary is some sixty series."""

APOLOGIES: Final = (
    r"\bI apologi[sz]e\b",
    r"\bI(?: a|')m sorry\b",
    r"^\s*(?:sorry|apologies)\b",
    r"\b(?:cannot|can't|can not|could not|couldn't|unable to) (?:answer|process)\b",
    r"\b(?:try|ask) again (?:later|shortly|soon|in a )",
)
"""How an apology is known by its text, whatever the service says of it; case is ignored."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_DEFAULT_MAXIMUM_SECONDS: Final = 10.0
_MAXIMUM_FILE_BYTES: Final = 1_000_000
_LINE: Final = "__line__"


@dataclass(frozen=True)
class Canary:
    """One question and what a good answer to it is.

    Attributes:
        name: how metrics and logs call it; the question itself is in neither.
        question: what is asked.
        must_contain: texts that must all be in the answer; case is ignored.
        must_match: a regular expression that must be found in the answer; case is ignored.
        fresh: whether the question is made new each time, so that no cache can answer it.
        streamed: whether the answer is asked for piece by piece.
        mode: how the service is to retrieve; empty leaves it to the service.
        sources: where the answer may come from, by the service's word; empty for anywhere.
        maximum_seconds: an answer that takes longer is a failure.
    """

    name: str
    question: str = field(repr=False)
    must_contain: tuple[str, ...] = ()
    must_match: re.Pattern[str] | None = None
    fresh: bool = False
    streamed: bool = False
    mode: str = ""
    sources: tuple[str, ...] = ()
    maximum_seconds: float = _DEFAULT_MAXIMUM_SECONDS


@dataclass(frozen=True)
class Canaries:
    """All canaries, in the order in which they are asked, and how apologies are known."""

    canaries: tuple[Canary, ...]
    apologies: tuple[re.Pattern[str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names, which are the closed list of the label ``canary``."""
        return tuple(canary.name for canary in self.canaries)


def default_file() -> Path:
    """The canaries that are shipped with the package."""
    return Path(__file__).with_name("canaries.yml")


def load_canaries(path: Path) -> Canaries:
    """Read a file of canaries.

    Raises:
        CanariesError: it cannot be read or used; the message names the file, the line and the field.
    """
    entry = _Entry(_parse(path), str(path))
    entry.allow("canaries", "apologies")
    entries = entry.get("canaries", list, [])
    if not 1 <= len(entries) <= MAXIMUM_CANARIES:
        raise entry.error("canaries", f"lists {len(entries)}; expected 1 to {MAXIMUM_CANARIES}")
    canaries = tuple(_canary(_Entry(one, str(path), f"canary {at}")) for at, one in enumerate(entries, 1))
    names = [canary.name for canary in canaries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise entry.error("canaries", f"names {twice[0]} twice; expected a name of its own for each")
    apologies = entry.texts("apologies") if "apologies" in entry.values else APOLOGIES
    return Canaries(canaries, tuple(entry.pattern("apologies", text) for text in apologies))


def _canary(entry: _Entry) -> Canary:
    entry.allow(*(name for name in Canary.__dataclass_fields__))
    name = entry.get("name", str, "")
    if not _NAME.fullmatch(name):
        raise entry.error(
            "name", f"is {name!r}; expected lower-case letters, digits and _, a letter first, at most 40"
        )
    entry.where = f"canary {name}"
    pattern = entry.get("must_match", str, "")
    canary = Canary(
        name=name,
        question=entry.get("question", str, "").strip(),
        must_contain=entry.texts("must_contain"),
        must_match=entry.pattern("must_match", pattern) if pattern else None,
        fresh=entry.get("fresh", bool, False),
        streamed=entry.get("streamed", bool, False),
        mode=entry.get("mode", str, ""),
        sources=entry.texts("sources"),
        maximum_seconds=entry.seconds("maximum_seconds", _DEFAULT_MAXIMUM_SECONDS),
    )
    _check(canary, entry)
    return canary


def _check(canary: Canary, entry: _Entry) -> None:
    if not canary.question:
        raise entry.error("question", "is empty; expected what is to be asked")
    if not canary.must_contain and canary.must_match is None:
        raise entry.error(
            "must_contain", "is missing, and so is must_match; without either any answer would pass"
        )
    for text in canary.must_contain:
        if text.casefold() in canary.question.casefold():
            raise entry.error(
                "must_contain",
                f"holds {text!r}, which is in the question; an apology that repeats the question would pass",
            )
    if canary.must_match is not None and canary.must_match.search(canary.question):
        raise entry.error(
            "must_match", "is found in the question; an apology that repeats the question would pass"
        )
    if unknown := [source for source in canary.sources if source not in SOURCES]:
        raise entry.error("sources", f"holds {unknown[0]!r}; expected some of {', '.join(SOURCES)}")


class _Entry:
    """One mapping of the file, read field by field, with errors that say where."""

    def __init__(self, content: object, path: str, where: str = "the file") -> None:
        self._path = path
        self.where = where
        self._line = 1
        if not isinstance(content, dict):
            raise self.error("", "is no mapping; expected fields, as in `name: popular`")
        self._line = content.get(_LINE, 1)
        self.values: Mapping[Any, Any] = {name: value for name, value in content.items() if name != _LINE}

    def error(self, name: str, problem: str) -> CanariesError:
        """The error to raise: file, line, where in it, field, problem."""
        return CanariesError(
            f"{self._path}, line {self._line}: {self.where}: {name} {problem}.".replace(":  ", ": ")
        )

    def allow(self, *names: str) -> None:
        """Refuse any other field, which may be one that is misspelt."""
        for name in self.values:
            if name not in names:
                raise self.error(str(name), f"is no field; expected some of {', '.join(names)}")

    def get(self, name: str, kind: type[Any], default: Any) -> Any:
        """A value of this kind, or the default."""
        value = self.values.get(name, default)
        if type(value) is not kind:
            raise self.error(name, f"is {value!r}; expected {_WORDS[kind]}")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, none of them empty."""
        values = self.get(name, list, [])
        if any(type(value) is not str or not value.strip() for value in values):
            raise self.error(name, "holds what is no text, or empty; expected a list of texts")
        return tuple(values)

    def seconds(self, name: str, default: float) -> float:
        """A number of seconds above 0."""
        value = self.values.get(name, default)
        if type(value) not in (int, float) or not 0 < value <= 24 * 3600:
            raise self.error(name, f"is {value!r}; expected seconds above 0")
        return float(value)

    def pattern(self, name: str, text: str) -> re.Pattern[str]:
        """A regular expression."""
        try:
            return re.compile(text, re.IGNORECASE)
        except re.error as error:
            raise self.error(name, f"is no regular expression ({error})") from error


_WORDS: Final = {str: "a text", bool: "true or false", list: "a list"}


class _Loader(yaml.SafeLoader):
    """Safe YAML whose mappings know their line, and in which no field is there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        """A mapping, with its line in it."""
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a field is there twice", node.start_mark)
        return {**mapping, _LINE: node.start_mark.line + 1}


def _parse(path: Path) -> object:
    try:
        with path.open("rb") as file:
            content = file.read(_MAXIMUM_FILE_BYTES + 1)
    except OSError as error:
        raise CanariesError(f"{path} cannot be read: {error.strerror}. Check the path.") from error
    if len(content) > _MAXIMUM_FILE_BYTES:
        raise CanariesError(f"{path} is larger than {_MAXIMUM_FILE_BYTES} bytes: no file of canaries.")
    try:
        return yaml.load(content, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise CanariesError(f"{path}, line {line}: no YAML: {error.problem or error.context}.") from error
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise CanariesError(f"{path}: no YAML ({type(error).__name__}).") from error
