"""What people read on a phone: rendered by every amtool there is."""

from __future__ import annotations

import html.parser
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from cmo_stack import servers

from .running import ROOM

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

AMTOOLS = servers.installed("amtool")
TEMPLATES = ("cmo.title", "cmo.text", "cmo.slack.title", "cmo.slack.text", "cmo.html")
every_amtool = pytest.mark.parametrize("amtool", AMTOOLS, ids=lambda server: server.label)

ANNOTATIONS = {
    "summary": "Live queries are failing",
    "description": "30% of the live queries were bad.",
    "runbook_url": "docs/runbooks/CMOLiveQueriesFailing.md",
    "dashboard_url": "/d/cmo-overview",
}
LABELS = {"alertname": "CMOLiveQueriesFailing", "severity": "page", "component": "service"}


def alert(status: str = "firing", *, annotations: Any = ANNOTATIONS, **labels: str) -> dict[str, Any]:
    return {
        "status": status,
        "labels": {**LABELS, **labels},
        "annotations": annotations,
        "startsAt": "2026-01-01T10:00:00.123Z",
        "endsAt": "2026-01-01T10:02:30.456Z" if status == "resolved" else "0001-01-01T00:00:00Z",
        "generatorURL": "http://127.0.0.1:9090/graph?g0.expr=up",
    }


