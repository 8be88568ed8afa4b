"""The committed dashboards are those that the objectives compile to, with targets from nowhere else."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from cmo_dashboards import Dashboard, queries, shipped_dashboards
from cmo_dashboards.checks import run_checks
from cmo_dashboards.colours import FAIL
from cmo_dashboards.compliance import compliance
from cmo_dashboards.document import defaults_of, every_panel, panels
from cmo_dashboards.finish import text_of
from cmo_dashboards.monitor import monitor
from cmo_dashboards.overview import overview
from cmo_dashboards.shipped import compiled_directory, file_name
from cmo_dashboards.walkthrough import walkthrough
from cmo_exporter import catalogue
from cmo_slo.model import Objectives
from cmo_slo.objectives import load_objectives, shipped_directory

ROOT = Path(__file__).resolve().parents[2]
SCREEN_ROWS = 23
"""Rows of Grafana's grid, of 38 pixels each, on a screen of 1080 lines below the bars of browser and page."""
LIVE = 'scenario="live"'
STATUS_WORDS = {"Too few to judge", "Few, target missed", "No traffic", "No data"}


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
        _, _, after = page.partition(f"\n## {board.title} (`{board.uid}`)\n")
        own = after.partition("\n## ")[0]
        for panel in panels(board.document):
            assert re.search(rf"^#### {re.escape(panel['title'])}( \(.+\))?$", own, re.MULTILINE)
        assert own.count("\n#### ") == len(list(panels(board.document)))


def test_every_heading_of_the_page_can_be_linked_to_and_every_link_leads_to_one() -> None:
    page = walkthrough(shipped_dashboards())
    anchors = [
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    ]
    assert sorted(anchors) == sorted(set(anchors))
    links = re.findall(r"\]\(#([^)]+)\)", page)
    assert len(links) == len(shipped_dashboards())
    assert set(links) <= set(anchors)


def test_the_page_says_what_to_open_for_each_page() -> None:
    text = walkthrough(shipped_dashboards())
    objectives = load_objectives(shipped_directory() / "cmo-015.yml")
    woken = {one.page.alert for one in objectives.objectives if one.page}
    woken |= {alert.alert for alert in objectives.alerts if alert.kind in ("down", "hanging", "no_traffic")}
    assert len(woken) == 5
    told = re.findall(r"^\| \[(\w+)\]\(runbooks/(\w+)\.md\) \| ([^|]+) \| (.+) \|$", text, re.MULTILINE)
    assert {alert for alert, *_ in told} == woken | {"CMOMonitoringSilent"}
    boards = {board.title: board for board in shipped_dashboards()}
    for alert, runbook, board, named in told:
        assert runbook == alert
        there = {panel["title"] for panel in panels(boards[board].document)}
        titles = set(re.findall(r"\*([^*]+)\*", named))
        assert titles, alert
        assert titles <= there, alert


def test_the_page_links_to_every_runbook_that_it_names() -> None:
    text = walkthrough(shipped_dashboards())
    named = re.findall(r"\bCMO[A-Z][A-Za-z]+", text)
    linked = re.findall(r"\[(CMO[A-Z][A-Za-z]+)\]\(runbooks/(\w+)\.md\)", text)
    assert len(named) == 2 * len(linked) > 20
    for name, path in linked:
        assert name == path
        assert (ROOT / f"docs/runbooks/{path}.md").is_file(), name


def test_what_is_never_red_does_not_say_when() -> None:
    headed = {"When red": 0, "What to do": 0}
    for board in shipped_dashboards():
        for panel in panels(board.document):
            defaults = defaults_of(panel)
            shown = json.dumps([defaults["thresholds"], defaults["mappings"]])
            red = panel["type"] in ("stat", "state-timeline") and FAIL in shown
            heading = "When red" if red else "What to do"
            assert re.findall(r"\*\*([^*]+):\*\*", panel["description"]) == [heading], panel["title"]
            headed[heading] += 1
    assert min(headed.values()) > 20


def test_the_page_names_no_page_that_debians_prometheus_lacks() -> None:
    page = walkthrough(shipped_dashboards())
    assert not re.findall(r"(?<!/v1)/(?:rules|targets|alerts)\b", page)


def test_a_panel_that_is_named_in_a_text_is_there() -> None:
    titles = {board.title for board in shipped_dashboards()}
    panel_titles = [
        panel.title for board in shipped_dashboards() for row in board.rows for panel in row.panels
    ]
    for board in shipped_dashboards():
        for panel in panels(board.document):
            for named in re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", panel["description"]):
                known = named in titles | STATUS_WORDS or any(
                    title.startswith(named) for title in panel_titles
                )
                assert known, (board.uid, panel["title"], named)


