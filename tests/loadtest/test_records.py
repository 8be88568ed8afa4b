"""The ground truth: complete or refused, and summed up by its definitions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cmo_loadtest.errors import IncompleteRunError
from cmo_loadtest.manifest import build_manifest, summarise, write_atomically
from cmo_loadtest.plan import Plan, PlannedOperation, PlannedScenario, PlannedUser, plan_scenarios
from cmo_loadtest.records import Operation, check_complete, read_operations
from cmo_loadtest.scenarios import SCENARIOS, Pattern, Scenario

if TYPE_CHECKING:
    from pathlib import Path


def _operation(name: str = "a", **changes: Any) -> Operation:
    record: dict[str, Any] = {
        "operation": name,
        "scenario": "small",
        "user": "u1",
        "intended_start": 10.0,
        "start": 10.0,
        "end": 10.5,
        "latency_seconds": 0.5,
        "http_status": 200,
        "outcome": "success",
        "source": "cache",
        "cache": "hit",
        "tiers": (("l1", "hit"),),
        "fallbacks": (),
        "error": "",
    }
    return Operation(**{**record, **changes})


def _plan(*names: str) -> Plan:
    operations = tuple(PlannedOperation(name, 0.0, "?") for name in names)
    return Plan("http://x", (PlannedScenario("small", (PlannedUser("u1", "s", operations),)),), "", 1)


def test_a_plan_survives_its_way_to_locust() -> None:
    plan = Plan("http://x", plan_scenarios([SCENARIOS["clinical_rush"]], 1), "/results", 1)
    assert Plan.from_json(plan.to_json()) == plan
    assert (plan.users, plan.operations) == (60, 300)


def test_two_plans_never_share_an_id() -> None:
    first, second = (plan_scenarios([SCENARIOS["clinical_rush"]], 1)[0] for _ in range(2))
    assert not {user.session for user in first.users} & {user.session for user in second.users}
    ids = [
        {operation.operation for user in plan.users for operation in user.operations}
        for plan in (first, second)
    ]
    assert not ids[0] & ids[1]
    assert len(ids[0]) == 300


@pytest.mark.parametrize(
    ("recorded", "fault"),
    [
        (["a", "b"], r"1 missing \(c\)"),
        (["a", "b", "c", "c"], r"1 recorded more than once \(c\)"),
        (["a", "b", "c", "d"], r"1 recorded but not planned \(d\)"),
        (["a", "b", "b"], r"1 missing \(c\), 1 recorded more than once \(b\)"),
    ],
)
def test_records_that_are_not_the_plan_are_refused(recorded: list[str], fault: str) -> None:
    with pytest.raises(IncompleteRunError, match=fault):
        check_complete(_plan("a", "b", "c"), [_operation(name) for name in recorded])


def test_complete_records_are_accepted() -> None:
    check_complete(_plan("a", "b"), [_operation("b"), _operation("a")])


@pytest.mark.parametrize("cut", ['{"operation": "a", "sce', "{}", "[]"])
def test_a_line_that_is_no_record_is_refused(tmp_path: Path, cut: str) -> None:
    path = tmp_path / "operations.jsonl"
    path.write_text(json.dumps(vars(_operation())) + "\n" + cut)
    with pytest.raises(IncompleteRunError, match="line 2"):
        read_operations(path)


def test_the_summary_counts_by_outcome_source_and_tier() -> None:
    summary = summarise(
        [
            _operation(),
            _operation(tiers=(("l1", "miss"), ("l2", "hit"))),
            _operation(outcome="error", source="default", tiers=(("l1", "miss"), ("l2", "miss"))),
            _operation(outcome="error", source=None, tiers=()),
        ]
    )
    assert summary == {
        "operations": 4,
        "outcomes": {"error": 2, "success": 2},
        "sources": {"cache": 2, "default": 1},
        "tiers": {"l1": {"hit": 1, "miss": 2}, "l2": {"hit": 1, "miss": 1}},
        "within_2s": 2,
    }


def test_exactly_two_seconds_is_within_and_a_fast_apology_is_not() -> None:
    operations = [
        _operation(latency_seconds=2.0),
        _operation(latency_seconds=2.0001),
        _operation(latency_seconds=0.1, outcome="error", source="default"),
    ]
    assert summarise(operations)["within_2s"] == 1


def test_the_manifest_says_when_all_users_were_held() -> None:
    scenario = Scenario("small", 2, Pattern.BURST, 24, 3.0, 0, 1.0)
    operations = [
        _operation("a", user="u1", start=10.0, end=10.4),
        _operation("b", user="u2", start=10.3, end=10.9),
        _operation("c", user="u2", start=12.0, end=12.1),
        _operation("d", user="u1", start=12.5, end=12.6),
    ]
    manifest = build_manifest("run", "http://x", [scenario], operations)
    assert manifest["scenarios"] == [
        {
            "name": "small",
            "start": 10.0,
            "end": 12.6,
            "held_start": 10.3,
            "held_end": 12.1,
            "offered": {"users": 2, "operations": 24, "pattern": "burst", "duration_seconds": 3.0},
        }
    ]
    assert (manifest["start"], manifest["end"]) == (10.0, 12.6)


def test_a_manifest_is_written_whole_and_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    write_atomically(path, {"schema": "first"})
    write_atomically(path, {"schema": "second"})
    assert json.loads(path.read_text()) == {"schema": "second"}
    assert list(tmp_path.iterdir()) == [path]
