"""Each check finds the fault that was put in for it, and the finished dashboard has none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import yaml
from cmo_dashboards import shipped_dashboards
from cmo_dashboards.building import build_dashboards
from cmo_dashboards.checks import checks_of, run_checks
from cmo_dashboards.checks.recorded import recorded_series
from cmo_dashboards.colours import FAIL, NEUTRAL, PASS, WARN
from cmo_dashboards.document import Document, every_panel, panels
from cmo_dashboards.panels import Unit
from cmo_dashboards.shipped import shipped_objectives
from cmo_slo.model import Objectives
from cmo_slo.rulefile import shipped_rules_directory
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import timeseries

Fault = Callable[[Document], object]


BOARDS = {board.uid: board for board in shipped_dashboards()}
OBJECTIVES = shipped_objectives()
CHECKS = checks_of(OBJECTIVES)


@pytest.fixture
def document() -> Document:
    """A dashboard that has everything a fault may be put into: variables, thresholds, rows, annotations."""
    return copy.deepcopy(BOARDS["cmo-015"].document)


@pytest.mark.parametrize("uid", BOARDS)
def test_a_finished_dashboard_has_no_fault(uid: str) -> None:
    assert list(run_checks(BOARDS[uid].document, OBJECTIVES)) == []


def test_links_to_published_runbooks_are_no_fault() -> None:
    for board in shipped_dashboards("https://git.example.org/runbooks"):
        assert list(run_checks(board.document, OBJECTIVES)) == []


def _panel(document: Document, number: int = 1) -> dict[str, Any]:
    return list(panels(document))[number]


def _target(document: Document) -> dict[str, Any]:
    target: dict[str, Any] = _panel(document)["targets"][0]
    return target


def _variable(document: Document) -> dict[str, Any]:
    variable: dict[str, Any] = document["templating"]["list"][1]
    return variable


def _defaults(document: Document) -> dict[str, Any]:
    defaults: dict[str, Any] = _panel(document)["fieldConfig"]["defaults"]
    return defaults


def _ask(expression: str) -> Fault:
    return lambda document: _target(document).update(expr=expression)


def _annotation(document: Document, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = document["annotations"]["list"]
    [annotation] = [one for one in found if one["name"] == name]
    return annotation


def _ask_to_mark(name: str, words: str, others: str) -> Fault:
    """An annotation that asks for something else."""

    def fault(document: Document) -> None:
        annotation = _annotation(document, name)
        assert words in annotation["expr"]
        annotation["expr"] = annotation["expr"].replace(words, others)

    return fault


def _called(document: Document, title: str) -> dict[str, Any]:
    [panel] = [panel for panel in panels(document) if panel["title"].startswith(title)]
    return panel


def _step_of(title: str, number: int, **changes: object) -> Fault:
    """Another value or colour of one step."""

    def fault(document: Document) -> None:
        _called(document, title)["fieldConfig"]["defaults"]["thresholds"]["steps"][number].update(changes)

    return fault


def _steps_of(title: str, *steps: tuple[float | None, str], drawn: bool = False) -> Fault:
    """Other steps, whose lines are drawn or not."""

    def fault(document: Document) -> None:
        defaults = _called(document, title)["fieldConfig"]["defaults"]
        defaults["thresholds"] = {"steps": [{"value": value, "color": colour} for value, colour in steps]}
        defaults.setdefault("custom", {})["thresholdsStyle"] = {"mode": "dashed" if drawn else "off"}

    return fault


def _unit(title: str, unit: str) -> Fault:
    return lambda document: _called(document, title)["fieldConfig"]["defaults"].update(unit=unit)


def _measure(unit: str, expression: str, *, as_unit: str = "", title: str = "Resident memory") -> Fault:
    """Another expression, in a unit that is right for it or not."""

    def fault(document: Document) -> None:
        _called(document, "Resident memory").update(targets=[{"refId": "A", "expr": expression}], title=title)
        _unit(title, as_unit or unit)(document)

    return fault


_GREEN = {"mode": "fixed", "fixedColor": PASS}


def _mode(title: str, mode: str | None) -> Fault:
    return lambda document: _called(document, title)["fieldConfig"]["defaults"].update(color={"mode": mode})


def _colour_series(name: str, colour: str, *, title: str = "Resident memory", mode: str = "fixed") -> Fault:
    """A fixed colour of a series, as every dashboard has those of outcomes and sources."""
    override = {
        "matcher": {"id": "byRegexp", "options": f"^{name}(,.*)?$"},
        "properties": [{"id": "color", "value": {"mode": mode, "fixedColor": colour}}],
    }
    return lambda document: _called(document, title)["fieldConfig"]["overrides"].append(override)


def _show(text: str, colour: str) -> Fault:
    """A value that is shown as a word, in a colour of its own."""
    mapping = {"type": "value", "options": {"4": {"text": text, "color": colour, "index": 0}}}
    return lambda document: _called(document, "Targets up")["fieldConfig"]["defaults"]["mappings"].append(
        mapping
    )


def _alike(metric: str, label: str, *names: str) -> Fault:
    """Two series of one query in one colour, which is no verdict's."""

    def fault(document: Document) -> None:
        for name in names:
            _colour_series(name, "#0072B2")(document)
        expression = f"sum by ({label}) (rate({metric}[$__rate_interval]))"
        target = _called(document, "Resident memory")["targets"][0]
        target.update(expr=expression, legendFormat=f"{{{{{label}}}}}")

    return fault


