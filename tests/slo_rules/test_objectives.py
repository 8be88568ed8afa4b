"""Reading objectives files: what is accepted, and what each mistake outside of alerts is answered with."""

from __future__ import annotations

import importlib
import json
import os
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cmo_slo.indicators import GrowthIndicator, LatencyIndicator, RatioIndicator
from cmo_slo.model import Objective, Objectives, Operator
from cmo_slo.objectives import (
    ObjectivesError,
    find_objectives,
    json_schema,
    load_objectives,
    objectives_hash,
    objectives_text,
    parse_objectives,
    shipped_directory,
    shipped_names,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from .changed_objectives import SHIPPED, changed, mistakes

if TYPE_CHECKING:
    from pathlib import Path


def test_the_shipped_objectives_say_what_cmo_lightrag_015_requires() -> None:
    objectives = load_objectives(find_objectives("cmo-015"))
    by_name = {objective.name: objective for objective in objectives.objectives}

    assert objectives.requirement == "CMO-LIGHTRAG-015"
    assert [name for name, objective in by_name.items() if objective.key] == [
        "concurrent_users",
        "success",
        "within_2s",
        "memory_growth",
        "cache_hits",
    ]
    targets = {name: (objective.operator, objective.target) for name, objective in by_name.items()}
    assert targets == {
        "concurrent_users": (Operator.AT_LEAST, 50),
        "success": (Operator.ABOVE, 0.95),
        "within_2s": (Operator.ABOVE, 0.95),
        "memory_growth": (Operator.BELOW, 100e6),
        "cache_hits": (Operator.ABOVE, 0.70),
        "no_catastrophic_failure": (Operator.AT_MOST, 0),
        "lightrag_success": (Operator.ABOVE, 0.96),
        "lightrag_healthy": (Operator.AT_LEAST, 0.95),
        "health_success": (Operator.AT_LEAST, 0.90),
        "health_latency": (Operator.AT_LEAST, 0.95),
    }
    assert isinstance(by_name["success"].indicator, RatioIndicator)
    assert isinstance(by_name["memory_growth"].indicator, GrowthIndicator)
    latency = by_name["within_2s"].indicator
    assert isinstance(latency, LatencyIndicator)
    assert latency.threshold_seconds == 2.0


@dataclass(frozen=True)
class Case:
    """One mistake: what is written instead of what, the field it is reported for, and the answer."""

    old: str
    new: str
    field: str
    wrong: str
    mend: str


OF_LATENCY = """    unit: ratio
    judged: [scenario, overall]
    key: true
    weight: 1
    warning_band: 0.005
    minimum_events: 100
    page:
      alert: CMOLiveQueriesSlow
"""

CASES = [
    Case("target: 50", "traget: 50", "objectives[0].traget", "unknown field", "did you mean target?"),
    Case("target: 50", "target: fifty", "objectives[0].target", '"fifty" does not fit', "write that instead"),
    Case("target: 50", "target: yes", "objectives[0].target", "true is no number", "write a number"),
    Case("target: 50", "target: .nan", "objectives[0].target", "NaN does not fit", "write that instead"),
    Case(
        "target: 50",
        "target: 50\n    target: 5",
        "objectives[0].target",
        "stands there twice, first in line 20",
        "delete one of them",
    ),
    Case(
        "metric: cmo_queries_total",
        "metric: cmo_query_total",
        "objectives[1].indicator.good.metric",
        "unknown metric 'cmo_query_total'",
        "did you mean cmo_queries_total?",
    ),
    Case(
        "outcome: [success]",
        "outcome: [sucess]",
        "objectives[1].indicator.good.labels.outcome[0]",
        "'sucess' is no value of label 'outcome'",
        "name one of these",
    ),
    Case(
        "outcome: [success]",
        "outcomes: [success]",
        "objectives[1].indicator.good.labels.outcomes",
        "cmo_queries_total has no label 'outcomes'",
        "name one of its labels",
    ),
    Case(
        "outcome: [success]",
        "outcome: success",
        "objectives[1].indicator.good.labels.outcome",
        '"success" does not fit',
        "write that instead",
    ),
    Case(
        "outcome: [success]",
        "outcome: [success, cancelled]",
        "objectives[1].indicator.good",
        "the total leaves out good events with outcome cancelled",
        "add these values to total, or take them from good",
    ),
    Case(
        "bad_ratio_above: 0.10",
        "bad_ratio_above: 1.0",
        "objectives[1].page.bad_ratio_above",
        "1.0 does not fit",
        "write that instead",
    ),
    Case(
        "threshold_seconds: 2.0",
        "threshold_seconds: 2.1",
        "objectives[2].indicator.threshold_seconds",
        "cmo_query_duration_seconds has no bucket edge at 2.1 s",
        "choose an edge, or add this one to the catalogue",
    ),
    Case(
        f"target: 0.95\n{OF_LATENCY}",
        f"target: 0.9\n{OF_LATENCY}",
        "objectives[2].target",
        "target 0.9 and quantile 0.95 differ",
        "make them equal",
    ),
    Case(
        "excluded_within_threshold: {outcome: [cancelled]}",
        "excluded_within_threshold: {outcome: [success]}",
        "objectives[2].indicator.excluded_within_threshold",
        "an event can be good and excluded at once",
        "name a label value in one of them only",
    ),
    Case(
        "kind: growth",
        "kind: grwth",
        "objectives[3].indicator.kind",
        '"grwth" is unknown',
        "did you mean growth?",
    ),
    Case(
        'operator: "<="',
        'operator: ">="',
        "objectives[5].operator",
        'a continuity is not held by ">="',
        "write one",
    ),
    Case(
        "name: within_2s", "name: success", "objectives[2].name", "'success' stands there twice", "rename one"
    ),
    Case(
        "name: within_2s\n    indicator",
        "name: success\n    indicator",
        "components[1].name",
        "'success' stands there twice",
        "rename one",
    ),
    Case(
        "metric: cmo_component_duration_seconds",
        "metric: cmo_query_duration_seconds",
        "components[1].indicator.metric",
        "cmo_query_duration_seconds has no label component",
        "count by one of these",
    ),
    Case(
        "scenarios: [",
        "scenarios: [live, ",
        "scenarios[0]",
        "'live' is no scenario of a run",
        "take it out or rename it",
    ),
    Case("cmo-slo/v1", "cmo-slo/v2", "version", '"cmo-slo/v2" is unknown', "did you mean cmo-slo/v1?"),
    Case(
        "outcome: [success, error, timeout, rejected]",
        "outcome: [success, error, error]",
        "objectives[1].indicator.total.labels.outcome[2]",
        "'error' stands there twice",
        "delete one",
    ),
    Case(
        "target: 50\n    unit: users\n    judged: [scenario]",
        "target: 50\n    unit: users\n    judged: [overall]",
        "objectives[0].judged[0]",
        "a held is not judged overall",
        "take it out",
    ),
    Case("unit: users", "unit: bytes", "objectives[0].unit", "a held has no unit bytes", "write users"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.field}-{case.new.splitlines()[-1].strip()}")
def test_a_mistake_is_named_with_its_line_and_its_mend(case: Case) -> None:
    text = changed(case.old, case.new)
    changed_lines = {
        number
        for number, (now, before) in enumerate(zip_longest(text.splitlines(), SHIPPED.splitlines()), 1)
        if now != before
    }

    with pytest.raises(ObjectivesError) as caught:
        parse_objectives(text, "my.yml")

    found = {(problem.field, problem.wrong, problem.mend): problem for problem in caught.value.problems}
    problem = found[case.field, case.wrong, case.mend]
    assert problem.line in changed_lines
    assert str(problem) == (
        f"my.yml:{problem.line}: {case.field}: {case.wrong}; expected {problem.expected}; {case.mend}"
    )


def test_a_missing_field_is_named() -> None:
    found = mistakes(changed("requirement: CMO-LIGHTRAG-015\n", ""))
    assert found == ["my.yml:2: requirement: is missing; expected every required field; add `requirement: …`"]


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file() -> None:
    text = changed("target: 50", "target: fifty")
    text = text.replace("name: within_2s", "name: success").replace("kind: growth", "kind: grwth")
    text = text.replace("scenarios: [", "scenarios: [overall, ")

    found = mistakes(text)

    assert [line.split(": ")[1] for line in found] == [
        "scenarios[0]",
        "objectives[0].target",
        "objectives[2].name",
        "objectives[3].indicator.kind",
        "components[1].name",
        "alerts[3].objectives[1]",
    ]
    lines = [int(line.split(":")[1]) for line in found]
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "my.yml:1: is empty; expected the fields version, name, requirement"),
        ("# nothing\n", "my.yml:1: is empty; expected the fields version"),
        ("- 1\n", "my.yml:1: holds [1] and no fields; expected the fields version"),
        ("version: cmo-slo/v1\n\tname: a\n", "my.yml:2: a tab; expected spaces, two a level"),
        ("name: [\n", "my.yml:2: not YAML: while parsing a flow node"),
        ("a: 1\n---\na: 2\n", "my.yml:2: a second document; expected one document a file"),
        ("a: &x 1\nb: *x\n", "my.yml:1: anchor or alias 'x'; expected every value written out"),
        ("a: !!python/object:os.system 1\n", "my.yml:1: the tag 'tag:yaml.org,2002:python/object:os.system'"),
        ("a: !!bool maybe\n", "my.yml:1: 'maybe' is no bool; expected a value of that type"),
        ('a: !!int ""\n', "my.yml:1: '' is no int; expected a value of that type"),
        (f"a: {'{a: ' * 3000}{'}' * 3000}", "my.yml:1: nested more than 50 deep; expected a few levels"),
        ("\n" + "[" * 100_000, "my.yml:2: nested more than 50 deep; expected a few levels"),
        ("- " * 100_000, "my.yml:1: nested more than 50 deep; expected a few levels"),
        ("a: !!int one\n", "my.yml:1: 'one' is no int; expected a value of that type"),
        ("a: \0\n", "my.yml:1: the character"),
        ("? [a]\n: 1\n", "my.yml:1: a list or mapping as a key"),
    ],
)
def test_what_is_no_objectives_file_is_said_so(text: str, expected: str) -> None:
    assert mistakes(text)[0].startswith(expected)


