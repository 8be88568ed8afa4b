"""Read objectives files, and say everything that is wrong with one at once.

The edge between files and `cmo_slo.model`: each mistake is reported with file, line and field, what was
expected and how to mend it, in the order of the file.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, get_args

import yaml
from pydantic import BaseModel, ValidationError

from cmo_slo import _marked_yaml
from cmo_slo.mistakes import Mistake, MistakesError
from cmo_slo.model import Objectives, whole_file_mistakes
from cmo_slo.text_file import UnreadableFileError, read_text_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic_core import ErrorDetails

LARGEST_OBJECTIVES_BYTES: Final = 1_000_000
"""What is larger is some other file: ours has 15 kB."""

_SUFFIXES: Final = (".yml", ".yaml")
_HASH_DIGITS: Final = 16
_WIDTH: Final = 110
_SHOWN_CHARACTERS: Final = 60
_ENTRY: Final = 2  # the steps to an entry of a list, such as alerts, 3
_FieldPath = tuple[str | int, ...]


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake in one file. ``line`` is 0 where the file as a whole is meant."""

    path: str
    line: int
    field: str
    wrong: str
    expected: str
    mend: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        named = f"{place}: {self.field}" if self.field else place
        return f"{named}: {self.wrong}; expected {self.expected}; {self.mend}"


class ObjectivesError(Exception):
    """An objectives file cannot be used; the message has one line a mistake, in the order of the file."""

    exit_status: ClassVar[int] = 3

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(map(str, self.problems)))


def load_objectives(path: str | Path) -> Objectives:
    """Read and validate one objectives file.

    Raises:
        ObjectivesError: it cannot be read, or anything in it is wrong; all mistakes are reported at once.
    """
    return parse_objectives(_text(Path(path)), str(path))


def parse_objectives(text: str, source: str) -> Objectives:
    """Validate the text of an objectives file; ``source`` is what messages call it.

    Raises:
        ObjectivesError: anything in it is wrong; all mistakes are reported at once.
    """
    try:
        marked = _marked_yaml.read(text)
    except _marked_yaml.YamlMistakeError as error:
        raise ObjectivesError(
            [Problem(source, error.line, "", error.wrong, error.expected, error.mend)]
        ) from error
    if not isinstance(marked.data, dict):
        raise ObjectivesError([_no_mapping(marked.data, source)])
    problems = [
        Problem(
            source,
            line,
            _dotted(field),
            f"stands there twice, first in line {first}",
            "each field once",
            "delete one of them",
        )
        for field, line, first in marked.duplicates
    ]
    try:
        objectives = Objectives.model_validate(marked.data)
    except ValidationError as error:
        problems += _problems(error, marked, source)
        raise ObjectivesError(problems) from error
    if problems:
        raise ObjectivesError(problems)
    return objectives


def objectives_hash(objectives: Objectives) -> str:
    """16 hexadecimal digits that change with any meaning of an objectives file, and with nothing else.

    They are the first of the SHA-256 of its canonical JSON, so layout and comments do not count.
    """
    canonical = json.dumps(objectives.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:_HASH_DIGITS]


def require_another_file(objectives: str, path: Path) -> None:
    """What is made of objectives may not be written over them.

    Args:
        objectives: a shipped name or a file, as `find_objectives` takes it.
        path: what is to be written.

    Raises:
        ObjectivesError: it is the file that the objectives are read from.
    """
    if path.resolve() == find_objectives(objectives).resolve():
        wrong = "would be written over the objectives that it is made of"
        raise ObjectivesError([Problem(str(path), 0, "", wrong, "another file", "name one that is not read")])


def objectives_text(objectives: Objectives) -> str:
    """A file that means the same, without the comments of the one that was read, for where that is not."""
    said = objectives.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=_WIDTH)


def shipped_directory() -> Path:
    """The folder of the objectives that this project ships: inside the package in a wheel, else beside it."""
    package = Path(__file__).resolve().parent
    inside = package / "objectives"
    return inside if inside.is_dir() else package.parent / "objectives"