def _override_steps(title: str, *steps: tuple[float | None, str]) -> Fault:
    """Steps of one query of a panel alone."""
    made = {"steps": [{"value": value, "color": colour} for value, colour in steps]}
    override = {"matcher": {}, "properties": [{"id": "thresholds", "value": made}]}
    return lambda document: _called(document, title)["fieldConfig"]["overrides"].append(override)


def _link_to(url: str) -> Fault:
    return lambda document: _panel(document).update(links=[{"title": "there", "url": url}])


def _estimate(metric: str, *, beside_another: bool = False) -> Fault:
    """A line of latency without exemplars, beside one that has them of another metric."""

    def fault(document: Document) -> None:
        _panel(document)["type"] = "timeseries"
        _ask(f"histogram_quantile(0.95, sum by (le) (rate({metric}_bucket[$__rate_interval]))) >= 0")(
            document
        )
        if beside_another:
            _panel(document)["targets"].append({**_target(document), "exemplar": True, "refId": "Z"})
            asked = _target(document)["expr"].replace(metric, "cmo_query_duration_seconds")
            _panel(document)["targets"][-1]["expr"] = asked

    return fault


_RATE = "sum(rate(cmo_queries_total[$__rate_interval]))"
_NETWORK = "sum(rate(cmo_network_bytes_total[$__rate_interval]))"
_COST = "sum(rate(cmo_llm_cost_usd_total[$__rate_interval]))"
_HIT_RATE = (
    'sum(rate(cmo_cache_requests_total{result="hit"}[$__rate_interval])) / '
    "(sum(rate(cmo_cache_requests_total[$__rate_interval])) > 0)"
)
_OWN_UNIT = {
    "matcher": {"id": "byFrameRefID", "options": "B"},
    "properties": [{"id": "unit", "value": "short"}],
}
_RANGE_RATE = "rate(cmo_queries_total[$__range])"
_P95 = "histogram_quantile(0.95, sum by (le) (rate(cmo_query_duration_seconds_bucket[$__rate_interval])))"


def _name(legend: str, expression: str) -> Fault:
    return lambda document: _target(document).update(legendFormat=legend, expr=expression)


_STATE = {"type": "value", "options": {"1": {"color": NEUTRAL, "index": 0}}}