def test_files_that_cannot_be_read_are_said_so(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yml")
    (tmp_path / "zero.yml").symlink_to("/dev/zero")
    with (tmp_path / "large.yml").open("wb") as large:
        large.truncate(10**12)  # a hole, which takes no room on the disk
    no_file = "is no regular file; expected an objectives file in YAML; save it as a file, and name that"
    latin = tmp_path / "latin.yml"
    latin.write_bytes("name: Größe".encode("latin-1"))
    cases = {
        tmp_path
        / "none.yml": "no such file; expected an objectives file in YAML; check the path, or name one of",
        tmp_path: "is a directory; expected an objectives file in YAML; name a file in it",
        tmp_path / "pipe.yml": no_file,
        tmp_path / "zero.yml": no_file,
        tmp_path
        / "large.yml": "is larger than 1 MB; expected an objectives file in YAML; check that it is the",
        latin: "byte 8 is not UTF-8; expected an objectives file in YAML; save the file as UTF-8",
    }
    for path, expected in cases.items():
        with pytest.raises(ObjectivesError) as caught:
            load_objectives(path)
        assert str(caught.value).startswith(f"{path}: {expected}")


def test_a_byte_order_mark_and_numbers_without_a_dot_are_read() -> None:
    text = "\ufeff" + changed("target: 100.0e+6", "target: 1e8")
    assert parse_objectives(text.encode().decode("utf-8-sig"), "my.yml").objectives[3].target == 1e8


def test_the_hash_follows_meaning_and_not_layout() -> None:
    same = parse_objectives("# another comment\n" + SHIPPED, "a.yml")
    other = parse_objectives(changed("target: 50", "target: 51"), "b.yml")
    shipped = load_objectives(find_objectives("cmo-015"))

    assert objectives_hash(same) == objectives_hash(shipped)
    assert objectives_hash(other) != objectives_hash(shipped)
    assert len(objectives_hash(shipped)) == 16
    assert int(objectives_hash(shipped), 16) >= 0


@settings(max_examples=25)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1), st.floats(0.01, 0.99))
@example("yes", 0.5)
@example("1e3: [x] # y", 1 / 3)
def test_a_text_made_of_objectives_means_the_same(written: str, target: float) -> None:
    shipped = load_objectives(find_objectives("cmo-015"))
    first, *others = shipped.objectives
    spoilt = first.model_copy(update={"title": written, "description": written, "target": target})
    objectives = shipped.model_copy(update={"objectives": (spoilt, *others)})
    read = parse_objectives(objectives_text(objectives), "made.yml")
    assert read == objectives
    assert objectives_hash(read) == objectives_hash(objectives)


