"""Variables: what they become in a dashboard, what stands for them in tests, what their check refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from cmo_dashboards import Macros, shipped_dashboards
from cmo_dashboards.checks import checks_of
from cmo_dashboards.components import components
from cmo_dashboards.document import Document, every_panel, panels
from cmo_dashboards.resources import resources
from cmo_dashboards.shipped import shipped_objectives
from cmo_dashboards.variables import AGAINST, HISTORY
from cmo_slo.objectives import load_objectives, shipped_directory

ROOT: Final = Path(__file__).resolve().parents[2]
BOARDS: Final = {board.uid: board.document for board in shipped_dashboards()}
CHECKS: Final = checks_of(shipped_objectives())
Fault = Callable[[dict[str, Any]], object]


@pytest.fixture
def comparison() -> Document:
    return copy.deepcopy(BOARDS["cmo-load-test"])


def _variable(document: Document, name: str) -> dict[str, Any]:
    found: dict[str, Any]
    [found] = [item for item in document["templating"]["list"] if item["name"] == name]
    return found


@pytest.mark.parametrize(
    ("uid", "names"),
    [
        ("cmo-components", ["datasource", "scenario", "component"]),
        ("cmo-resources", ["datasource", "job", "instance"]),
        ("cmo-load-test", ["datasource", "scenario", "history", "run", "against"]),
    ],
)
def test_a_dashboard_can_be_narrowed_to_what_its_question_is_about(uid: str, names: list[str]) -> None:
    assert [item["name"] for item in BOARDS[uid]["templating"]["list"]] == names


def test_a_choice_offers_its_options_and_the_first_is_chosen(comparison: Document) -> None:
    variable = _variable(comparison, "history")
    assert variable["type"] == "custom"
    assert variable["query"] == "7 days : 7d, 1 day : 1d, 30 days : 30d"
    assert [option["value"] for option in variable["options"]] == ["7d", "1d", "30d"]
    assert variable["current"] == variable["options"][0]


def test_a_distance_is_asked_for_as_a_result_and_always_has_a_value(comparison: Document) -> None:
    variable = _variable(comparison, "against")
    assert variable["query"]["query"] == f"query_result({AGAINST.question})"
    assert variable["query"]["qryType"] == 3
    assert variable["current"] == {"selected": True, "text": "1 day earlier", "value": "86401"}
    assert variable["allowCustomValue"]
    assert 'label_replace(vector(3600 + ${run}), "run", "1 hour earlier", "", "")' in AGAINST.question


def test_a_variable_without_a_value_to_begin_with_is_refused() -> None:
    with pytest.raises(ValueError, match="history"):
        replace(HISTORY, options=())
    with pytest.raises(ValueError, match="against"):
        replace(AGAINST, fixed=())


def test_something_stands_for_every_variable() -> None:
    expression = 'up{job=~"$job"} offset ${against}s and up[$history]'
    assert Macros().replace(expression) == 'up{job=~".+"} offset 10s and up[7d]'
    chosen = Macros(chosen={"against": "3600", "job": "cmo"})
    assert chosen.replace(expression) == 'up{job=~"cmo"} offset 3600s and up[7d]'


FAULTS: Final[list[tuple[str, str, Fault]]] = [
    ("against", "offers whole results", lambda variable: variable.update(regex="/(.*)/")),
    ("against", "offers whole results", lambda variable: variable.pop("regex")),
    ("against", "does not ask in PromQL", lambda one: one["query"].update(query="query_result(max(up)")),
    ("against", "does not ask in PromQL", lambda one: one["query"].update(query="query_result(max(up)))")),
    ("against", "expected label_values", lambda one: one["query"].update(query="max(up)")),
    ("against", "is not asked anew", lambda variable: variable.update(refresh=1)),
    ("scenario", "does not ask in PromQL", lambda one: one["query"].update(query="label_values(up{, job)")),
    ("history", "expected one of its options", lambda variable: variable["current"].update(value="2d")),
    ("history", "expected one of its options", lambda variable: variable.update(options=[])),
]


@pytest.mark.parametrize(("name", "words", "fault"), FAULTS)
def test_a_seeded_fault_is_found(comparison: Document, name: str, words: str, fault: Fault) -> None:
    assert list(CHECKS["variables"](comparison)) == []
    fault(_variable(comparison, name))
    found = [str(finding) for finding in CHECKS["variables"](comparison)]
    assert [line for line in found if words in line and line.startswith(f"variable {name}")], found


def test_variables_that_stand_before_what_they_ask_for_are_found(comparison: Document) -> None:
    comparison["templating"]["list"].reverse()
    found = [str(finding) for finding in CHECKS["variables"](comparison)]
    assert "variable against: asks for $history, which is not defined before it" in found
    assert any("in the order" in line for line in found)


def test_a_row_is_drawn_for_each_component_and_closed_at_first() -> None:
    rows = [panel for panel in every_panel(BOARDS["cmo-components"]) if panel.get("repeat")]
    [row] = rows
    assert (row["type"], row["repeat"], row["collapsed"]) == ("row", "component", True)
    assert len(row["panels"]) == 5
    assert "$component" in row["title"]


def test_links_lead_to_runbooks_that_exist() -> None:
    address = "https://git.example.org/docs/runbooks"
    objectives = load_objectives(shipped_directory() / "cmo-015.yml")
    published = objectives.model_copy(
        update={"links": objectives.links.model_copy(update={"runbooks": address})}
    )
    linked = [
        link["url"]
        for board in (components(published), resources(published))
        for panel in panels(board.document)
        for link in panel.get("links") or []
        if not link["url"].startswith("/d/")
    ]
    assert len(linked) >= 10
    for url in linked:
        assert url.startswith(f"{address}/CMO")
        assert (ROOT / "docs/runbooks" / url.rpartition("/")[2]).is_file(), url
