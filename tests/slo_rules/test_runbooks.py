"""Alerts and runbooks are in step, all runbooks have one form, and every query in them can be pasted.

Whether a query can be pasted is tried on the oldest and the newest Prometheus there are, loaded with the
compiled rules and scraping everything that the catalogue knows (`catalogue_exposition`), itself and an
Alertmanager. Three things must hold of each query:

- as it stands, Prometheus answers it without a warning;
- each selector in it, by itself and at an instant, finds a series, and so does each label that it groups or
  matches by;
- *loosened*, it finds a series. What may rightly be empty is loosened first: comparisons become ``> bool``,
  which lets every series through; ``unless`` becomes ``or``; ``absent`` becomes ``count``; offsets go, and
  subqueries step by the second, because the server is some seconds old.

``ALERTS`` is not there while nothing fires: it is held against the compiled alerts instead.
"""

from __future__ import annotations

import dataclasses
import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
import yaml
from cmo_dashboards.shipped import shipped_dashboards
from cmo_exporter import catalogue
from cmo_slo.checks import Context, RuleDocument, names, read_rules
from cmo_slo.checks.promql import (
    Aggregate,
    Binary,
    Call,
    Expression,
    ExpressionError,
    Selector,
    parse,
    selectors,
    walk,
)
from cmo_slo.checks.rules import Group, Rule
from cmo_slo.checks.series import (
    CATALOGUE_SERIES,
    PROMETHEUS_PREFIXES,
    PROMETHEUS_SERIES,
    TARGET_LABELS,
    RecordedSeries,
)
from cmo_slo.objectives import find_objectives, load_objectives
from cmo_stack import servers
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess

from .catalogue_exposition import exposition
from .exposition import Answers, Running, prometheus, until
from .promtool_runs import read
from .runbook_page import HEADINGS, LAST_IF_ANY, THREE_THINGS, Page, Query, figures, mistakes_of_form

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
RUNBOOKS = ROOT / "docs/runbooks"
RULES_FILE = ROOT / "slo_rules/rules/cmo-015.yml"
RULES = read("rules/cmo-015.yml")
COMPILED = read_rules(RULES_FILE.read_text(encoding="utf-8"), RULES_FILE.name).documents
RECORDED = RecordedSeries(COMPILED)
SCENARIOS = (*load_objectives(find_objectives("cmo-015")).scenarios, catalogue.PROBE_SCENARIO)
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule
}
PAGED = sorted(name for name, rule in ALERTS.items() if rule["labels"]["severity"] == "page")
# The dead-man's own page, which no rule makes: a rule needs what has stopped.
FROM_THE_DEAD_MAN = "CMOMonitoringSilent"
EXPECTED = sorted({*ALERTS, FROM_THE_DEAD_MAN})
PAGES = {
    path.stem: Page(path.stem, path.read_text(encoding="utf-8")) for path in sorted(RUNBOOKS.glob("*.md"))
}
HEARS_OF_IT = {"page": "page", "ticket": "ticket", "info": "nobody", "watchdog": "dead-man"}
INSTALLED = {name: servers.installed(name) for name in ("prometheus", "alertmanager")}

every_runbook = pytest.mark.parametrize("name", sorted(PAGES))


# --- in step ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("alert", EXPECTED)
def test_every_alert_has_a_runbook_where_its_link_leads(alert: str) -> None:
    link = ALERTS[alert]["annotations"]["runbook_url"] if alert in ALERTS else f"docs/runbooks/{alert}.md"
    assert link == f"docs/runbooks/{alert}.md"
    assert (ROOT / link).is_file(), f"write {link}"


@every_runbook
def test_every_runbook_has_an_alert(name: str) -> None:
    assert name in EXPECTED, f"nothing raises {name}: remove its page, or correct the page's name"


# --- form and text ---------------------------------------------------------------------------------


@every_runbook
def test_a_runbook_has_the_common_form(name: str) -> None:
    assert mistakes_of_form(PAGES[name]) == []


@every_runbook
def test_a_runbook_says_who_hears_of_it_and_what_the_alert_says(name: str) -> None:
    alert = ALERTS.get(name)
    if alert is None:
        assert "page" in PAGES[name].head
    else:
        assert mistakes_of_content(PAGES[name], alert) == []


