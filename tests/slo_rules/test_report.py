"""Reports: text that can be read at 3 a.m., JSON that keeps its schema."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cmo_exporter import catalogue
from cmo_slo.judge import judge
from cmo_slo.objectives import find_objectives, load_objectives, objectives_hash
from cmo_slo.report import Report, as_json, as_text
from cmo_slo.verdict import Options

from .scripted import EPOCH, SCENARIOS, World, edited, four, load

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmo_slo.samples import Series

jsonschema: Any = importlib.import_module("jsonschema")  # which ships no types
ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs/verdict-schema.json").read_text())


def report(world: World, change: Callable[[Series], object] = lambda one: one) -> Report:
    objectives = load_objectives(find_objectives("cmo-015"))
    options, run, evidence = Options(), world.run(), edited(world.evidence(), change)
    return Report(
        verdict=judge(objectives, run, evidence, options=options),
        objectives=objectives,
        objectives_hash=objectives_hash(objectives),
        run=run,
        evidence=evidence,
        options=options,
        data_source="http://127.0.0.1:9090",
        tool="cmo check 0.1.0",
    )


def failing() -> World:
    loads = tuple(load(name, start=60.0 + 21 * n, failures=32, seed=n) for n, name in enumerate(SCENARIOS))
    return replace(four(), loads=loads)


WORLDS = {
    "compliant": four(),
    "failing": failing(),
    "warned": replace(four(), loads=(load(start=60.0, failures=19, slow=0), *four().loads[1:])),
    "restarted": four(restarts=(90.0,)),
    "unscraped": four(scraped_from=500.0),
    "one scenario": World((load(),)),
    "two instances": four(instances=2),
}


@pytest.mark.parametrize("name", WORLDS)
def test_json_keeps_its_schema(name: str) -> None:
    document = json.loads(json.dumps(as_json(report(WORLDS[name])), allow_nan=False))
    jsonschema.validate(document, SCHEMA)
    assert document["exit_status"] == ["COMPLIANT", "NON-COMPLIANT", "INCONCLUSIVE"].index(
        document["verdict"]
    )


@pytest.mark.parametrize("name", WORLDS)
def test_text_begins_with_the_verdict_and_fits_a_terminal(name: str) -> None:
    made = report(WORLDS[name])
    text = as_text(made)
    assert text.startswith(made.verdict.outcome.value + "  CMO-LIGHTRAG-015 (cmo-015), run scripted\n")
    assert max(map(len, text.splitlines())) <= 110
    assert "\x1b" not in text
    assert re.sub(r"\x1b\[[0-9;]*m", "", as_text(made, colour=True)) == text
    assert "\x1b[" in as_text(made, colour=True)


def test_every_verdict_that_does_not_pass_has_its_reason_in_the_text() -> None:
    made = report(failing())
    text = " ".join(as_text(made).split())
    for result in made.verdict.results:
        for unit in result.units:
            if unit.status != "PASS":
                assert unit.reason in text


def test_a_ratio_never_shows_as_the_target_that_it_misses() -> None:
    """18,999 of 20,000 is 94.995 %, which rounds to 95.00 %."""
    one = load(operations=20_000, failures=1_001, slow=0, misses=100, length=25.0)
    text = as_text(report(replace(four(), loads=(one,))))
    assert "FAIL 94.99 %" in text
    assert "FAIL 95.00 %" not in text


def test_counts_are_the_truth_and_carry_their_provenance() -> None:
    document = as_json(report(failing()))
    counts: dict[str, Any] = document["counts"]["clinical_rush"]
    assert counts["exact"] is True
    assert counts["queries"] == {"success": 368, "error": 32, "timeout": 0, "rejected": 0, "cancelled": 0}
    truth = failing().loads[1]
    assert counts["within_threshold"] == {
        "threshold_seconds": 2.0, "success": truth.within("success"), "failure": 32, "cancelled": 0,
    }  # fmt: skip
    provenance = counts["provenance"]
    assert any(query.startswith("cmo_queries_total{") for query in provenance["queries"])
    (span,) = provenance["spans"]
    assert span["t0"] < document["run"]["start"] + 21.0 < span["t1"] < span["confirmed_at"]
    for objective in document["objectives"]:
        for unit in objective["units"]:
            assert unit["provenance"]["queries"], objective["name"]
            assert unit["provenance"]["spans"]


def test_a_long_list_of_scenarios_becomes_a_list() -> None:
    made = report(four())
    names = tuple(f"a_scenario_with_a_rather_long_name_{n}" for n in range(6))
    objectives = made.objectives.model_copy(update={"scenarios": names})
    verdict = judge(objectives, made.run, made.evidence)
    text = as_text(replace(made, verdict=verdict, objectives=objectives))
    assert max(map(len, text.splitlines())) <= 110
    assert names[5] in text


@pytest.mark.parametrize("instances", [1, 2])
@pytest.mark.parametrize("before", [0.0, -1e308])
@pytest.mark.parametrize(
    "name",
    [
        catalogue.QUERIES.name,
        catalogue.QUERY_CACHE_RESULTS_TOTAL.name,
        catalogue.ACTIVE_USER_SECONDS.name,
        catalogue.MEMORY.name,
        catalogue.MEMORY_PEAK.name,
    ],
)
def test_samples_that_add_up_to_infinity_are_inconclusive_in_words(
    name: str, before: float, instances: int
) -> None:
    """Prometheus stores any float: a service, or whoever poses as one, can expose 1e308 twice."""

    def huge(one: Series) -> Series:
        if one.name != name:
            return one
        return replace(one, points={time: before if time < EPOCH + 70.0 else 1e308 for time in one.points})

    made = report(four(instances=instances), huge)
    document = json.loads(json.dumps(as_json(made), allow_nan=False))
    jsonschema.validate(document, SCHEMA)
    assert document["verdict"] == "INCONCLUSIVE"
    assert max(map(len, as_text(made).splitlines())) <= 110


@pytest.mark.parametrize(
    ("name", "label"),
    [("cmo_queries_total", "outcome"), ("cmo_query_duration_seconds_bucket", "le")],
)
def test_a_series_without_its_labels_is_no_fault_of_ours(name: str, label: str) -> None:
    def bare(one: Series) -> Series | None:
        if one.name != name:
            return one
        if one.labels["outcome"] != "success" or one.labels.get("le", "2.0") != "2.0":
            return None
        return replace(one, labels={key: value for key, value in one.labels.items() if key != label})

    document = as_json(report(four(), bare))
    jsonschema.validate(document, SCHEMA)
    assert document["verdict"] == "INCONCLUSIVE"


def test_a_limit_that_is_missed_by_little_does_not_show_as_reached() -> None:
    loads = (load(start=60.0, held_users=49.4999), *four().loads[1:])
    missed = as_text(report(replace(four(), loads=loads)))
    assert "FAIL 49.49" in missed
    assert "49.49 users in the lowest of" in missed
    loads = (load(start=60.0, peak_bytes=599.99e6), *four().loads[1:])
    assert "WARN 99.9 MB" in as_text(report(replace(four(), loads=loads)))


def test_a_partial_report_names_what_it_judged_whatever_comes_first() -> None:
    whole = report(four())
    objectives = whole.objectives.model_copy(update={"objectives": whole.objectives.objectives[::-1]})
    verdict = judge(objectives, whole.run, whole.evidence, scenarios=["clinical_rush"])
    assert verdict.results[0].objective.name != whole.verdict.results[0].objective.name
    overall_first = replace(
        verdict, results=tuple(sorted(verdict.results, key=lambda one: one.units[0].scope != "overall"))
    )
    text = as_text(replace(whole, verdict=overall_first))
    assert "Judged on clinical_rush alone" in text
