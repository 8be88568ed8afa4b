"""A manifest is read for times, scenarios and what was offered, and every mistake in it is named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cmo_slo.manifest import ManifestError, load_manifest

if TYPE_CHECKING:
    from pathlib import Path


def document() -> dict[str, Any]:
    scenario = {
        "name": "clinical_rush", "start": 1000.5, "end": 1010.0, "held_start": 1001.0, "held_end": 1009.0,
        "offered": {"users": 60, "operations": 300, "pattern": "burst", "duration_seconds": 9.0},
    }  # fmt: skip
    return {
        "schema": "cmo.run-manifest/v1", "run_id": "r", "tool": "t", "host": "h", "target": "x",
        "start": 1000.0, "end": 1011, "scenarios": [scenario], "ground_truth": {"scenarios": {}},
    }  # fmt: skip


def written(folder: Path, content: object) -> Path:
    file = folder / "manifest.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_a_manifest_is_found_by_its_file_and_by_its_directory(tmp_path: Path) -> None:
    file = written(tmp_path, document())
    run = load_manifest(file)
    assert run == load_manifest(tmp_path)
    assert (run.run_id, run.start, run.end) == ("r", 1000.0, 1011.0)
    assert (run.scenarios[0].users, run.scenarios[0].operations) == (60, 300)


def test_results_in_it_are_never_read(tmp_path: Path) -> None:
    before = load_manifest(written(tmp_path, document()))
    falsified = document()
    falsified["ground_truth"] = "all of it succeeded"
    falsified["scenarios"][0]["outcomes"] = {"success": 300}
    assert load_manifest(written(tmp_path, falsified)) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"schema": "cmo.run-manifest/v2"},
            'schema: expected "cmo.run-manifest/v1", found "cmo.run-manifest/v2"',
        ),
        ({"run_id": ""}, "run_id: expected a text"),
        ({"run_id": "r\nCOMPLIANT  all of it"}, "run_id: expected a text of printable characters"),
        ({"run_id": "\x1b[2J"}, "run_id: expected a text of printable characters"),
        ({"run_id": "\ud800"}, "run_id: expected a text of printable characters"),
        ({"host": None}, "host: expected a text of printable characters, found nothing"),
        ({"start": "now"}, 'start: expected a Unix time in seconds, found "now"'),
        ({"start": True}, "start: expected a Unix time in seconds"),
        ({"start": 1790000000123}, "start: expected a Unix time in seconds"),
        ({"end": 900}, "end: expected a time after the start"),
        ({"scenarios": []}, "scenarios: expected a list with at least one entry"),
        ({"scenarios": ["x"]}, 'scenarios[0]: expected an object, found "x"'),
        ({"scenarios": document()["scenarios"] * 2}, "scenarios: expected each scenario once in a run"),
        ({"scenarios.end": 1012.0}, "scenarios[0]: expected times within the run"),
        ({"scenarios.end": 1000.0}, "scenarios[0].end: expected a time after the start"),
        ({"scenarios.held_start": 999.0}, "scenarios[0].held_start: expected a time from 1000.5 to 1010.0"),
        ({"scenarios.offered": None}, "scenarios[0].offered: expected an object, found nothing"),
        ({"scenarios.offered": {"users": 60}}, "scenarios[0].offered.operations: expected a whole number"),
        (
            {"scenarios.offered": {"users": 2.5, "operations": 1}},
            "scenarios[0].offered.users: expected a whole",
        ),
        (
            {"scenarios.offered": {"users": 10**400, "operations": 1}},
            "scenarios[0].offered.users: expected a whole number, at least 0 and at most 2^53",
        ),
    ],
    ids=str,
)
def test_a_mistake_is_named_by_file_and_field(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    content = document()
    ((field, value),) = change.items()
    if field.startswith("scenarios."):
        content["scenarios"][0][field.removeprefix("scenarios.")] = value
    else:
        content[field] = value
    file = written(tmp_path, content)
    with pytest.raises(ManifestError) as caught:
        load_manifest(file)
    assert str(caught.value).startswith(f"{file}: {words}")


@pytest.mark.parametrize("content", ["{", "[]", "12", '{"schema": "cmo.run-manifest/v1", "start": NaN}'])
def test_what_is_no_manifest(tmp_path: Path, content: str) -> None:
    with pytest.raises(ManifestError, match=r"expected|is not JSON"):
        load_manifest(written(tmp_path, content))


def test_what_is_nested_too_deeply_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="nested too deeply"):
        load_manifest(written(tmp_path, "[" * 100_000))


def test_a_path_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        load_manifest(tmp_path / ("x" * 5000))


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        load_manifest(tmp_path / "none.json")
