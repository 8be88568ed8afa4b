"""Which dashboards an objectives file is enough for, as docs/objectives.md says it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from cmo_dashboards.building import build_dashboards
from cmo_dashboards.shipped import shipped_objectives

if TYPE_CHECKING:
    from cmo_slo.model import ComponentIndicator, Objective, Objectives

OBJECTIVES: Final = shipped_objectives()
PAGE: Final = Path(__file__).resolve().parents[2] / "docs/objectives.md"
ROW: Final = re.compile(r"^\| (`cmo-[a-z-]+`|that of the file's name) \|(.*)\|(.*)\|(.*)\|$", re.MULTILINE)
FIELDS: Final = ("objectives", "components", "alerts")


def _shown() -> dict[str, tuple[set[str], ...]]:
    """What the page says that each dashboard shows, by its uid: objectives, components, alerts."""
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    return {
        uid.strip("`") if uid.startswith("`") else OBJECTIVES.name: tuple(
            set(re.findall(r"`(\w+)`", cell)) for cell in cells
        )
        for uid, *cells in rows
    }


def _name(entry: object) -> str:
    return str(getattr(entry, "name", None) or getattr(entry, "kind", None))


def _left_out(objectives: Objectives) -> set[str]:
    built = build_dashboards(objectives)
    made = {board.uid for board in built.dashboards}
    left_out = {one.uid for one in built.left_out}
    assert made | left_out == set(_shown()), "each is told of by its own uid"
    assert not made & left_out
    return left_out


def test_the_shipped_objectives_are_enough_for_all() -> None:
    assert _left_out(OBJECTIVES) == set()


@pytest.mark.parametrize(
    ("field", "name"),
    sorted({(field, _name(entry)) for field in FIELDS for entry in getattr(OBJECTIVES, field)}),
)
def test_what_is_lacking_keeps_from_being_built_what_shows_it(field: str, name: str) -> None:
    kept = tuple(entry for entry in getattr(OBJECTIVES, field) if _name(entry) != name)
    fewer = OBJECTIVES.model_copy(update={field: kept})
    shows = {uid for uid, shown in _shown().items() if name in shown[FIELDS.index(field)]}
    assert _left_out(fewer) == shows


def test_an_objective_of_another_kind_is_lacking_too() -> None:
    def changed(objective: Objective) -> Objective:
        [latency] = [one.indicator for one in OBJECTIVES.objectives if one.name == "within_2s"]
        return objective.model_copy(update={"indicator": latency} if objective.name == "cache_hits" else {})

    others = OBJECTIVES.model_copy(update={"objectives": tuple(map(changed, OBJECTIVES.objectives))})
    built = build_dashboards(others)
    assert {one.uid for one in built.left_out} == {"cmo-components", "cmo-015", "cmo-load-test"}
    assert {one.lacking for one in built.left_out} == {
        "an objective 'cache_hits' with an indicator of kind 'ratio'"
    }


def test_a_file_that_counts_no_events_leaves_the_monitor_out() -> None:
    levels = tuple(one for one in OBJECTIVES.objectives if not one.counted)
    [monitor] = [
        one
        for one in build_dashboards(OBJECTIVES.model_copy(update={"objectives": levels})).left_out
        if one.uid == "cmo-monitor"
    ]
    assert monitor.lacking == "an objective with an indicator of kind 'ratio' or 'latency'"


@pytest.mark.parametrize("number", [3, 9, 30])
def test_any_number_of_further_objectives_may_be_there(number: int) -> None:
    success = next(one for one in OBJECTIVES.objectives if one.name == "success")
    more = tuple(success.model_copy(update={"name": f"success_{at}", "page": None}) for at in range(number))
    objectives = OBJECTIVES.model_copy(update={"objectives": (*OBJECTIVES.objectives, *more)})
    assert _left_out(objectives) == set()


def test_how_long_a_slow_call_takes_is_what_the_objectives_say() -> None:
    def changed(component: ComponentIndicator) -> ComponentIndicator:
        if component.name != "within_2s":
            return component
        return component.model_copy(
            update={"indicator": component.indicator.model_copy(update={"threshold_seconds": 1.0})}
        )

    objectives = OBJECTIVES.model_copy(update={"components": tuple(map(changed, OBJECTIVES.components))})
    overview = build_dashboards(objectives).dashboards[0]
    [panel] = [
        one for row in overview.rows for one in row.panels if one.title.startswith("Calls that are slow")
    ]
    assert "later than 1 s" in panel.answers