FAULTS: list[tuple[str, str, Fault]] = [
    ("ids", "has id None", lambda d: _panel(d).pop("id")),
    ("ids", "has id 0", lambda d: next(every_panel(d)).update(id=0)),
    ("ids", "2 panels have the id", lambda d: _panel(d).update(id=_panel(d, 2)["id"])),
    ("ids", "2 panels have the title", lambda d: _panel(d).update(title=_panel(d, 2)["title"])),
    ("ids", "has no uid", lambda d: d.update(uid="")),
    ("grid", "overlaps", lambda d: _panel(d)["gridPos"].update(x=0)),
    ("grid", "leaves the grid", lambda d: _panel(d)["gridPos"].update(w=24)),
    ("grid", "expected x, y, w and h", lambda d: _panel(d).pop("gridPos")),
    ("datasource", "expected", lambda d: _panel(d)["datasource"].update(uid="prometheus-1")),
    ("datasource", "expected", lambda d: _target(d)["datasource"].update(uid="prometheus-1")),
    ("datasource", "expected", lambda d: d["annotations"]["list"][0].pop("datasource")),
    ("datasource", "no variable", lambda d: d["templating"]["list"].pop(0)),
    (
        "variables",
        "not defined before",
        lambda d: _variable(d)["query"].update(query='label_values(up{x=~"$job"}, x)'),
    ),
    ("variables", "no variable of this", lambda d: d["templating"]["list"].pop(1)),
    ("variables", "no variable of this", lambda d: next(every_panel(d)).update(repeat="tier")),
    ("variables", "narrows nothing", lambda d: _variable(d).update(name="component")),
    ("variables", "in the order", lambda d: d["templating"]["list"].reverse()),
    ("variables", "is not asked anew", lambda d: _variable(d).update(refresh=1)),
    ("colours", "has the colour", lambda d: _defaults(d)["thresholds"]["steps"][1].update(color="green")),
    ("colours", "has the colour", lambda d: d["annotations"]["list"][0].update(iconColor="red")),
    ("colours", "by a colour alone", lambda d: _defaults(d)["mappings"].append(_STATE)),
    ("colours", "the colour mode 'continuous-GrYlRd'", _mode("Resident memory", "continuous-GrYlRd")),
    ("colours", "the colour mode 'palette-classic'", _mode("Success rate (", "palette-classic")),
    ("colours", "the colour mode None", _mode("Success rate (", None)),
    (
        "colours",
        "the colour mode 'continuous-RdYlGr'",
        _colour_series("a", "#0072B2", mode="continuous-RdYlGr"),
    ),
    (
        "colours",
        "is always",
        lambda d: _called(d, "Coverage")["fieldConfig"]["defaults"].update(color=_GREEN),
    ),
    ("colours", "is always", _colour_series("a", PASS, title="Coverage")),
    ("colours", "'success' in #D55E00", _colour_series("success", FAIL)),
    ("colours", "'success' in #E69F00", _colour_series("success", WARN)),
    ("colours", "'failure' in #009E73", _colour_series("failure", PASS)),
    ("colours", "'open' in #009E73", _colour_series("open", PASS)),
    ("colours", "'open' in #009E73", _show("open", PASS)),
    ("colours", "'half_open' in #009E73", _show("half_open", PASS)),
    ("colours", "'FAIL' in #009E73", _show("FAIL", PASS)),
    ("colours", "'PASS' in #D55E00", _show("PASS", FAIL)),
    ("colours", "'No traffic' in #009E73", _show("No traffic", PASS)),
    ("colours", "'No data' in #D55E00", _show("No data", FAIL)),
    ("colours", "'down' in #009E73", _step_of("Targets up", 1, color=PASS)),
    ("colours", "'up' in #D55E00", _step_of("Targets up", 2, color=FAIL)),
    ("colours", "'cache' and 'lightrag' in one", _alike("cmo_answers_total", "source", "cache", "lightrag")),
    ("colours", "'error' and 'timeout' in one", _alike("cmo_queries_total", "outcome", "error", "timeout")),
    ("units", "has unit", lambda d: _defaults(d).pop("unit")),
    ("units", "has unit", lambda d: _defaults(d).update(unit="percent")),
    ("units", "has minimum", lambda d: _defaults(d).pop("min")),
    ("units", "a share in the unit 'short'", _unit("Success rate (", "short")),
    ("units", "a share in the unit 's'", _unit("Error budget left: S", "s")),
    ("units", "bytes in the unit 'short'", _unit("Resident memory", "short")),
    ("units", "bytes in the unit 'percentunit'", _unit("Memory growth (", "percentunit")),
    ("units", "a count in the unit 'percentunit'", _unit("Burn rate: S", "percentunit")),
    ("units", "a count in the unit 's'", _measure("short", "count(up)", as_unit="s")),
    ("units", "a count in the unit 'reqps'", _unit("Bad live events", "reqps")),
    ("units", "seconds in the unit 'ms'", _measure("s", _P95, as_unit="ms")),
    ("units", "seconds in the unit 'reqps'", _measure("s", _P95, as_unit="reqps")),
    ("units", "another unit than its metric's in", _measure("s", f"1000 * {_P95}")),
    ("units", "another unit than its metric's in", _measure("percentunit", f"100 * {_HIT_RATE}")),
    ("units", "another unit than its metric's in", _measure("percentunit", f"2 * ({_HIT_RATE})")),
    ("units", "another unit than its metric's in", _measure("decbytes", "cmo_memory_bytes / 1024 + 1")),
    ("units", "seconds^-1 in the unit 'short'", _measure("short", _RATE)),
    ("units", "seconds^-1 in the unit 'percentunit'", _measure("percentunit", _RATE)),
    ("units", "seconds^-1 · bytes in the unit 'decbytes'", _measure("decbytes", _NETWORK)),
    ("units", "dollars in the unit 'short'", _measure("short", "increase(cmo_llm_cost_usd_total[$__range])")),
    ("units", "seconds^-1 · dollars in", _measure("currencyUSD", _COST)),
    ("units", "a moment in the unit 's'", _measure("s", "cmo_worker_start_time_seconds")),
    (
        "units",
        "seconds in the unit 'short'",
        lambda d: _called(d, "Resident memory").update(
            targets=[{"refId": "A", "expr": "cmo_memory_bytes"}, {"refId": "B", "expr": _P95}],
            fieldConfig={
                "defaults": {"unit": "decbytes", "min": 0},
                "overrides": [_OWN_UNIT],
            },
        ),
    ),
    ("descriptions", "answers", lambda d: _panel(d).update(description="")),
    ("descriptions", "what to do", lambda d: _panel(d).update(description="Is it well?")),
    ("descriptions", "what to do", lambda d: _panel(d).update(description="Well?\n\n**When red:** ")),
    ("descriptions", "no title", lambda d: _panel(d).update(title="")),
    ("parses", "is not PromQL", _ask("sum(rate(cmo_queries_total[$__rate_interval])")),
    ("parses", "nothing replaces", _ask('up{job="$unknown"}')),
    ("parses", "fixed length", _ask("sum(rate(cmo_queries_total[5m]))")),
    ("parses", "fixed length", _ask("max_over_time(up[$__range:1m])")),
    ("parses", "fixed length", _ask("up offset 5m")),
    ("parses", "fixed length", _ask("last_over_time(scenario:slo_good_events:hourly[2h])")),
    ("parses", "fixed length", _ask("sum_over_time(scenario:slo_good_events:hourly[1h])")),
    ("parses", "fixed length", _ask("last_over_time(scenario:slo_good_events:increase[1h])")),
    ("parses", "fixed length", _ask("last_over_time(cmo_queries_total[1h])")),
    ("parses", "fixed length", _ask("max_over_time(timestamp(cmo_build_info)[1h:1m])")),
    (
        "parses",
        "fixed length",
        _ask("last_over_time(scenario:slo_good_events:hourly[1h]) + rate(cmo_queries_total[5m])"),
    ),
    ("parses", "has no query", lambda d: _panel(d).update(targets=[])),
    ("windows", "rate over another window", _ask("sum(rate(cmo_queries_total[$__range]))")),
    ("windows", "rate over another window", _ask("sum(rate(cmo_queries_total[$__interval]))")),
    ("windows", "rate over another window", _ask("sum(irate(cmo_queries_total[$__range] offset ${run}s))")),
    ("windows", "rate over another window", lambda d: d["annotations"]["list"][0].update(expr=_RANGE_RATE)),
    ("windows", "increase over another window", _ask("sum(increase(cmo_queries_total[$__interval]))")),
    ("windows", "increase over another window", _ask("sum(increase(cmo_queries_total[2h]))")),
    (
        "windows",
        "at each step of a picture",
        lambda d: _called(d, "Resident memory")["targets"][0].update(
            expr="sum(increase(cmo_queries_total[$__range]))"
        ),
    ),
    ("windows", "rate of a subquery", _ask("rate(sum(cmo_queries_total)[$__rate_interval:$__interval])")),
    ("windows", "['rate'] of cmo_memory_bytes", _ask("rate(cmo_memory_bytes[$__rate_interval])")),
    ("windows", "['increase'] of up", _ask("sum(increase(up[$__rate_interval]))")),
    (
        "windows",
        "['rate'] of scenario:slo_good_events:increase",
        _ask("rate(scenario:slo_good_events:increase[$__rate_interval])"),
    ),
    ("windows", "['delta'] of the counter", _ask("delta(cmo_queries_total[$__rate_interval])")),
    ("windows", "cmo_queries_total as it stands", _ask("sum(cmo_queries_total)")),
    ("windows", "cmo_queries_total as it stands", _ask("max_over_time(cmo_queries_total[$__range])")),
    ("windows", "_seconds_sum as it stands", _ask("sum(cmo_query_duration_seconds_sum)")),
    (
        "windows",
        "_bucket as it stands",
        _ask("histogram_quantile(0.95, sum by (le) (cmo_query_duration_seconds_bucket))"),
    ),
    (
        "windows",
        "sent_total as it stands",
        _ask("cmo_active_users / prometheus_notifications_sent_total"),
    ),
    ("windows", "avg of quantiles", _ask(f"avg({_P95})")),
    ("windows", "sum of quantiles", _ask(f"sum by (scenario) ({_P95} >= 0) / 2")),
    ("windows", "avg_over_time of quantiles", _ask(f"avg_over_time(({_P95})[$__range:$__interval])")),
    ("windows", "without `le`", _ask(_P95.replace(" by (le)", ""))),
    ("windows", "without `le`", _ask(_P95.replace("(le)", "(scenario)"))),
    ("windows", "without `le`", _ask(_P95.replace("by (le)", "without (le)"))),
    ("windows", "at one moment", _ask("scenario:slo_good_events:hourly")),
    ("windows", "at one moment", _ask("sum(scenario:slo_good_events:hourly)")),
    ("windows", "at one moment", _ask("sum_over_time(scenario:slo_good_events:hourly[$__range])")),
    ("windows", "at one moment", _ask("last_over_time(scenario:slo_good_events:hourly[90m])")),
    ("windows", "at one moment", _ask("sum(increase(scenario:slo_good_events:hourly[1h]))")),
    ("jobs", "of every job", _ask("cmo_memory_bytes")),
    ("jobs", "of the job 'cmoo'", _ask('cmo_memory_bytes{job="cmoo"}')),
    ("jobs", "of every job", _ask('sum(rate(cmo_queries_total{scenario="job"}[$__rate_interval]))')),
    ("jobs", "of every job", _ask("cmo_query_duration_seconds_bucket + on (job) up")),
    ("jobs", "of every job", lambda d: d["annotations"]["list"][0].update(expr="cmo_build_info")),
    ("names", "neither in the catalogue", _ask("cmo_querys_total")),
    ("names", "neither in the catalogue", _ask("rate(cmo_querys_total[$__rate_interval])")),
    ("names", "neither in the catalogue", _ask("cmo_query_duration_seconds")),
    ("names", "neither in the catalogue", lambda d: d["annotations"]["list"][0].update(expr="ALARMS")),
    ("names", "has no label", _ask('cmo_queries_total{status="success"}')),
    ("names", "is no value", _ask('cmo_queries_total{outcome="succeeded"}')),
    ("names", "is no value", _ask('cmo_queries_total{outcome=~"success|failed"}')),
    ("names", "'failedd' is no value", _ask('cmo_queries_total{outcome=~"succ.*|failedd"}')),
    ("names", "'fail.*' is no value", _ask('cmo_queries_total{outcome!~"succ.*|fail.*"}')),
    ("names", "'(a|b)' is no value", _ask('cmo_queries_total{outcome=~"(a|b)"}')),
    ("names", "'s.*' is no value", _ask('cmo_queries_total{outcome="s.*"}')),
    ("names", "legend uses {{outcom}}", _name("{{outcom}}", "sum by (outcome) (cmo_queries_total)")),
    ("names", "legend uses {{scenario}}", _name("{{scenario}}", "sum by (outcome) (cmo_queries_total) > 0")),
    ("names", "legend uses {{outcome}}", _name("all {{outcome}}", "sum(cmo_queries_total)")),
    ("names", "legend uses {{tier}}", _name("{{ tier }}", "cmo_queries_total")),
    ("names", "legend uses {{versio}}", lambda d: _annotation(d, "Deploys").update(titleFormat="{{versio}}")),
    ("names", "neither in the catalogue", _ask("prometheus_rule_failures_total")),
    ("names", "has no label", _ask('prometheus_notifications_dropped_total{rule_group="a"}')),
    ("names", "neither in the catalogue", _ask("scenario:slo_god_events:increase")),
    ("names", "has no label", _ask('scenario:slo_good_events:increase{instance="a"}')),
    ("names", "has no label", _ask('objective:slo_user_clock_seconds:increase{scenario="live"}')),
    ("names", "is no value", _ask('scenario:slo_good_events:increase{objective="succes"}')),
    ("names", "is no value", _ask('scenario:slo_good_events:increase{slo="cmo-15"}')),
    ("names", "groups or matches by", _ask("sum by (job) (scenario:slo_good_events:increase)")),
    ("names", "groups or matches by", _ask("sum by (tier) (cmo_queries_total)")),
    ("names", "groups or matches by", _ask("cmo_queries_total / on (user) up")),
    ("names", "groups or matches by", _ask('sum by (abov) (count_values("above", up))')),
    ("names", "groups or matches by", _ask('sum by (b) (label_replace(up, "a", "b", "", ""))')),
    ("no_data", "no words", lambda d: _defaults(d).pop("noValue")),
    ("no_data", "colours no data", lambda d: _defaults(d)["thresholds"]["steps"].pop(0)),
    ("no_data", "colours no data", lambda d: _defaults(d)["thresholds"]["steps"][0].update(color="green")),
    ("no_data", "null and NaN", lambda d: _defaults(d)["mappings"].clear()),
    ("conventions", "has editable True", lambda d: d.update(editable=True)),
    ("conventions", "has editable None", lambda d: d.pop("editable")),
    ("conventions", "has refresh '5s'", lambda d: d.update(refresh="5s")),
    ("conventions", "has refresh None", lambda d: d.pop("refresh")),
    ("conventions", "has graphTooltip 0", lambda d: d.update(graphTooltip=0)),
    ("conventions", "has graphTooltip True", lambda d: d.update(graphTooltip=True)),
    ("conventions", "no link to the others", lambda d: d.update(links=[])),
    ("conventions", "no link to the others", lambda d: d["links"][0].update(tags=["nope"])),
    ("conventions", "no link to the others", lambda d: d["links"][0].update(tags=[])),
    ("conventions", "no link to the others", lambda d: d["links"][0].update(type="link")),
    ("conventions", "forgets the time", lambda d: d["links"][0].update(keepTime=False)),
    ("conventions", "forgets what is chosen", lambda d: d["links"][0].update(includeVars=False)),
    ("conventions", "is not enabled", lambda d: _annotation(d, "Deploys").update(enable=False)),
    ("conventions", "asks for deploys", lambda d: _annotation(d, "Deploys").update(enable=False)),
    ("conventions", "asks for alerts", lambda d: d["annotations"]["list"].pop(0)),
    ("conventions", "asks for deploys", lambda d: d["annotations"]["list"].pop(1)),
    ("conventions", "asks for load tests", lambda d: d["annotations"]["list"].pop(2)),
    ("conventions", "asks for alerts", _ask_to_mark("Firing alerts", "firing", "pending")),
    ("conventions", "asks for alerts", _ask_to_mark("Firing alerts", "page|ticket", "page")),
    ("conventions", "asks for alerts", _ask_to_mark("Firing alerts", "CMO.+", "CMOPage")),
    ("conventions", "asks for alerts", _ask_to_mark("Firing alerts", "severity=~", "severity!~")),
    ("conventions", "asks for alerts", _ask_to_mark("Firing alerts", "ALERTS", "up")),
    ("conventions", "asks for deploys", _ask_to_mark("Deploys", " unless ", " and ")),
    ("conventions", "asks for deploys", _ask_to_mark("Deploys", " offset $__interval", "")),
    ("conventions", "asks for deploys", _ask_to_mark("Deploys", "cmo_build_info", "up")),
    ("conventions", "asks for load tests", _ask_to_mark("Load tests", "CMOLoadTestRunning", "CMOWatchdog")),
    ("conventions", "asks for load tests", _ask_to_mark("Load tests", '="CMOLoad', '!="CMOLoad')),
    ("conventions", "across gaps", lambda d: _defaults(d).update(custom={"spanNulls": True})),
    ("conventions", "across gaps", lambda d: _defaults(d).update(custom={"spanNulls": 3_600_000})),
    (
        "conventions",
        "across gaps",
        lambda d: _panel(d)["fieldConfig"]["overrides"].append(
            {"matcher": {}, "properties": [{"id": "custom.spanNulls", "value": True}]}
        ),
    ),
    (
        "conventions",
        "shows ['mean']",
        lambda d: _called(d, "Success rate (")["options"]["reduceOptions"].update(calcs=["mean"]),
    ),
    (
        "conventions",
        "which line is which",
        lambda d: _called(d, "Resident memory")["options"]["legend"].update(showLegend=False),
    ),
    ("conventions", "links to the dashboard 'cmo-nowhere'", _link_to("/d/cmo-nowhere")),
    ("conventions", "links to the dashboard 'cmo-nowhere'", _link_to("/d/cmo-nowhere/title?from=now-1h")),
    (
        "conventions",
        "links to the dashboard 'cmo-nowhere'",
        lambda d: _defaults(d).update(links=[{"url": "https://grafana.example.org/d/cmo-nowhere"}]),
    ),
    (
        "conventions",
        "links to the dashboard 'cmo-nowhere'",
        lambda d: _panel(d).update(description="See [there](/d/cmo-nowhere)."),
    ),
    ("conventions", "the variable 'compnent'", _link_to("/d/cmo-components?from=now&var-compnent=llm")),
    ("conventions", "latency of cmo_query_d", _estimate("cmo_query_duration_seconds")),
    (
        "conventions",
        "latency of cmo_queue_w",
        _estimate("cmo_queue_wait_seconds", beside_another=True),
    ),
    ("thresholds", "of no objective", _steps_of("Coverage of the", (None, NEUTRAL), (100.0, FAIL))),
    ("thresholds", "of no objective", _steps_of("Coverage of the", (None, NEUTRAL), (1.0, PASS))),
    ("thresholds", "of no objective", _step_of("Success rate (", 2, value=0.9)),
    ("thresholds", "of no objective", _step_of("Success rate (", 3, value=0.96)),
    ("thresholds", "of no objective", _step_of("Success rate (", 1, color=PASS)),
    ("thresholds", "of no objective", _step_of("Memory growth (", 3, value=1e8 + 1)),
    ("thresholds", "of no objective", _step_of("Error budget left: S", 3, value=0.955)),
    ("thresholds", "of no objective", _step_of("Error budget left: S", 2, value=0.0)),
    ("thresholds", "of no objective", _steps_of("Coverage of the", (None, NEUTRAL), (0.99, PASS))),
    ("thresholds", "of no objective", _steps_of("Highest users", (None, NEUTRAL), (50.0, PASS))),
    ("thresholds", "of no objective", _steps_of("Targets up", (None, NEUTRAL), (0.0, FAIL), (0.5, NEUTRAL))),
    ("thresholds", "of no objective", _override_steps("Coverage of the", (None, NEUTRAL), (0.5, FAIL))),
    ("thresholds", "a line at 0.9;", _step_of("Success rate over", 1, value=0.9)),
    ("thresholds", "a line at 0.955", _step_of("Success rate over", 1, value=0.955)),
    ("thresholds", "a line at 14.4", _step_of("Burn rate: S", 1, value=14.4)),
    ("thresholds", "a line at 2", _step_of("Calls of each component", 1, value=2.0)),
    ("thresholds", "a line at 1e+09", _steps_of("Resident memory", (None, NEUTRAL), (1e9, FAIL), drawn=True)),
    (
        "thresholds",
        "a line at 0.97",
        _steps_of("Success rate over", (None, NEUTRAL), (0.95, FAIL), (0.97, FAIL), drawn=True),
    ),
    ("thresholds", "does not draw lines", _steps_of("Success rate over", (None, NEUTRAL), (0.95, FAIL))),
    ("thresholds", "draws lines", _steps_of("Resident memory", (None, NEUTRAL), drawn=True)),
    ("thresholds", "gives it no colour", _steps_of("Success rate (", (None, NEUTRAL))),
    ("thresholds", "gives it no colour", _steps_of("Success rate over", (None, NEUTRAL))),
    ("round_trip", "unknown to the schema", lambda d: _panel(d).update(descripton="a misspelt field")),
    ("round_trip", "unknown to the schema", lambda d: _defaults(d).update(treshold={})),
    ("round_trip", "cannot be read", lambda d: _panel(d).update(targets=[None])),
]


