"""The overview leads on-call to what tells more with one click, and to the component that is in trouble."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest
from cmo_dashboards import Dashboard, Macros, shipped_dashboards
from cmo_dashboards.document import defaults_of, panels
from cmo_dashboards.promised import counted
from cmo_dashboards.shipped import shipped_runbooks
from cmo_dashboards.walkthrough import walkthrough
from cmo_slo.objectives import load_objectives, shipped_directory

from .asked_of_promtool import ask_promtool

if TYPE_CHECKING:
    from pathlib import Path

    from cmo_stack import servers

BOARDS: Final = {board.uid: board for board in shipped_dashboards()}
RUNBOOKS: Final = {f"/d/{runbook.alert}" for runbook in shipped_runbooks()}
OVERVIEW: Final = BOARDS["cmo-overview"]


def _titled(title: str) -> dict[str, Any]:
    [found] = [panel for panel in panels(OVERVIEW.document) if panel["title"] == title]
    return found


@pytest.mark.parametrize("board", [OVERVIEW, BOARDS["cmo-components"]], ids=lambda board: board.uid)
def test_a_panel_that_names_another_dashboard_leads_there(board: Dashboard) -> None:
    led = 0
    for panel in panels(board.document):
        addresses = [urlsplit(link["url"]) for link in panel.get("links") or []]
        leads_to = {address.path for address in addresses if not address.netloc}
        named = {f"/d/{other.uid}" for other in BOARDS.values() if f"*{other.title}*" in panel["description"]}
        assert named - {f"/d/{board.uid}"} <= leads_to, panel["title"]
        led += len(named)
    assert led


def test_links_within_keep_the_time_and_choose_what_is_there() -> None:
    followed = 0
    for board in BOARDS.values():
        for panel in panels(board.document):
            for link in [*(panel.get("links") or []), *(defaults_of(panel).get("links") or [])]:
                address = urlsplit(link["url"])
                if not address.path.startswith("/d/"):
                    continue
                followed += 1
                assert address.query.startswith("${__url_time_range}"), (panel["title"], link)
                if address.path in RUNBOOKS or "alertname}" in address.path:
                    continue
                target = BOARDS[address.path.removeprefix("/d/")]
                chosen = {name.removeprefix("var-") for name in parse_qs(address.query)}
                assert chosen <= {variable.name for variable in target.variables}, (panel["title"], link)
    assert followed > 10


@pytest.mark.parametrize("title", ["Calls that fail, worst first", "Calls that are slow, worst first"])
def test_a_click_on_a_component_leads_to_that_component(title: str) -> None:
    panel = _titled(title)
    [link] = defaults_of(panel)["links"]
    assert link["url"].startswith("/d/cmo-components?${__url_time_range}")
    assert link["url"].endswith("&var-scenario=live&var-component=${__field.labels.component}")
    [target] = panel["targets"]
    assert target["instant"], "one number a component, in the order in which Prometheus sorts them"
    assert target["expr"].startswith("sort_desc(topk(4, ")
    assert "by (component)" in target["expr"], "the click asks for this label"


def test_a_tile_whose_page_is_quicker_says_whom_to_believe() -> None:
    objectives = load_objectives(shipped_directory() / "cmo-015.yml")
    paged = [objective for objective in objectives.objectives if objective.page]
    assert len(paged) == 2
    page = walkthrough(shipped_dashboards())
    for objective in counted(objectives):
        said = _titled(f"{objective.title}: verdict now")["description"]
        assert ("believe the page" in said) == (objective in paged), objective.name
        if objective.page:
            few, many = objective.page.low_traffic.minimum_bad_events, objective.page.minimum_bad_events
            assert f"{objective.page.alert}.md" in said
            assert f"needs {few} to {many} bad queries" in said
            assert f"needs {objective.minimum_events}." in said
            assert f"{few} to {many} bad queries" in page
            assert f"needs {objective.minimum_events}." in page
    assert _titled("Live success, and answers in time"), "they send people there"


def test_a_restart_is_told_of_the_instance_that_it_was(promtool: servers.Server, tmp_path: Path) -> None:
    macros = Macros(range="5m", rate_interval="1m", interval="15s")
    [asked] = _titled("Restarts in this range")["targets"]
    values = {"a": "1000x10 2000x10 3000x10", "b": "1000x30"}
    test = {
        "interval": "15s",
        "input_series": [
            {
                "series": f'cmo_worker_start_time_seconds{{job="cmo", instance="{name}", worker="0"}}',
                "values": each,
            }
            for name, each in values.items()
        ],
        "promql_expr_test": [
            {
                "expr": macros.replace(asked["expr"]),
                "eval_time": "5m",
                "exp_samples": [
                    {"labels": f'{{job="cmo", instance="{name}"}}', "value": times}
                    for name, times in {"a": 1, "b": 0}.items()
                ],
            }
        ],
    }
    assert ask_promtool(promtool, tmp_path, [test]) == ""


def test_no_share_is_negative_where_one_counter_is_a_scrape_behind(
    promtool: servers.Server, tmp_path: Path
) -> None:
    [asked] = _titled("Calls that are slow, worst first")["targets"]
    seen = {("good", "success"): 0, ("total", "success"): 10, ("good", "within_2s"): 10}
    test = {
        "interval": "15s",
        "input_series": [
            {
                "series": f"component:slo_{kind}_events:increase{{{labels}}}",
                "values": str(count),
            }
            for (kind, indicator), count in seen.items()
            for labels in [
                f'slo="cmo-015", scenario="live", component="llm", indicator="{indicator}"',
            ]
        ],
        "promql_expr_test": [
            {
                "expr": Macros(range="5m").replace(asked["expr"]),
                "eval_time": "1m",
                "exp_samples": [{"labels": '{component="llm"}', "value": 0}],
            }
        ],
    }
    assert ask_promtool(promtool, tmp_path, [test]) == ""