def test_objectives_are_found_by_name_and_by_path(tmp_path: Path) -> None:
    own = tmp_path / "own.yml"
    own.write_text(SHIPPED, encoding="utf-8")

    assert "cmo-015" in shipped_names()
    assert find_objectives("cmo-015") == shipped_directory() / "cmo-015.yml"
    assert find_objectives(own) == own
    with pytest.raises(ObjectivesError, match=r"cmo-15: no such objectives; .*; did you mean cmo-015\?"):
        find_objectives("cmo-15")


def test_the_schema_accepts_what_ships_and_refuses_a_typo() -> None:
    schema: dict[str, Any] = json.loads((shipped_directory() / "schema.json").read_text(encoding="utf-8"))
    document = yaml.safe_load(SHIPPED)
    # Imported by name because it has no types.
    jsonschema = importlib.import_module("jsonschema")
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(document)

    document["objectives"][0]["traget"] = document["objectives"][0].pop("target")
    assert not validator.is_valid(document)
    assert schema == json_schema()


DAMAGE: list[Any] = [None, 0, "x", [], {}, [[]], [{"indicator": {"kind": []}}], {"kind": "ratio", "good": []}]


def outcome_of(document: Any) -> str:
    """Objectives, or mistakes in words: anything else is a fault of ours, and raises."""
    try:
        parse_objectives(json.dumps(document), "my.yml")
    except ObjectivesError as error:
        return "mistakes" if error.problems else "an error without a mistake"
    return "objectives"