@pytest.mark.parametrize(("check", "words", "fault"), FAULTS)
def test_a_seeded_fault_is_found(document: Document, check: str, words: str, fault: Fault) -> None:
    fault(document)
    assert [str(found) for found in CHECKS[check](document) if words in str(found)]


@pytest.mark.parametrize(
    ("unit", "expression", "title"),
    [
        ("s", _P95, "Latency"),
        ("s", f"max_over_time(({_P95} >= 0)[$__range:$__interval])", "Latency"),
        ("s", "time() - cmo_probe_last_asked_timestamp_seconds", "Age"),
        ("s", f"sum(rate(cmo_query_duration_seconds_sum[$__rate_interval])) / ({_RATE} > 0)", "Time"),
        ("reqps", _RATE, "Queries"),
        ("short", _RATE, "Queries a second"),
        ("Bps", _NETWORK, "Network"),
        ("currencyUSD", f"{_COST} * 3600", "Cost an hour"),
        ("currencyUSD", f"{_COST} / ({_RATE} > 0)", "Cost of a query"),
        ("percentunit", _HIT_RATE, "Hits"),
        ("percentunit", f"1 - {_HIT_RATE}", "Misses"),
        ("percentunit", "rate(cmo_gc_pause_seconds_sum[$__rate_interval])", "Share of time"),
        ("short", "rate(cmo_process_cpu_seconds_total[$__rate_interval])", "Processors"),
        ("short", f"2 + ({_HIT_RATE} > bool 0.9) or -1 + 0 * up", "Verdict"),
        ("percentunit", "-1 + 0 * sum(increase(cmo_queries_total[$__range]))", "No traffic, in words"),
        ("short", f'count_values("a", {_P95})', "Count"),
    ],
)
def test_a_unit_that_follows_from_the_metrics_is_no_fault(
    document: Document, unit: str, expression: str, title: str
) -> None:
    _measure(unit, expression, title=title)(document)
    assert list(CHECKS["units"](document)) == []