def mistakes_of_content(page: Page, alert: dict[str, Any]) -> list[str]:
    """What an alert says and its page does not: who hears of it, its figures, how long it lasts."""
    hears = HEARS_OF_IT[alert["labels"]["severity"]]
    found = [] if hears in page.head.lower() else [f"expected {hears!r} above the first heading"]
    description = re.sub(r"{{.*?}}", "", alert["annotations"]["description"])
    said = "; ".join([description, alert.get("for", ""), alert.get("keep_firing_for", "")])
    return found + [f"expected {one!r} in its prose" for one in sorted(figures(said) - figures(page.prose))]


@every_runbook
def test_links_of_a_runbook_lead_somewhere(name: str) -> None:
    assert [link for link in PAGES[name].links if not (RUNBOOKS / link).exists()] == []


@pytest.mark.parametrize("name", PAGED)
def test_a_page_names_the_panels_that_answer_it(name: str) -> None:
    """By the titles that they have in Grafana, each on a dashboard that is named as well."""
    head = re.split(r"^1\. ", PAGES[name].section(THREE_THINGS), maxsplit=1, flags=re.M)[0]
    titles = {" ".join(title.split()) for title in re.findall(r"\*([^*]+)\*", head)}
    named = [board for board in shipped_dashboards() if board.title in titles]
    panels = {panel.title for board in named for row in board.rows for panel in row.panels}
    assert titles - panels == {board.title for board in named}
    assert titles & panels, "name a panel, and the dashboard that it is on"


@every_runbook
def test_settings_that_a_runbook_names_are_there(name: str) -> None:
    profile = yaml.safe_load((ROOT / "oracle/profiles/report.yml").read_text(encoding="utf-8"))
    named = re.findall(rf"`({'|'.join(profile)})\.([a-z0-9_]+)", PAGES[name].prose)
    assert [f"{part}.{setting}" for part, setting in named if setting not in profile[part]] == []


def test_every_page_can_be_practised() -> None:
    pages = {FROM_THE_DEAD_MAN, *PAGED}
    assert {name for name in pages if "```sh" not in PAGES[name].section(LAST_IF_ANY)} == set()


@every_runbook
def test_an_exercise_shows_pages_that_can_be_read(name: str) -> None:
    assert "/pages\n" not in PAGES[name].text, (
        "that is one line of JSON; /pages.txt has a line for each alert"
    )


def test_a_page_that_few_failures_hold_is_ended_by_good_questions() -> None:
    """The last 15 minutes count where few ask, so an exercise that only mends leaves the page firing."""
    for name in ("CMOLiveQueriesFailing", "CMOLiveQueriesSlow", "CMOLiveQueriesHanging"):
        broken, mended = re.findall(r"^```sh\n(.*?)^```$", PAGES[name].section(LAST_IF_ANY), re.M | re.S)
        assert "seq 300" in mended
        assert "/pages.txt" in broken
        assert mended.strip().endswith("/pages.txt")


# --- names -----------------------------------------------------------------------------------------


@every_runbook
def test_queries_name_only_what_exists(name: str) -> None:
    assert [mistake for query in PAGES[name].queries for mistake in mistakes_of_names(query)] == []


def mistakes_of_names(query: Query) -> list[str]:
    """Series, labels and values that neither the catalogue, nor the rules, nor Prometheus itself has."""
    try:
        expression = parse(query.text)
    except ExpressionError as error:
        return [f"line {query.line}: no single expression: {error}"]
    rule = Rule(query.text, expression, query.line, alert="Runbook")
    asked = RuleDocument("runbook", (Group("runbook", 1, (rule,)),))
    findings = names.check([*COMPILED, asked], Context())
    found = [f"line {one.line}: {one.wrong}; {one.mend}" for one in findings if one.file == asked.file]
    for selector in selectors(expression):
        if not _is_known(selector.name):
            found.append(f"line {query.line}: {selector.name!r} is nobody's series")
        elif selector.name.startswith("ALERTS") and not _some_alert_is(selector):
            found.append(f"line {query.line}: no compiled alert is {selector}")
    return found