@pytest.mark.parametrize("board", shipped_dashboards(), ids=lambda board: board.uid)
def test_documents_are_what_people_are_promised(board: Dashboard) -> None:
    document = board.document
    assert (document["uid"], document["title"]) == (board.uid, board.title)
    assert document["editable"] is False
    assert document["graphTooltip"] == 1, "a shared crosshair"
    assert document["tags"]
    assert document["refresh"] == "30s"
    assert [item["id"] for item in every_panel(document)] == list(
        range(1, len(list(every_panel(document))) + 1)
    )
    placed = [*document.get("links", []), *document["annotations"]["list"]]
    assert placed
    placed += [link for panel in panels(document) for link in panel.get("links", [])]
    assert not [item for item in placed if "placement" in item]
    variables = ["datasource", *(variable.name for variable in board.variables)]
    assert [item["name"] for item in document["templating"]["list"]] == variables


def test_the_dashboards_stand_in_the_order_of_their_use() -> None:
    uids = [board.uid for board in shipped_dashboards()]
    assert len(uids) == len(set(uids))
    assert uids[0] == "cmo-overview"
    assert uids[-1] == "cmo-monitor"
    assert {"cmo-overview", "cmo-015", "cmo-monitor"} <= set(uids)


def test_the_symptoms_of_the_overview_fit_on_one_screen_and_nothing_can_hide_them() -> None:
    [board] = [board for board in shipped_dashboards() if board.uid == "cmo-overview"]
    unfolded = [panel for panel in board.document["panels"] if panel["type"] != "row"]
    assert max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in unfolded) <= SCREEN_ROWS
    assert [panel["collapsed"] for panel in board.document["panels"] if panel["type"] == "row"][1:] == [
        True
    ] * 4
    assert not [
        query
        for query in queries(board)
        if "cmo_queries" in query.expression and LIVE not in query.expression
    ]
    for panel in panels(board.document):
        assert not [target for target in panel["targets"] if "$scenario" in target["expr"]]


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


@pytest.mark.parametrize("left_out", [0, 2, 4])
def test_the_overview_fits_its_screen_with_fewer_objectives(objectives: Objectives, left_out: int) -> None:
    kept = [item for item in objectives.objectives if item.name in ("success", "within_2s")]
    others = [item for item in objectives.objectives if item not in kept][left_out:]
    fewer = objectives.model_copy(update={"objectives": (*kept, *others)})
    document = overview(fewer).document
    assert list(run_checks(document, fewer)) == []
    unfolded = [panel["gridPos"] for panel in document["panels"] if panel["type"] != "row"]
    assert max(place["y"] + place["h"] for place in unfolded) <= SCREEN_ROWS


def test_a_file_without_a_watchdog_is_refused_by_name(objectives: Objectives) -> None:
    silent = [alert for alert in objectives.alerts if alert.kind != "watchdog"]
    with pytest.raises(ValueError, match="watchdog"):
        monitor(objectives.model_copy(update={"alerts": tuple(silent)}))


def test_without_an_alert_on_scrapes_the_monitor_shows_the_services_job(objectives: Objectives) -> None:
    fewer = tuple(alert for alert in objectives.alerts if alert.kind != "scrape")
    document = monitor(objectives.model_copy(update={"alerts": fewer})).document
    [panel] = [panel for panel in panels(document) if panel["title"] == "Scrape jobs up"]
    assert [target["expr"] for target in panel["targets"]] == ['min by (job) (up{job=~"cmo|vmalert"})']


def test_descriptions_name_only_metrics_and_runbooks_that_exist() -> None:
    names = set(catalogue.BY_NAME)
    runbooks = {path.stem for path in (ROOT / "docs/runbooks").glob("*.md")}
    for board in shipped_dashboards():
        for panel in panels(board.document):
            assert set(re.findall(r"\bcmo_[a-z_]+", panel["description"])) - {"cmo_exporter"} <= names
            assert set(re.findall(r"\bCMO[A-Z][A-Za-z]+", panel["description"])) <= runbooks


@pytest.mark.parametrize("board", shipped_dashboards(), ids=lambda board: board.uid)
def test_queries_have_no_macro_left_and_sane_bounds(board: Dashboard) -> None:
    found = queries(board)
    assert {query.panel for query in found} == {panel["title"] for panel in panels(board.document)}
    for query in found:
        assert "$" not in query.expression
        assert query.lowest < query.highest
        assert query.unit
    assert any(query.instant for query in found)
    assert not all(query.instant for query in found)