def test_units_are_called_as_grafana_calls_them() -> None:
    assert {unit.name: unit.value for unit in Unit} == {
        "RATIO": "percentunit",
        "BYTES": "decbytes",
        "BYTES_A_SECOND": "Bps",
        "SECONDS": "s",
        "COUNT": "short",
        "PER_SECOND": "reqps",
        "DOLLARS": "currencyUSD",
    }


def test_a_pattern_of_a_label_is_no_window(document: Document) -> None:
    _ask('sum(rate(http_server_request_duration_seconds_count{x=~"[45].."}[$__rate_interval]))')(document)
    assert list(CHECKS["parses"](document)) == []


def test_the_recorded_hour_may_be_named(document: Document) -> None:
    _ask('last_over_time(scenario:slo_good_events:hourly{scenario="live"}[1h])')(document)
    assert list(CHECKS["parses"](document)) == []


@pytest.mark.parametrize(
    "expression",
    [
        "count(cmo_queries_total)",
        "absent(cmo_queries_total)",
        "sum(increase(cmo_queries_total[$__range]))",
        "avg_over_time(sum(rate(cmo_queries_total[$__rate_interval]))[$__range:$__interval])",
        "max_over_time(cmo_memory_bytes[$__range])",
        f"max by (scenario) ({_P95})",
        _P95.replace("by (le)", "without (instance)"),
        _P95.replace("rate(", "2 * sum(increase(cmo_queries_total[$__range])) + rate("),
    ],
)
def test_what_is_right_for_its_series_is_no_fault(document: Document, expression: str) -> None:
    assert _target(document)["instant"]
    _ask(expression)(document)
    assert list(CHECKS["windows"](document)) == []