def shipped_names() -> tuple[str, ...]:
    """Names of the objectives that come with this project, for example ``cmo-015``."""
    return tuple(sorted(path.stem for path in shipped_directory().glob("*.yml")))


def find_objectives(name_or_path: str | Path) -> Path:
    """The file of shipped objectives by their name (``cmo-015``), or of one's own by its path.

    Raises:
        ObjectivesError: there is no such file.
    """
    path = Path(name_or_path)
    text = str(name_or_path)
    is_name = len(path.parts) == 1 and path.suffix not in _SUFFIXES
    if is_name and text in shipped_names():
        return shipped_directory() / f"{text}.yml"
    try:
        exists = path.exists()
    except OSError as error:
        wrong = f"cannot be looked for: {error.strerror}"
        raise ObjectivesError(
            [Problem(text, 0, "", wrong, "an objectives file in YAML", "check the path and its permissions")]
        ) from error
    if exists:
        return path
    names = shipped_names()
    near = difflib.get_close_matches(text, names, n=1)
    mend = f"did you mean {near[0]}?" if near else "give the path of a file, or one of these names"
    raise ObjectivesError(
        [Problem(text, 0, "", "no such objectives", f"a file, or one of {', '.join(names)}", mend)]
    )


def json_schema() -> dict[str, Any]:
    """The JSON Schema of objectives files, for editors; it is committed beside them as ``schema.json``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Objectives.model_json_schema(),
        "title": "Objectives of cmo-slo/v1",
    }


def _text(path: Path) -> str:
    try:
        return read_text_file(path, LARGEST_OBJECTIVES_BYTES)
    except FileNotFoundError as error:
        wrong, mend = "no such file", f"check the path, or name one of {', '.join(shipped_names())}"
        cause: Exception = error
    except UnreadableFileError as error:
        wrong, mend, cause = error.wrong, error.mend, error
    raise ObjectivesError([Problem(str(path), 0, "", wrong, "an objectives file in YAML", mend)]) from cause


def _no_mapping(data: object, source: str) -> Problem:
    wrong = "is empty" if data is None else f"holds {_shown(data)} and no fields"
    expected = f"the fields {', '.join(Objectives.model_fields)}"
    return Problem(source, 1, "", wrong, expected, "start from a copy of cmo-015.yml")


def _problems(error: ValidationError, marked: _marked_yaml.Marked, source: str) -> list[Problem]:
    found: list[tuple[_FieldPath, Mistake]] = []
    for detail in error.errors():
        place = _in_file(detail["loc"], marked.data)
        found += [(place, mistake) for mistake in _mistakes(detail, place, marked.data)]
    # A mistake elsewhere keeps pydantic from looking at the file as a whole.
    wrong = [(*place, *mistake.field) for place, mistake in found]
    found += [((), mistake) for mistake in whole_file_mistakes(marked.data, wrong)]
    problems = []
    for place, mistake in found:
        field = (*place, *mistake.field)
        problems.append(
            Problem(
                source,
                _line(field, marked.lines),
                _dotted(field),
                mistake.wrong,
                mistake.expected,
                mistake.mend,
            )
        )
    return problems


def _in_file(location: Sequence[str | int], data: Any) -> _FieldPath:
    """Where pydantic's location is in the file: the same without the tag of a union and the mark of a key."""
    place: list[str | int] = []
    for step in location:
        in_union = place[-1:] == ["indicator"] or (place[:1] == ["alerts"] and len(place) == _ENTRY)
        if step == "[key]" or (in_union and _kind(data) == step):
            continue
        place.append(step)
        data = _step(data, step)
    return tuple(place)


def _step(data: Any, step: str | int) -> Any:
    if isinstance(data, dict):
        return data.get(step)
    if isinstance(data, list) and isinstance(step, int) and step < len(data):
        return data[step]
    return None


def _kind(data: Any) -> object:
    return data.get("kind") if isinstance(data, dict) else None


def _line(field: _FieldPath, lines: Mapping[_FieldPath, int]) -> int:
    while field not in lines:
        field = field[:-1]
    return lines[field]


def _dotted(field: _FieldPath) -> str:
    text = ""
    for step in field:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