def _is_known(name: str) -> bool:
    known = (CATALOGUE_SERIES, PROMETHEUS_SERIES, RECORDED.names)
    return any(name in one for one in known) or name.startswith(PROMETHEUS_PREFIXES)


def _some_alert_is(selector: Selector) -> bool:
    """Whether a compiled alert has these labels, as far as the rule sets them itself."""
    of_series = {label for labels in CATALOGUE_SERIES.values() for label in labels} | TARGET_LABELS
    return any(
        all(
            matcher.accepts(labels[matcher.name]) if matcher.name in labels else matcher.name in of_series
            for matcher in selector.matchers
        )
        for name, rule in ALERTS.items()
        for state in ("pending", "firing")
        for labels in [{**rule["labels"], "alertname": name, "alertstate": state}]
    )


# --- running ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[pytest.param(0, id="oldest"), pytest.param(-1, id="newest")])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A Prometheus that has scraped and recorded everything that there is."""
    with ExitStack() as stack:
        page = Answers(body=exposition(SCENARIOS), headers={"Content-Type": "text/plain; version=0.0.4"})
        service = stack.enter_context(page.serve()).removeprefix("http://")
        started = start(stack, tmp_path_factory.mktemp("running"), service, request.param)
        for job in ("cmo", "prometheus", "alertmanager"):
            started.stored(3, job)
        until(lambda: not unrecorded(started), "every recorded series")
        yield started