@pytest.mark.parametrize("of", ["cmo_queries_total", 'cmo_query_duration_seconds_count{outcome="failure"}'])
def test_names_that_never_meet_may_look_alike(document: Document, of: str) -> None:
    _alike(of, "outcome", "error", "failure")(document)
    assert list(CHECKS["colours"](document)) == []


@pytest.mark.parametrize(
    ("legend", "expression"),
    [
        ("{{a}}", 'label_replace(sum(up), "a", "b", "", "")'),
        ("{{instance}}", "topk by (job) (3, up)"),
        ("{{instance}}", "sum without (job) (up)"),
        ("{{instance}} {{job}}", "max by (instance, job) (up) > 0"),
        ("{{component}}", "1 - sum by (component) (up) / sum by (component) (cmo_component_in_progress)"),
        ("{{tier}}", 'sum by (tier) (rate(cmo_cache_requests_total{result=~"h.*|miss"}[$__rate_interval]))'),
    ],
)
def test_labels_that_are_left_may_be_in_a_legend(document: Document, legend: str, expression: str) -> None:
    _name(legend, expression)(document)
    found = [str(finding) for finding in CHECKS["names"](document)]
    assert not [finding for finding in found if "legend" in finding or "no value" in finding]


@pytest.mark.parametrize(
    "expression",
    [
        'max by (above) (count_values("above", up))',
        'sum by (a) (label_replace(up, "a", "b", "", ""))',
        'sum by (a) (label_join(up, "a", "-", "job"))',
    ],
)
def test_labels_that_an_expression_makes_are_known(document: Document, expression: str) -> None:
    _name("", expression)(document)
    assert list(CHECKS["names"](document)) == []


