"""Read a run manifest: when a load test ran, which scenarios, and what it offered.

Nothing else of it is read. The results that the load test recorded are what a verdict is later held
against, so a checker that looked at them could not be checked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA: Final = "cmo.run-manifest/v1"
MANIFEST_NAME: Final = "manifest.json"

_LATEST_TIME: Final = 1e11  # the year 5138: milliseconds in place of seconds are beyond it
_LARGEST_COUNT: Final = 2**53  # counters are floats: beyond it they cannot be held against each other


class ManifestError(Exception):
    """A run manifest cannot be used; the message names file, field and what was expected."""


@dataclass(frozen=True)
class ScenarioRun:
    """One scenario of a run, in Unix seconds by the clock of the load test.

    ``start`` is just before its first request, ``end`` just after its last response; ``held_start`` the last
    user's first query and ``held_end`` the first user's last answer. What was offered: users and operations.
    """

    name: str
    start: float
    end: float
    held_start: float
    held_end: float
    users: int
    operations: int


@dataclass(frozen=True)
class Run:
    """One run of a load test. ``host`` is a hash of its host's boot id, to know the clock again."""

    run_id: str
    host: str
    start: float
    end: float
    scenarios: tuple[ScenarioRun, ...]

    def scenario(self, name: str) -> ScenarioRun | None:
        """The scenario of that name, if it ran."""
        return next((scenario for scenario in self.scenarios if scenario.name == name), None)


def load_manifest(path: Path) -> Run:
    """Read the manifest, from its file or from the directory of its run.

    Raises:
        ManifestError: it is missing, is no manifest, or contradicts itself.
    """
    file = path
    try:
        file = path / MANIFEST_NAME if path.is_dir() else path
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ManifestError(
            f"{file}: cannot be read ({error.strerror}). --run takes the manifest.json of a load test, or "
            "the directory that holds it."
        ) from error
    except ValueError as error:
        raise ManifestError(
            f"{file}: is not JSON: {error}. --run takes the manifest.json that a load test has written."
        ) from error
    except RecursionError as error:
        raise ManifestError(f"{file}: is no manifest: it is nested too deeply to be read.") from error
    return _run(_Fields(str(file), "", document))


class _Fields:
    """A JSON object under validation, which knows where it stands for the message."""

    def __init__(self, file: str, where: str, value: object) -> None:
        self.file = file
        self.where = where
        if not isinstance(value, dict):
            raise self.error("", "an object", value)
        self.values: dict[str, Any] = value

    def error(self, name: str, expected: str, found: object) -> ManifestError:
        field = ".".join(part for part in (self.where, name) if part) or "the document"
        return ManifestError(f"{self.file}: {field}: expected {expected}, found {_shown(found)}.")

    def text(self, name: str) -> str:
        value = self.values.get(name)
        # One line without control characters: it is printed beside the verdict, and must not forge one.
        if not isinstance(value, str) or not value or not value.isprintable():
            raise self.error(name, "a text of printable characters", value)
        return value

    def time(self, name: str) -> float:
        value = self.values.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _LATEST_TIME:
            return float(value)
        raise self.error(name, "a Unix time in seconds", value)

    def whole(self, name: str) -> int:
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST_COUNT:
            raise self.error(name, "a whole number, at least 0 and at most 2^53", value)
        return value

    def part(self, name: str) -> _Fields:
        return _Fields(self.file, f"{self.where}.{name}" if self.where else name, self.values.get(name))

    def parts(self, name: str) -> list[_Fields]:
        value = self.values.get(name)
        if not isinstance(value, list) or not value:
            raise self.error(name, "a list with at least one entry", value)
        return [_Fields(self.file, f"{name}[{index}]", entry) for index, entry in enumerate(value)]


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _run(fields: _Fields) -> Run:
    if fields.values.get("schema") != SCHEMA:
        raise fields.error("schema", f'"{SCHEMA}"', fields.values.get("schema"))
    run = Run(
        run_id=fields.text("run_id"),
        host=fields.text("host"),
        start=fields.time("start"),
        end=fields.time("end"),
        scenarios=tuple(_scenario(entry) for entry in fields.parts("scenarios")),
    )
    if not run.start < run.end:
        raise fields.error("end", f"a time after the start, {run.start}", run.end)
    names = [scenario.name for scenario in run.scenarios]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise fields.error("scenarios", "each scenario once in a run", twice)
    for index, scenario in enumerate(run.scenarios):
        if scenario.start < run.start or scenario.end > run.end:
            expected = f"times within the run, {run.start} to {run.end}"
            raise fields.error(f"scenarios[{index}]", expected, [scenario.start, scenario.end])
    return run


def _scenario(fields: _Fields) -> ScenarioRun:
    offered = fields.part("offered")
    scenario = ScenarioRun(
        name=fields.text("name"),
        start=fields.time("start"),
        end=fields.time("end"),
        held_start=fields.time("held_start"),
        held_end=fields.time("held_end"),
        users=offered.whole("users"),
        operations=offered.whole("operations"),
    )
    if not scenario.start < scenario.end:
        raise fields.error("end", f"a time after the start, {scenario.start}", scenario.end)
    for name in ("held_start", "held_end"):
        if not scenario.start <= getattr(scenario, name) <= scenario.end:
            expected = f"a time from {scenario.start} to {scenario.end}"
            raise fields.error(name, expected, getattr(scenario, name))
    return scenario
