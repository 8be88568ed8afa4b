"""Texts of alerts: what is filled in in them, and what each mistake is answered with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml
from cmo_slo.alert_texts import alert_text_mistakes
from cmo_slo.alerts.alert import LATENCY_WORDS
from cmo_slo.checks import read_rules
from cmo_slo.checks.alert_labels import LabelFinder
from cmo_slo.checks.series import RecordedSeries
from cmo_slo.compile import compile_rules
from cmo_slo.objectives import ObjectivesError, find_objectives, load_objectives, parse_objectives
from cmo_slo.rulefile import render

SHIPPED = find_objectives("cmo-015").read_text(encoding="utf-8")


def mistakes(text: str) -> list[str]:
    with pytest.raises(ObjectivesError) as caught:
        parse_objectives(text, "my.yml")
    return str(caught.value).splitlines()


def changed(changes: dict[str, str]) -> str:
    text = SHIPPED
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new, 1)
    return text


@dataclass(frozen=True)
class Case:
    """One mistake in a text: what is written instead of what, and all that is said of it."""

    old: str
    new: str
    said: str


TEMPLATES = "expected {{ $value }} or {{ $labels.NAME }}, also with | humanize… or | printf"
TIMEOUTS = "the calls of {{ $labels.component }} for live"

CASES = [
    Case(
        "Pages above $limit over $short",
        "Pages above $limti over $short",
        "objectives[1].page.description: nothing fills in $limti here; "
        "expected $limit, $minimum, $short, $long; did you mean $limit?",
    ),
    Case(
        "Pages above $limit over $short",
        "Pages above ${limits} over $short",
        "objectives[1].page.description: nothing fills in $limits here; "
        "expected $limit, $minimum, $short, $long; did you mean $limit?",
    ),
    Case(
        "Pages above $limit over $short",
        "Pages above $threshold over $short",
        "objectives[1].page.description: nothing fills in $threshold here; "
        "expected $limit, $minimum, $short, $long; write one of these",
    ),
    Case(
        "longer than $threshold",
        "longer than $treshold",
        "objectives[2].page.description: nothing fills in $treshold here; "
        "expected $limit, $minimum, $short, $long, $threshold; did you mean $threshold?",
    ),
    Case(
        "a hit rate of $target",
        "a hit rate of $traget",
        "objectives[4].ticket.description: nothing fills in $traget here; expected $limit, $target; "
        "did you mean $target?",
    ),
    Case(
        "scraped for $restart",
        "scraped for $window_",
        "alerts[0].description: nothing fills in $window_ here; expected $restart, $window; "
        "did you mean $window?",
    ),
    Case(
        "for over $after",
        "for over $limit",
        "alerts[1].description: nothing fills in $limit here; expected $after, $minimum; write one of these",
    ),
    Case(
        "waited longer than $above",
        "waited longer than $longer",
        "alerts[8].description: nothing fills in $longer here; expected $limit, $window, $above; "
        "write one of these",
    ),
    Case(
        "in the last minute that",
        "in the last $window that",
        "alerts[17].description: nothing fills in $window here; expected no such words; spell it out",
    ),
    Case(
        "summary: Users leave before they are answered",
        "summary: More than $limit leave",
        "alerts[4].summary: nothing fills in $limit here; expected no such words; spell it out",
    ),
    Case(
        "limit is $limit. At this rate",
        "limit is $value. At this rate",
        "alerts[9].description: $value stands outside of braces, where Prometheus does not fill it in; "
        "expected {{ $value }}; put it into braces",
    ),
    Case(
        TIMEOUTS,
        "the calls of $labels.component for live",
        "alerts[5].description: $labels stands outside of braces, where Prometheus does not fill it in; "
        "expected {{ $labels.NAME }}; put it into braces",
    ),
    Case(
        TIMEOUTS,
        TIMEOUTS.replace("component", "componet"),
        "alerts[5].description: the series of this alert have no label 'componet'; "
        "expected slo, component, scenario; did you mean component?",
    ),
    Case(
        "role: cause\n    by: [component]\n    bad",
        "role: cause\n    component: llm\n    bad",
        "alerts[5].description: the series of this alert have no label 'component'; "
        "expected slo, scenario; add it to `by`, or take it out",
    ),
    Case(
        "the calls of {{ $labels.component }} waited",
        "the calls of {{ $labels.scenario }} waited",
        "alerts[8].description: the series of this alert have no label 'scenario'; "
        "expected slo, component; add it to `by`, or take it out",
    ),
    Case(
        "budget of {{ $labels.objective }}",
        "budget of {{ $labels.severity }}",
        "alerts[3].description: the series of this alert have no label 'severity'; "
        "expected slo, objective, scenario; take it out",
    ),
    Case(
        "The memory of {{ $labels.instance }}",
        'The memory of {{ $labels.worker | printf "%s" }}',
        "alerts[11].description: the series of this alert have no label 'worker'; "
        "expected slo, job, instance; take it out",
    ),
    Case(
        "{{ $labels.job }} {{ $labels.instance }} has had",
        "{{ $labels.job }} {{ $labels.instanc }} has had",
        "alerts[14].description: the series of this alert have no label 'instanc'; "
        "expected job, instance; did you mean instance?",
    ),
    Case(
        "Always fires (value {{ $value }})",
        "Always fires (value {{ $value }} of {{ $labels.job }})",
        "alerts[18].description: the series of this alert have no label 'job'; "
        "expected no labels at all; take it out",
    ),
    Case(
        "{{ $value | humanizePercentage }} of live queries fail",
        "{{ $value | humanisePercentage }} of live queries fail",
        "objectives[1].page.description: {{ $value | humanisePercentage }} is no template that is known "
        f"here; {TEMPLATES}; did you mean humanizePercentage?",
    ),
    Case(
        "{{ $value | humanizePercentage }} of live queries fail",
        '{{ $value | printf "%d" }} of live queries fail',
        'objectives[1].page.description: {{ $value | printf "%d" }} is no template that is known here; '
        f"{TEMPLATES}; write one of these",
    ),
    Case(
        "{{ $value | humanizePercentage }} of live queries fail",
        '{{ $value | printf "%.0f %s" }} of live queries fail',
        'objectives[1].page.description: {{ $value | printf "%.0f %s" }} is no template that is known here; '
        f"{TEMPLATES}; write one of these",
    ),
    Case(
        "{{ $value | humanizePercentage }} of live queries fail",
        "{{ $labels.slo | humanize }} of live queries fail",
        "objectives[1].page.description: {{ $labels.slo | humanize }} is no template that is known here; "
        f"{TEMPLATES}; write one of these",
    ),
    Case(
        "{{ $value | humanizePercentage }} of live queries fail",
        "{{ $valeu }} of live queries fail",
        "objectives[1].page.description: {{ $valeu }} is no template that is known here; "
        f"{TEMPLATES}; did you mean value?",
    ),
    Case(
        "(value {{ $value }})",
        "(value {{ $value }}, {{ $value)",
        f"alerts[18].description: a {{{{ is not closed; {TEMPLATES}; close it with }}}}",
    ),
    Case(
        "(value {{ $value }})",
        "(value {{ $value }} }})",
        f"alerts[18].description: a }}}} closes nothing; {TEMPLATES}; open it with {{{{, or delete it",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.said[:30]}-{case.new.strip()[-40:]}")
def test_a_mistake_in_a_text_is_all_that_is_said_of_it(case: Case) -> None:
    text = changed({case.old: case.new})
    (found,) = mistakes(text)
    file, line, said = found.split(":", 2)
    assert (file, said.strip()) == ("my.yml", case.said)
    field = case.said.split(":")[0].rpartition(".")[2]
    assert text.splitlines()[int(line) - 1].strip().startswith(f"{field}:")


def test_mistakes_in_texts_are_reported_at_once_whatever_else_is_wrong() -> None:
    """Neither the rest of the alert, nor of its objective, nor of the file keeps them from being seen."""
    found = mistakes(
        changed(
            {
                "target: 50": "target: fifty",
                "bad_ratio_above: 0.10": "bad_ratio_above: 1.5",
                "live queries fail: users": "live queries fail in {{ $labels.scenaro }}: $usrs",
                "Pages above $limit over $short": "Pages above $limti over $shrt",
                "summary: Live queries are slow": "summary: $slow",
                "kind: latency": "kind: latncy",
                "a hit rate of $target": "a hit rate of $traget",
                "after: 60s": "after: 60",
                "for over $after": "for over $afer",
                "share_above: 0.03": "share_above: -1",
                TIMEOUTS: TIMEOUTS.replace("component", "componet"),
                "kind: watchdog\n": "kind: watchdog\n    sumary: x\n",
                "Always fires (value {{ $value }})": "Always $fires",
            }
        )
    )
    assert [line.split(": ")[1] for line in found] == [
        "objectives[0].target",
        "objectives[1].page.bad_ratio_above",
        *["objectives[1].page.description"] * 4,
        "objectives[2].indicator.kind",
        "objectives[2].page.summary",
        "objectives[4].ticket.description",
        "alerts[1].after",
        "alerts[1].description",
        "alerts[5].share_above",
        "alerts[5].description",
        "alerts[18].sumary",
        *["alerts[18].description"] * 2,
    ]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"by: [component]\n    bad": "by: [componet]\n    bad"}, "alerts[5].by[0]"),
        ({"by: [component]\n    bad": "by: component\n    bad"}, "alerts[5].by"),
        ({"    by: [component]\n    mean_above": "    mean_above"}, "alerts[6].by"),
        (
            {
                "metric: cmo_queue_wait_seconds": "metric: cmo_queue_wat_seconds",
                "the calls of {{ $labels.component }} waited": "{{ $labels.scenario }} waited",
            },
            "alerts[8].metric",
        ),
    ],
)
def test_nothing_is_said_of_labels_that_follow_from_a_mistake(changes: dict[str, str], field: str) -> None:
    (found,) = mistakes(changed(changes))
    assert found.split(": ")[1] == field


# --- what is declared, against what is compiled ------------------------------------------------------


def alerts_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    of_objectives = [
        one[field] for one in document["objectives"] for field in ("page", "ticket") if field in one
    ]
    return [*of_objectives, *document["alerts"]]


def with_a_ticket_on_latency() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(SHIPPED)
    by_name = {one["name"]: one for one in document["objectives"]}
    by_name["within_2s"]["ticket"] = {**by_name["cache_hits"]["ticket"], "alert": "CMOSlowTicket"}
    return document


def offered(document: dict[str, Any], what: str) -> dict[str, list[str]]:
    """The words or labels that each alert can have in its description, as the answer to a wrong one says."""
    wrong = {"words": "$xyz", "labels": "{{ $labels.xyz }}"}[what]
    for alert in alerts_of(document):
        alert["description"] = wrong
    names = {}
    for mistake in alert_text_mistakes(document):
        place: Any = document
        for step in mistake.field[:-1]:
            place = place[step]
        expected = mistake.expected
        names[place["alert"]] = [] if expected.startswith("no ") else expected.replace("$", "").split(", ")
    assert len(names) == len(alerts_of(document))
    return names


def test_every_word_that_is_offered_is_filled_in_and_with_something() -> None:
    words = offered(with_a_ticket_on_latency(), "words")
    document = with_a_ticket_on_latency()
    for alert in alerts_of(document):
        alert["description"] = "{{ $value }} " + " ".join(f"<${word}>" for word in words[alert["alert"]])
    objectives = parse_objectives(yaml.safe_dump(document), "my.yml")

    rules = [rule for group in compile_rules(objectives) for rule in group.rules if rule.alert]
    assert {rule.alert for rule in rules} == set(words)
    for rule in rules:
        said = rule.annotations["description"].removeprefix("{{ $value }} ")
        assert "$" not in said, rule.alert
        assert len(re.findall("<[^<>]+>", said)) == len(words[rule.alert or ""])
    assert set(LATENCY_WORDS) <= set(words["CMOLiveQueriesSlow"]) & set(words["CMOSlowTicket"])


def test_every_label_that_is_offered_is_one_of_the_series_that_fire_and_no_other_is() -> None:
    """By what the compiled expressions give, as `cmo rules check` reads them."""
    labels = offered(yaml.safe_load(SHIPPED), "labels")
    documents = read_rules(render(load_objectives(find_objectives("cmo-015"))), "rules.yml").documents
    finder = LabelFinder(RecordedSeries(documents))
    rules = [rule for one in documents for group in one.groups for rule in group.rules if rule.alert]

    assert {rule.alert for rule in rules} == set(labels)
    for rule in rules:
        assert rule.expression is not None
        given = finder.of(rule.expression)
        assert (set(labels[rule.alert or ""]), given.open) == (set(given.names), False), rule.alert


def test_the_page_on_objectives_offers_the_same_words() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/objectives.md").read_text(encoding="utf-8")
    table = page.partition("| kind | words | labels |\n")[2].partition("\n\n")[0]
    in_page: dict[str, list[str]] = {}
    for row in table.splitlines()[1:]:
        kinds, words, _ = row.strip("|").split("|")
        for kind in re.findall(r"`(\w+)`", kinds):
            in_page[kind] = re.findall(r"\$(\w+)", words)

    document = with_a_ticket_on_latency()
    words_of = offered(document, "words")
    kinds_of = {alert["alert"]: alert["kind"] for alert in document["alerts"]}
    kinds_of |= {"CMOLiveQueriesSlow": "page", "CMOSlowTicket": "ticket"}
    assert in_page == {kind: words_of[alert] for alert, kind in kinds_of.items()}


def test_times_in_texts_follow_from_the_numbers() -> None:
    document = yaml.safe_load(SHIPPED)
    descriptions = {}
    for threshold, above in ((2.0, 0.5), (1.5, 1.0)):
        by_name = {one["name"]: one for one in document["objectives"]}
        by_name["within_2s"]["indicator"]["threshold_seconds"] = threshold
        for alert in document["alerts"]:
            if alert["kind"] == "slow_share":
                alert["above_seconds"] = above
        groups = compile_rules(parse_objectives(yaml.safe_dump(document), "my.yml"))
        descriptions[threshold] = {
            rule.alert: rule.annotations["description"]
            for group in groups
            for rule in group.rules
            if rule.alert
        }
    assert "queries take longer than 2 s: users" in descriptions[2.0]["CMOLiveQueriesSlow"]
    assert "waited longer than 0.5 s for" in descriptions[2.0]["CMOQueueSaturated"]
    assert "ran later than 0.5 s in" in descriptions[2.0]["CMOEventLoopBlocked"]
    assert "queries take longer than 1.5 s: users" in descriptions[1.5]["CMOLiveQueriesSlow"]
    assert "waited longer than 1 s for" in descriptions[1.5]["CMOQueueSaturated"]
    assert "ran later than 1 s in" in descriptions[1.5]["CMOEventLoopBlocked"]


def test_money_and_words_in_braces_are_read() -> None:
    """As `string.Template` reads them, which fills words in."""
    assert Template("${limit}, $5 and $$").safe_substitute({"limit": "3"}) == "3, $5 and $"
    objectives = parse_objectives(
        changed({"limit is $limit. At": "limit is US$ ${limit}, not $5. At"}), "my.yml"
    )
    rules = [rule for group in compile_rules(objectives) for rule in group.rules]
    (cost,) = [rule for rule in rules if rule.alert == "CMOCostHigh"]
    assert "the limit is US$ 25, not $5. At" in cost.annotations["description"]