def test_an_objective_of_the_same_events_has_its_line_where_the_title_names_it(document: Document) -> None:
    _step_of("Success rate over", 1, value=0.90)(document)
    assert list(CHECKS["thresholds"](document))
    _called(document, "Success rate over").update(title="Success rate (targets > 95 %, >= 90 %)")
    assert list(CHECKS["thresholds"](document)) == []


def test_every_check_has_a_seeded_fault() -> None:
    assert {check for check, _, _ in FAULTS} == set(CHECKS)


def test_every_check_is_a_file_of_its_name() -> None:
    for name, check in CHECKS.items():
        function = check.func if isinstance(check, partial) else check
        assert function.__module__ == f"cmo_dashboards.checks.{name}"


def test_what_the_sdk_makes_without_finishing_is_not_accepted() -> None:
    """The traps that the finishing function is there for, as the SDK sets them."""
    built = builders.Dashboard("raw").uid("raw").with_row(builders.Row("row"))
    raw = built.with_panel(timeseries.Panel().title("panel")).build().to_json()
    plain: Document = {**raw, "panels": [panel.to_json() for panel in raw["panels"]]}  # type: ignore[attr-defined]
    for panel in plain["panels"]:
        panel["gridPos"] = panel["gridPos"].to_json()
    assert {finding.wrong.split(";")[0] for finding in CHECKS["ids"](plain)} >= {"has id 0", "has id None"}