def notification(alerts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What Alertmanager gives a template: common is what every alert has."""

    def common(kind: str) -> dict[str, str]:
        first, *others = [each[kind] for each in alerts]
        return {key: value for key, value in first.items() if all(o.get(key) == value for o in others)}

    return {
        "status": "firing" if any(each["status"] == "firing" for each in alerts) else "resolved",
        "receiver": "pager",
        "groupLabels": {},
        "commonLabels": common("labels"),
        "commonAnnotations": common("annotations"),
        "externalURL": "http://127.0.0.1:9093",
        "alerts": alerts,
    }


def render(amtool: servers.Server, template: str, folder: Path, *alerts: dict[str, Any]) -> str:
    data = folder / "data.json"
    data.write_text(json.dumps(notification(alerts)))
    command = [
        str(amtool.path),
        "template",
        "render",
        f"--template.glob={ROOM / 'templates/*.tmpl'}",
        f'--template.text={{{{ template "{template}" . }}}}',
        f"--template.type={'html' if template == 'cmo.html' else 'text'}",
        f"--template.data={data}",
    ]
    done = subprocess.run(command, env={**os.environ, **amtool.environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@every_amtool
def test_a_page_says_first_what_is_wrong_and_last_where_to_go(amtool: servers.Server, tmp_path: Path) -> None:
    assert render(amtool, "cmo.title", tmp_path, alert()) == "PAGE: Live queries are failing"
    assert render(amtool, "cmo.text", tmp_path, alert()).splitlines() == [
        "30% of the live queries were bad.",
        "Since 10:00:00 UTC, 1 Jan",
        "Runbook: docs/runbooks/CMOLiveQueriesFailing.md",
        "Dashboard: /d/cmo-overview",
        "Query: http://127.0.0.1:9090/graph?g0.expr=up",
    ]


@every_amtool
def test_a_resolution_says_how_long_it_was(amtool: servers.Server, tmp_path: Path) -> None:
    over = alert("resolved")
    assert render(amtool, "cmo.title", tmp_path, over) == "RESOLVED: Live queries are failing"
    expected = "Live queries are failing: over since 10:02:30 UTC, 1 Jan, after 2m30s"
    for template in ("cmo.text", "cmo.slack.text"):
        assert render(amtool, template, tmp_path, over) == expected
    both = render(amtool, "cmo.title", tmp_path, over, alert("resolved", instance="b"))
    assert both == "RESOLVED: Live queries are failing, 2 alerts"


@every_amtool
@pytest.mark.parametrize(
    ("labels", "title"),
    [
        ({"severity": "ticket", "component": "lightrag"}, "TICKET: Live queries are failing (lightrag)"),
        ({"severity": "ticket", "component": ""}, "TICKET: Live queries are failing"),
        ({"severity": "watchdog"}, "WATCHDOG: Live queries are failing"),
        ({"severity": ""}, "PAGE: Live queries are failing"),
        ({"severity": "critical"}, "PAGE: Live queries are failing"),
    ],
)
def test_the_first_word_says_who_has_to_act(
    amtool: servers.Server, tmp_path: Path, labels: dict[str, str], title: str
) -> None:
    for template in ("cmo.title", "cmo.slack.title"):
        assert render(amtool, template, tmp_path, alert(**labels)) == title


@every_amtool
def test_several_alerts_are_counted_and_the_first_five_listed(amtool: servers.Server, tmp_path: Path) -> None:
    alerts = [alert(worker=str(number)) for number in range(8)]
    assert render(amtool, "cmo.title", tmp_path, *alerts) == "PAGE: Live queries are failing, 8 alerts"
    for template, bullet in (("cmo.text", "-"), ("cmo.slack.text", "•")):
        lines = render(amtool, template, tmp_path, *alerts).splitlines()
        assert lines[:5] == [
            f"{bullet} component service, worker {number}, since 10:00:00 UTC, 1 Jan: "
            "30% of the live queries were bad."
            for number in range(5)
        ]
        assert lines[5] == f"{bullet} and more: 8 in all"
        assert [line.split(":")[0] for line in lines[6:]] == ["Runbook", "Dashboard", lines[8].split(":")[0]]
    over = [alert("resolved", worker=str(number)) for number in range(8)]
    lines = render(amtool, "cmo.text", tmp_path, *over).splitlines()
    assert (len(lines), lines[5]) == (6, "and more: 8 in all are over")


@every_amtool
def test_what_fires_comes_before_what_is_over(amtool: servers.Server, tmp_path: Path) -> None:
    alerts = (alert("resolved", worker="0"), alert(worker="1"))
    assert render(amtool, "cmo.title", tmp_path, *alerts) == "PAGE: Live queries are failing"
    lines = render(amtool, "cmo.text", tmp_path, *alerts).splitlines()
    assert lines[0] == "30% of the live queries were bad."
    assert lines[-1].startswith("Live queries are failing: over since")


@every_amtool
@pytest.mark.parametrize("template", TEMPLATES)
def test_an_alert_without_annotations_is_read_too(
    amtool: servers.Server, tmp_path: Path, template: str
) -> None:
    shown = render(amtool, template, tmp_path, alert(annotations={}))
    assert "CMOLiveQueriesFailing" in shown
    assert "no value" not in shown
    assert "Runbook" not in shown
    nameless = {**alert(annotations={}), "labels": {}, "generatorURL": ""}
    shown = render(amtool, template, tmp_path, nameless)
    assert "without a name" in shown or "There is no description." in shown
    assert "Query" not in shown


@every_amtool
def test_long_texts_are_cut_and_a_title_stays_on_one_line(amtool: servers.Server, tmp_path: Path) -> None:
    long = alert(annotations={"summary": "ä\n" * 2000, "description": "ö" * 5000, "runbook_url": "r"})
    for template in ("cmo.title", "cmo.slack.title"):
        title = render(amtool, template, tmp_path, long)
        assert title.startswith("PAGE: ä ä ä")
        assert title.endswith("…")
        assert len(title) == len("PAGE: ") + 120
        assert "\n" not in title
    for template in ("cmo.text", "cmo.slack.text"):
        first, *rest = render(amtool, template, tmp_path, long).splitlines()
        assert first == "ö" * 599 + "…"
        assert "Runbook: r" in rest
    exactly = alert(annotations={"summary": "s" * 120, "description": "d" * 600})
    assert render(amtool, "cmo.title", tmp_path, exactly) == "PAGE: " + "s" * 120
    assert render(amtool, "cmo.text", tmp_path, exactly).splitlines()[0] == "d" * 600
    many = [{**long, "labels": {**LABELS, "worker": "w" * 100 + str(n)}} for n in range(200)]
    assert len(render(amtool, "cmo.slack.text", tmp_path, *many)) < 5000
    assert len(render(amtool, "cmo.title", tmp_path, *many)) < 1024


@every_amtool
def test_values_break_neither_mail_nor_slack(amtool: servers.Server, tmp_path: Path) -> None:
    hostile = "</p></body><script>x</script>\" ' & <https://evil.example|click> <!channel>"
    annotations = {
        "summary": hostile,
        "description": hostile,
        "runbook_url": f"https://r.example/{hostile}",
        "dashboard_url": "javascript:alert(1)",
    }
    bad = alert(annotations=annotations, component=hostile, severity="ticket")
    page = _Page(
        render(amtool, "cmo.html", tmp_path, bad, {**bad, "labels": {**bad["labels"], "worker": "1"}})
    )
    assert page.open == []
    assert "script" not in page.tags
    assert page.tags.count("body") == 1
    assert hostile in page.text
    assert all(link.startswith(("https://r.example/", "http://127.0.0.1:9090/")) for link in page.links)
    for template in ("cmo.slack.title", "cmo.slack.text"):
        shown = render(amtool, template, tmp_path, bad)
        assert "<!channel>" not in shown
        assert "<https://evil" not in shown
        assert "&lt;!channel&gt;" in shown


class _Page(html.parser.HTMLParser):
    """Tags, links and text of a page, and what of it stays open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "br"}:
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
