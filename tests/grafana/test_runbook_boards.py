"""Runbooks as dashboards: each is there, fresh, and leads nowhere that is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
from cmo_dashboards import shipped_dashboards
from cmo_dashboards.document import defaults_of, panels
from cmo_dashboards.finish import text_of, through_the_sdk
from cmo_dashboards.runbooks import RUNBOOK_TAG, Runbook, runbooks
from cmo_dashboards.shipped import compiled_directory, runbook_file_name, shipped_runbooks
from cmo_slo.compile import compile_rules
from cmo_slo.objectives import load_objectives, shipped_directory
from cmo_slo.rule import as_document

ROOT: Final = Path(__file__).resolve().parents[2]
RUNBOOKS: Final = shipped_runbooks()
EACH = pytest.mark.parametrize("runbook", RUNBOOKS, ids=lambda runbook: runbook.alert)
TIME: Final = "?${__url_time_range}"
FIELD: Final = "${__data.fields.alertname}"


def test_every_runbook_is_committed_as_it_is_built_and_nothing_is_left_over() -> None:
    written = {path.name: path.read_text() for path in (compiled_directory() / "runbooks").iterdir()}
    built = {Path(runbook_file_name(runbook)).name: text_of(runbook.document) for runbook in RUNBOOKS}
    assert written == built, "run `cmo dashboards build`"
    assert {runbook.alert for runbook in RUNBOOKS} == {
        path.stem for path in (ROOT / "docs/runbooks").glob("*.md")
    }


@EACH
def test_it_is_found_by_the_name_of_its_alert_and_loses_nothing_in_grafana(runbook: Runbook) -> None:
    document = runbook.document
    assert document["uid"] == document["title"] == runbook.alert
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,40}", runbook.alert), "Grafana takes no other uid"
    assert document["tags"] == [RUNBOOK_TAG], "with the tag of the others it would stand in every menu"
    assert document["editable"] is False
    assert through_the_sdk(document) == document
    [panel] = document["panels"]
    assert (panel["type"], panel["options"]["mode"]) == ("text", "markdown")
    source = (ROOT / f"docs/runbooks/{runbook.alert}.md").read_text()
    headings = re.findall(r"^## .+$", source, re.MULTILINE)
    assert headings
    assert re.findall(r"^## .+$", panel["options"]["content"], re.MULTILINE) == headings


@EACH
def test_its_links_lead_to_other_runbooks_alone(runbook: Runbook) -> None:
    targets = re.findall(r"\]\(([^)]+)\)", runbook.text)
    known = {f"/d/{other.alert}" for other in RUNBOOKS}
    assert {target for target in targets if "://" not in target} <= known


def test_links_of_panels_lead_to_a_runbook_that_is_there() -> None:
    known = {f"/d/{runbook.alert}" for runbook in RUNBOOKS}
    linked = {
        link["url"]
        for board in shipped_dashboards()
        for panel in panels(board.document)
        for link in [*(panel.get("links") or []), *(defaults_of(panel).get("links") or [])]
        if "unbook" in link["title"]
    }
    assert f"/d/{FIELD}{TIME}" in linked, "what fires leads to its runbook"
    assert len(linked) >= 5
    assert all(url.endswith(TIME) for url in linked)
    assert {
        url.removesuffix(TIME) for url in linked if "${__data" not in url and "${__field" not in url
    } <= known


def test_whatever_fires_has_one() -> None:
    objectives = load_objectives(shipped_directory() / "cmo-015.yml")
    groups = as_document(compile_rules(objectives, "15s"))["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    assert alerts
    assert alerts <= {runbook.alert for runbook in RUNBOOKS}


def test_links_are_made_anew(tmp_path: Path) -> None:
    (tmp_path / "CMOOther.md").write_text("# CMOOther\n\nNothing.\n")
    (tmp_path / "CMOSome.md").write_text(
        "# CMOSome\n\nSee [the other](CMOOther.md#first), [alerts](../alerts.md#inhibition), "
        "[stack.md](../stack.md) and [out](https://example.org/a.md).\n"
    )
    _, some = runbooks(tmp_path)
    assert some.text == (
        "See [the other](/d/CMOOther), alerts (docs/alerts.md), stack.md and "
        "[out](https://example.org/a.md).\n"
    )


def test_a_runbook_of_another_title_is_refused(tmp_path: Path) -> None:
    (tmp_path / "CMOSome.md").write_text("# CMOOther\n")
    with pytest.raises(ValueError, match=r"CMOSome\.md begins with no title .* '# CMOSome'"):
        runbooks(tmp_path)