def start(stack: ExitStack, folder: Path, service: str, at: int) -> Running:
    """One Prometheus with the rules for scrapes every second, all evaluated then, and an Alertmanager."""
    port = free_port()
    (folder / "alertmanager.yml").write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    server = INSTALLED["alertmanager"][at]
    stack.enter_context(
        ManagedProcess(
            server.label,
            [
                str(server.path),
                f"--config.file={folder / 'alertmanager.yml'}",
                f"--storage.path={folder / 'alertmanager'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            log_path=folder / "alertmanager.log",
            ready=lambda: _answers(f"http://127.0.0.1:{port}/-/ready"),
            environment=server.environment,
        )
    )
    alertmanager = f"127.0.0.1:{port}"
    # What the exporter serves and what the prober does are on one page here.
    jobs = {"cmo": [service], "probe": [service], "alertmanager": [alertmanager]}
    found = prometheus(INSTALLED["prometheus"][at], folder, jobs, interval="1s")
    groups = [{**group, "interval": "1s"} for group in read("rules/cmo-015-1s.yml")["groups"]]
    (folder / "rules.yml").write_text(json.dumps({"groups": groups}))
    with (folder / "prometheus.yml").open("a") as configuration:
        own = found.url.removeprefix("http://")
        configuration.write(
            f"\n  - {{job_name: prometheus, static_configs: [{{targets: [{json.dumps(own)}]}}]}}\n"
            f"rule_files: [rules.yml]\n"
            f"alerting: {{alertmanagers: [static_configs: [targets: [{json.dumps(alertmanager)}]]]}}\n"
        )
    return stack.enter_context(found)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


def unrecorded(server: Running) -> set[str]:
    """Recorded series that are not there yet."""
    there = {one["metric"]["__name__"] for one in server.ask('count by (__name__) ({__name__=~".+:.+"})')}
    return set(RECORDED.names) - there


def test_queries_run_and_find_series(running: Running) -> None:
    """All in one test, and so those below: each worker that had one of them would start its own servers."""
    assert [
        f"{name}: {mistake}"
        for name, page in PAGES.items()
        for query in page.queries
        for mistake in mistakes_of_running(query, running)
    ] == []


def mistakes_of_running(query: Query, server: Running) -> list[str]:
    """What Prometheus has against a query, and what of it finds no series."""
    answer = answered(server, query.text)
    if answer["status"] != "success":
        return [f"line {query.line}: {answer['error']}"]
    found = [f"line {query.line}: {one}" for kind in ("warnings", "infos") for one in answer.get(kind, ())]
    expression = parse(query.text)
    if any(selector.name.startswith("ALERTS") for selector in selectors(expression)):
        return found
    chosen = {one: answered(server, at_an_instant(one))["data"]["result"] for one in selectors(expression)}
    found += [f"line {query.line}: no series is {one}" for one, result in chosen.items() if not result]
    lost = sorted(lost_labels(expression, chosen))
    found += [f"line {query.line}: no series inside has the label {one}" for one in lost]
    loose = answered(server, loosened(query.text))
    if not loose.get("data", {}).get("result"):
        found.append(f"line {query.line}: finds nothing even as {loosened(query.text)}: {loose}")
    return found


def answered(server: Running, query: str) -> dict[str, Any]:
    response = requests.get(f"{server.url}/api/v1/query", params={"query": query}, timeout=30)
    document: dict[str, Any] = response.json()
    return document


def at_an_instant(selector: Selector) -> str:
    """The selector without its range and offset."""
    matchers = [f"{one.name}{one.operator}{json.dumps(one.value)}" for one in selector.matchers]
    return f"{selector.name}{{{','.join(matchers)}}}"


def lost_labels(expression: Expression, chosen: dict[Selector, list[Any]]) -> set[str]:
    """Labels that something is grouped or matched by, and no series inside has."""
    lost: set[str] = set()
    made = {"label_replace", "label_join", "count_values"}
    if any(isinstance(node, Call) and node.function in made for node in walk(expression)):
        return lost
    for node in walk(expression):
        if isinstance(node, Aggregate) and node.by:
            lost |= node.by - _labels_inside(node.expression, chosen)
        elif isinstance(node, Binary) and node.matching.on:
            for side in (node.left, node.right):
                lost |= node.matching.labels - _labels_inside(side, chosen)
            lost |= node.matching.included - _labels_inside(node, chosen)
    return lost


def _labels_inside(expression: Expression, chosen: dict[Selector, list[Any]]) -> set[str]:
    return {label for one in selectors(expression) for series in chosen[one] for label in series["metric"]}


_LOOSENED = re.compile(
    r"""(?P<keep>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\#[^\n]*|\{(?:"(?:\\.|[^"\\])*"|[^}"])*\})
    |(?P<comparison>==|!=|>=|<=|[<>])(?:\s*bool\b)?
    |(?P<subquery>\[[^\]:]*:[^\]]*\])
    |(?P<offset>\boffset\s+-?\w+)
    |\b(?P<word>unless|absent_over_time|absent)\b""",
    re.VERBOSE,
)
_LOOSE_WORDS = {"unless": "or", "absent": "count", "absent_over_time": "count_over_time"}


def loosened(query: str) -> str:
    """A query that finds something wherever the series that it names go together."""

    def replaced(match: re.Match[str]) -> str:
        if match["comparison"]:
            return f"{match['comparison']} bool"
        if match["subquery"]:
            return "[5m:1s]"
        return match["keep"] or _LOOSE_WORDS.get(match["word"] or "", "")

    return _LOOSENED.sub(replaced, query)


# --- they notice -----------------------------------------------------------------------------------

SOUND = Page(
    "CMOServiceDown",
    "# CMOServiceDown\n\nA page.\n\n"
    "## Meaning\n\nFor 1 minute, or in 10 minutes; 1 or 0.\n\n## Impact\n\nAll.\n\n"
    "## First three things to look at\n\n"
    + "".join(f'{number}. Look.\n\n   ```promql\n   up{{job="cmo"}} == 0\n   ```\n\n' for number in (1, 2, 3))
    + "## Likely causes\n\nMany.\n\n## Mitigate\n\nStart it.\n\n"
    "## It is over when\n\nIt fires 5 minutes on.\n\n"
    '```promql\nmin(up{job="cmo"})\n```\n',
)


def changed(page: Page, old: str, new: str) -> Page:
    assert old in page.text
    return dataclasses.replace(page, text=page.text.replace(old, new, 1))


def test_a_sound_page_has_no_mistakes() -> None:
    assert mistakes_of_form(SOUND) == []
    assert mistakes_of_content(SOUND, ALERTS[SOUND.name]) == []
    lines = SOUND.text.splitlines()
    assert [lines[query.line - 1].strip() for query in SOUND.queries] == [one.text for one in SOUND.queries]
    assert {query.text for query in SOUND.queries} == {'up{job="cmo"} == 0', 'min(up{job="cmo"})'}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *((f"## {heading}\n", "") for heading in HEADINGS),
        ("## Impact\n\nAll.\n\n", "## Impact\n\n"),
        ("## Meaning", "## Practise it"),
        ("# CMOServiceDown", "# CMOServiceUp"),
        ("2. Look", "Look"),
        ("3. Look", "4. Look"),
        ("2. Look.\n\n   ```promql", "2. Look.\n\n   ```sh"),
        ("on.\n\n```promql", "on.\n\n```text"),
        ("\n   ```\n\n2.", "\n```\n\n2."),
    ],
)
def test_a_page_of_another_form_is_noticed(old: str, new: str) -> None:
    assert mistakes_of_form(changed(SOUND, old, new)) != []