def test_series_that_rules_of_these_objectives_record_count_as_known() -> None:
    """As the compiled file has them, whatever the scrape interval."""
    compiled = shipped_rules_directory() / "cmo-015-1s.yml"
    rules = [
        rule
        for group in yaml.safe_load(compiled.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    ]
    expected: dict[str, dict[str, set[str]]] = {}
    for rule in rules:
        labels = expected.setdefault(rule["record"], {})
        for label, value in rule["labels"].items():
            labels.setdefault(label, set()).add(value)
    found = recorded_series(OBJECTIVES)
    assert {
        name: {label: set(values) for label, values in labels.items()} for name, labels in found.items()
    } == expected


@pytest.mark.parametrize("check", ["names", "thresholds", "conventions"])
def test_dashboards_of_other_objectives_are_held_against_those(check: str) -> None:
    other = shipped_objectives().model_dump(mode="json")
    other["name"] = "my-slo"
    for objective in other["objectives"]:
        objective["target"] = {"cache_hits": 0.6}.get(objective["name"], objective["target"])
    objectives = Objectives.model_validate(other)
    built = build_dashboards(objectives).dashboards
    assert [finding for board in built for finding in checks_of(objectives)[check](board.document)] == []
    assert [finding for board in built for finding in CHECKS[check](board.document)]
