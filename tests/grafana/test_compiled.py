"""The committed dashboards are those that the objectives compile to, with targets from nowhere else."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from cmo_dashboards import queries, shipped_dashboards
from cmo_dashboards.compliance import compliance
from cmo_dashboards.document import defaults_of, every_panel, panels
from cmo_dashboards.finish import text_of
from cmo_dashboards.shipped import compiled_directory, file_name
from cmo_dashboards.walkthrough import walkthrough
from cmo_exporter import catalogue
from cmo_slo.model import Objectives
from cmo_slo.objectives import load_objectives, shipped_directory

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def objectives() -> Objectives:
    return load_objectives(shipped_directory() / "cmo-015.yml")


def test_committed_dashboards_are_fresh() -> None:
    compiled = {file_name(board): text_of(board.document) for board in shipped_dashboards()}
    committed = {path.name: path.read_text(encoding="utf-8") for path in compiled_directory().glob("*.json")}
    assert committed == compiled, "run `cmo dashboards build`"


def test_the_page_for_on_call_is_fresh_and_covers_every_panel() -> None:
    page = (ROOT / "docs/dashboards.md").read_text(encoding="utf-8")
    assert page == walkthrough(shipped_dashboards()), "run `cmo dashboards build --docs docs/dashboards.md`"
    for board in shipped_dashboards():
        assert all(f"#### {panel['title']}\n" in page for panel in panels(board.document))


def test_document_is_what_people_are_promised() -> None:
    [board] = shipped_dashboards()
    document = board.document
    assert (document["uid"], document["title"]) == ("cmo-015", "CMO-015 compliance")
    assert document["editable"] is False
    assert document["graphTooltip"] == 1, "a shared crosshair"
    assert document["tags"]
    assert document["refresh"]
    assert [item["id"] for item in every_panel(document)] == list(
        range(1, len(list(every_panel(document))) + 1)
    )
    placed = [*document.get("links", []), *document["annotations"]["list"]]
    assert placed
    assert not [item for item in placed if "placement" in item]
    assert {item["name"] for item in document["templating"]["list"]} == {"datasource", "scenario"}


def test_layout_is_stable() -> None:
    first, second = shipped_dashboards()[0], shipped_dashboards()[0]
    assert text_of(first.document) == text_of(second.document)
    assert json.loads(text_of(first.document)) == first.document


def test_other_targets_make_other_titles_lines_and_colours(objectives: Objectives) -> None:
    changed = objectives.model_dump(mode="json")
    for objective in changed["objectives"]:
        if objective["name"] == "cache_hits":
            objective["target"] = 0.80
    document = compliance(Objectives.model_validate(changed)).document
    found = {panel["title"]: panel for panel in panels(document)}
    stat = found["Cache hit rate (target > 80 %)"]
    line = found["Cache hit rate over time (target > 80 %)"]
    steps = [step["value"] for step in defaults_of(stat)["thresholds"]["steps"]]
    assert steps == [None, 0.0, math.nextafter(0.8, 1.0), 0.82]
    assert defaults_of(line)["thresholds"]["steps"][-1]["value"] == 0.8
    assert not [title for title in found if "70" in title]


def test_a_file_without_an_objective_that_is_shown_is_refused_by_name(objectives: Objectives) -> None:
    fewer = [item for item in objectives.objectives if item.name != "cache_hits"]
    with pytest.raises(ValueError, match="cache_hits"):
        compliance(objectives.model_copy(update={"objectives": tuple(fewer)}))


def test_descriptions_name_only_metrics_that_exist() -> None:
    names = set(catalogue.BY_NAME)
    for panel in panels(shipped_dashboards()[0].document):
        assert set(re.findall(r"\bcmo_[a-z_]+", panel["description"])) - {"cmo_exporter"} <= names


def test_queries_have_no_macro_left_and_sane_bounds() -> None:
    [board] = shipped_dashboards()
    found = queries(board)
    assert {query.panel for query in found} == {panel["title"] for panel in panels(board.document)}
    for query in found:
        assert "$" not in query.expression
        assert query.lowest < query.highest or query.panel == "What fires"
        assert query.unit
    assert any(query.instant for query in found)
    assert not all(query.instant for query in found)