@pytest.mark.parametrize(
    ("old", "new", "mistake"),
    [
        ("A page", "A ticket", "expected 'page' above the first heading"),
        ("For 1 minute", "For 5 minutes", "expected '60 s' in its prose"),
        ("5 minutes", "a while", "expected '300 s' in its prose"),
    ],
)
def test_a_page_that_says_something_else_than_its_alert_is_noticed(old: str, new: str, mistake: str) -> None:
    assert mistakes_of_content(changed(SOUND, old, new), ALERTS[SOUND.name]) == [mistake]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10% of 5", {"10%", "5"}),
        ("10 %", {"10%"}),
        ("2m45s", {"165 s"}),
        ("2 min 45 s", {"165 s"}),
        ("within an hour, 12 scrapes and 30-day", {"3600 s", "12", "2.592e+06 s"}),
    ],
)
def test_figures_have_one_spelling(text: str, found: set[str]) -> None:
    assert figures(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "cmo_querys_total",
        "nobodys_total",
        '{job="cmo"}',
        'cmo_queries_total{outcome="failed"}',
        'cmo_queries_total{result="success"}',
        "sum by (outcom) (cmo_queries_total)",
        'scenario:slo_total_events:sum{window="2h"}',
        'ALERTS{alertname="CMOLiveQueriesFail"}',
        'ALERTS{severity="critical"}',
        'ALERTS{sevrity="page"}',
        "sum(rate(cmo_queries_total[5m])",
        "cmo_queue_depth\ncmo_queries_total",
        "rate(cmo_queries_total[$__rate_interval])",
    ],
)
def test_names_that_nobody_has_are_noticed(text: str) -> None:
    assert mistakes_of_names(Query(text, 1)) != []


def test_queries_that_cannot_answer_are_noticed(running: Running) -> None:
    cannot_answer = [
        'cmo_queries_total{scenario="life"}',
        'sum(increase(cmo_component_calls_total{component="lightrg"}[5m])) > 0',
        'sum(cmo_queries_total) or sum(cmo_cache_entries{tier="l4"})',
        'scenario:slo_total_events:sum{objective="sucess"}',
        "prometheus_notifications_droped_total",
        "sum by (intergation) (alertmanager_notifications_failed_total)",
        "cmo_queue_depth / on (component) scenario:slo_total_events:sum > 1",
        "cmo_queue_depth / cmo_queries_in_progress > 1",
        "cmo_queue_depth * on (component) group_left (state) cmo_queue_depth",
        "rate(cmo_queue_depth)",
        "cmo_circuit_breaker_state / on (component) cmo_circuit_breaker_state",
    ]
    assert [text for text in cannot_answer if not mistakes_of_running(Query(text, 1), running)] == []


def test_what_is_rightly_empty_is_no_mistake(running: Running) -> None:
    rightly_empty = [
        'cmo_circuit_breaker_state{state="open"} == 7',
        'increase(cmo_queries_total{scenario="live",outcome="error"}[5m] offset 1w) > 100',
        "up unless cmo_queue_depth > 9",
        'absent(up{job="cmo"})',
        "max_over_time(sum(cmo_queue_depth)[1h:1m]) > 99",
        "histogram_quantile(0.95, sum by (le) (rate(cmo_query_duration_seconds_bucket[5m])))",
    ]
    queries = [Query(text, 1) for text in rightly_empty]
    assert [mistake for query in queries for mistake in mistakes_of_names(query)] == []
    assert [mistake for query in queries for mistake in mistakes_of_running(query, running)] == []