_WANTED: Final[Mapping[str, str]] = {
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "tuple_type": "a list, such as [success]",
    "too_short": "at least one entry",
    "dict_type": "a mapping of names to lists",
    "mapping_type": "a mapping of names to lists",
    "model_type": "a mapping of fields",
    "model_attributes_type": "a mapping of fields",
}
_BOUNDS: Final[Mapping[str, tuple[str, str]]] = {
    "greater_than": ("gt", "a number above"),
    "greater_than_equal": ("ge", "a number of at least"),
    "less_than": ("lt", "a number below"),
    "less_than_equal": ("le", "a number of at most"),
}
_PATTERNS: Final[Mapping[str, str]] = {
    "^[a-z][a-z0-9_]*$": "small letters, digits and _, a letter first",
    "^[a-z][a-z0-9-]*$": "small letters, digits and -, a letter first",
    "^CMO[A-Za-z0-9]+$": "a name in letters and digits that begins with CMO",
}


def _mistakes(detail: ErrorDetails, place: _FieldPath, data: Any) -> Sequence[Mistake]:
    """What one of pydantic's errors means to the author of the file; fields are relative to ``place``."""
    context = detail.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, MistakesError):
        return cause.mistakes
    kind = detail["type"]
    if kind == "extra_forbidden":
        return [_unknown_field(place, data)]
    if kind == "missing":
        return [Mistake((), "is missing", "every required field", f"add `{place[-1]}: …`")]
    if kind == "union_tag_not_found" and isinstance(detail["input"], dict):
        kinds = [str(one) for model in _models_at(place, data) for one in _kinds(model)]
        return [Mistake(("kind",), "is missing", f"one of {', '.join(kinds)}", "add `kind: …`")]
    if kind == "union_tag_invalid":
        choices = [str(name) for name in str(context["expected_tags"]).replace("'", "").split(", ")]
        return [_no_choice(("kind",), context["tag"], choices)]
    if kind in ("enum", "literal_error"):
        choices = str(context["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
        return [_no_choice((), detail["input"], choices)]
    if kind == "too_short" and _step(detail["input"], 0) is not None:
        return []  # it has entries, all of them wrong, and each is reported
    expected = _expected(kind, context) or detail["msg"]
    return [Mistake((), f"{_shown(detail['input'])} does not fit", expected, "write that instead")]


def _no_choice(field: _FieldPath, value: object, choices: Sequence[str]) -> Mistake:
    near = difflib.get_close_matches(str(value), choices, n=1)
    mend = f"did you mean {near[0]}?" if near else "write one of these"
    return Mistake(field, f"{_shown(value)} is unknown", ", ".join(choices), mend)


def _expected(kind: str, context: Mapping[str, Any]) -> str | None:
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{words} {context[key]:g}"
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"])
    return _WANTED.get(kind)


def _unknown_field(place: _FieldPath, data: Any) -> Mistake:
    known = list(_model_at(place[:-1], data).model_fields)
    near = difflib.get_close_matches(str(place[-1]), known, n=1)
    mend = f"did you mean {near[0]}?" if near else "delete it"
    return Mistake((), "unknown field", f"one of {', '.join(known)}", mend)


def _model_at(place: _FieldPath, data: Any) -> type[BaseModel]:
    """The model that describes a place of the file; in a union, the one of the kind that the file says."""
    models = _models_at(place, data)
    for step in place:
        data = _step(data, step)
    return _of_its_kind(models, data)


def _models_at(place: _FieldPath, data: Any) -> list[type[BaseModel]]:
    """The models that can stand at a place of the file."""
    models: list[type[BaseModel]] = [Objectives]
    for step in place:
        model = _of_its_kind(models, data)
        if isinstance(step, str) and step in model.model_fields:
            models = _models(model.model_fields[step].annotation) or models
        data = _step(data, step)
    return models


def _of_its_kind(models: Sequence[type[BaseModel]], data: Any) -> type[BaseModel]:
    return next((one for one in models if _kind(data) in _kinds(one)), models[0])


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _kinds(model: type[BaseModel]) -> tuple[object, ...]:
    return get_args(model.model_fields["kind"].annotation) if "kind" in model.model_fields else ()


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