@pytest.mark.parametrize("field", list(Objectives.model_fields))
def test_no_damaged_file_ends_in_a_traceback(field: str) -> None:
    document = yaml.safe_load(SHIPPED)
    document["objectives"] = document["objectives"][1:2]
    for value in DAMAGE:
        assert outcome_of({**document, field: value}) in ("mistakes", "objectives")


@pytest.mark.parametrize("field", list(Objective.model_fields))
def test_no_damaged_objective_ends_in_a_traceback(field: str) -> None:
    document = yaml.safe_load(SHIPPED)
    for value in DAMAGE:
        objective = {**document["objectives"][1], field: value}
        assert outcome_of({**document, "objectives": [objective]}) in ("mistakes", "objectives")


# One of each kind: what is read of the others is the same.
ONE_OF_EACH_KIND = {alert["kind"]: number for number, alert in enumerate(yaml.safe_load(SHIPPED)["alerts"])}


@pytest.mark.parametrize("number", ONE_OF_EACH_KIND.values(), ids=ONE_OF_EACH_KIND)
def test_no_damaged_alert_ends_in_a_traceback(number: int) -> None:
    document = yaml.safe_load(SHIPPED)
    alert = document["alerts"][number]
    for field in alert:
        for value in DAMAGE:
            damaged = {
                **document,
                "objectives": document["objectives"][1:3],
                "alerts": [{**alert, field: value}],
            }
            assert outcome_of(damaged) in ("mistakes", "objectives")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"compliant_score": 0}, "compliant_score"),
        ({"objectives.0.target": 0}, "objectives[0].target"),
        ({"objectives.0.target": -1}, "objectives[0].target"),
        ({"objectives.0.indicator.tolerance": 1}, "objectives[0].indicator.tolerance"),
        ({"objectives.1.indicator.total.labels": {"outcome": ["success"]}}, "objectives[1].indicator.good"),
        (
            {
                "objectives.1.indicator.good.labels": {},
                "objectives.1.indicator.total.labels": {},
            },
            "objectives[1].indicator.good",
        ),
    ],
    ids=str,
)
def test_what_every_run_would_pass_is_no_objective(change: dict[str, Any], field: str) -> None:
    document = yaml.safe_load(SHIPPED)
    for path, value in change.items():
        place: Any = document
        *steps, last = (int(step) if step.isdigit() else step for step in path.split("."))
        for step in steps:
            place = place[step]
        place[last] = value
    with pytest.raises(ObjectivesError) as caught:
        parse_objectives(yaml.safe_dump(document), "my.yml")
    assert field in [problem.field for problem in caught.value.problems]


def test_objectives_at_a_path_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(ObjectivesError, match="cannot be looked for"):
        find_objectives(tmp_path / ("x" * 5000))
