"""The dashboard "The monitor itself": can anything that the other dashboards say be believed?

What is not scraped, evaluated, recorded or delivered makes the other pages quiet, which looks like peace. The
numbers are Prometheus' and Alertmanager's own: both have to be scraped, as in `prometheus/prometheus.yml`,
and vmalert where it evaluates the rules (`cmo_dashboards.evaluators`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue

from cmo_dashboards import evaluators
from cmo_dashboards import expressions as promql
from cmo_dashboards.budgets import coverage
from cmo_dashboards.colours import FAIL, NEUTRAL, WARN, Step
from cmo_dashboards.dashboard import Dashboard
from cmo_dashboards.evaluators import VMALERT, Evaluators
from cmo_dashboards.panels import Panel, Query, Row, Shape, Unit
from cmo_dashboards.promised import runbook_links, scraped_jobs, watchdog
from cmo_dashboards.scrapes import NOT_SCRAPED, jobs_up, up_over_time

if TYPE_CHECKING:
    from cmo_slo.model import Objectives

UID: Final = "cmo-monitor"
_MOST_SECONDS: Final = 60.0
_MOST_INTERVALS: Final = 10.0
_MOST_EVENTS: Final = 1e6
_MOST_SERIES: Final = 1e8
_NO_PROMETHEUS: Final = "Prometheus is not scraped: see Scrape jobs up"
_NO_ALERTMANAGER: Final = "The Alertmanager is not scraped: see Scrape jobs up"
_NO_EVALUATOR: Final = "Nothing that evaluates rules is scraped: see Scrape jobs up"
_RARELY: Final = "Not scraped, or more rarely than the service: see Scrape jobs up"
"""Grafana's windows fit the scrape interval of the service: where scrapes lie further apart, each holds one
at most, and nothing is left to count."""


def monitor(objectives: Objectives) -> Dashboard:
    """The dashboard of the monitor of an objectives file.

    Raises:
        ValueError: the file has no watchdog.
    """
    return Dashboard(
        uid=UID,
        title="The monitor itself",
        description="Can the other pages be believed: is everything scraped, evaluated, recorded and "
        "delivered? If not, the other dashboards may be quiet for want of data.",
        scenarios=objectives.scenarios,
        service=objectives.service,
        rows=(
            Row("Can the other dashboards be believed", _trust(objectives)),
            Row("Scrapes", _scrapes(objectives)),
            Row("Rules", _rules(objectives)),
            Row("From alert to pager", _notifications(objectives)),
            Row("What the exporter could not count", _exporter(objectives)),
            Row("The monitor's own load", _own_load(), folded=True),
        ),
        variables=(),
    )


def _trust(objectives: Objectives) -> tuple[Panel, ...]:
    return (
        jobs_up(scraped_jobs(objectives), where_scraped=(VMALERT,), width=8, height=5),
        _watchdog(objectives),
        _monitoring_alerts(objectives),
        coverage(objectives, width=8, height=5),
    )


def _watchdog(objectives: Objectives) -> Panel:
    name = watchdog(objectives)
    firing = f'ALERTS{{alertname="{name}", alertstate="firing"}}'
    return Panel(
        title="Watchdog",
        shape=Shape.STAT,
        width=4,
        height=5,
        unit=Unit.COUNT,
        answers=f"Does {name} fire? It always should: it proves that the rules are loaded and evaluated. "
        "Whether it arrives, the dead-man receiver watches from outside.",
        when_red="The rules are not loaded, or not evaluated: ask /api/v1/rules of Prometheus, or of vmalert "
        f"where it evaluates them, which there are, and read its log. Runbook {name}.md.",
        queries=(Query(f"max({firing}) or vector(0)", name, 0, 1),),
        steps=(Step(None, NEUTRAL), Step(0.0, FAIL), Step(1.0, NEUTRAL)),
        value_texts=((0.0, "silent"), (1.0, "fires")),
        no_value="Prometheus does not answer",
        links=runbook_links(objectives, name),
    )


def _monitoring_alerts(objectives: Objectives) -> Panel:
    firing = 'ALERTS{alertstate="firing", alertname=~"CMO.+", severity="ticket", role="monitoring"}'
    return Panel(
        title="Alerts about the monitor",
        shape=Shape.STAT,
        width=4,
        height=5,
        unit=Unit.COUNT,
        answers="Which alerts say that the monitor itself is ill? No number: none fires, or the rules are "
        "not loaded; then the watchdog is silent.",
        when_red="Follow the runbook of its name before you believe any other panel.",
        queries=(Query(f"count by (alertname) ({firing})", "{{alertname}}", 1, 100, may_be_empty=True),),
        steps=(Step(None, NEUTRAL), Step(1.0, WARN)),
        no_value="None fires, if the watchdog does",
        data_links=runbook_links(objectives, "${__field.labels.alertname}"),
    )


def _scrapes(objectives: Objectives) -> tuple[Panel, ...]:
    jobs = (*scraped_jobs(objectives), VMALERT)
    of_jobs = f'{{job=~"{"|".join(jobs)}"}}'
    return (
        up_over_time(jobs, width=8, height=8),
        Panel(
            title="Scrape duration",
            shape=Shape.TIME_SERIES,
            width=8,
            height=8,
            unit=Unit.SECONDS,
            answers="How long does a scrape take? Near the scrape interval, scrapes fail and every panel "
            "becomes coarse.",
            when_red="A rise means too many series, or a machine without time to spare.",
            queries=(Query(f"scrape_duration_seconds{of_jobs}", "{{job}} {{instance}}", 0, _MOST_SECONDS),),
            no_value=NOT_SCRAPED,
        ),
        Panel(
            title="Samples of a scrape",
            shape=Shape.TIME_SERIES,
            width=8,
            height=8,
            unit=Unit.COUNT,
            answers="How many series does each target have? 0 while a scrape fails.",
            when_red="A rise that does not end is a label without a closed "
            "list of values; a fall to a few is an exporter that lost its service.",
            queries=(Query(f"scrape_samples_scraped{of_jobs}", "{{job}} {{instance}}", 0, _MOST_SERIES),),
            no_value=NOT_SCRAPED,
        ),
    )


def _rules(objectives: Objectives) -> tuple[Panel, ...]:
    rules = Evaluators(objectives.name)
    return (
        Panel(
            title="Evaluation time of each rule group, of its interval",
            shape=Shape.TIME_SERIES,
            width=8,
            height=8,
            unit=Unit.RATIO,
            answers="Are the rules evaluated in time? What the last evaluation took (of vmalert, the longest "
            "of the last minutes), of the time until the next: at 100 % evaluations are missed, and alerts "
            "come late.",
            when_red="Towards 100 %: give Prometheus, or vmalert and VictoriaMetrics, more processor time, "
            "or a longer scrape interval and the rules compiled for it.",
            queries=(Query(rules.time_of_interval(), "{{rule_group}}", 0.0, _MOST_INTERVALS),),
            no_value=_NO_EVALUATOR,
        ),
        Panel(
            title="Evaluations that failed or were missed",
            shape=Shape.TIME_SERIES,
            width=8,
            height=8,
            unit=Unit.COUNT,
            answers="Do rules fail? A failed evaluation records nothing, so windows lack events and alerts "
            "cannot fire. Counted over each short interval.",
            when_red="Anything above zero is an alert, CMORulesFailing. Failed: /api/v1/rules of Prometheus "
            "or vmalert has the error of each rule in words. Missed: no rule has an error; the group took "
            "longer than its interval, see *Evaluation time of each rule group*.",
            queries=(
                Query(rules.failed(), "failed in {{rule_group}}", 0.0, _MOST_EVENTS),
                Query(rules.missed(), "missed in {{rule_group}}", 0.0, _MOST_EVENTS),
            ),
            no_value=_RARELY,
            links=runbook_links(objectives, "CMORulesFailing"),
        ),
        Panel(
            title="Configuration as loaded",
            shape=Shape.STAT,
            width=8,
            height=8,
            unit=Unit.COUNT,
            answers="Did Prometheus, the Alertmanager, and vmalert where there is one, accept their files "
            "when they last read them? If not, they go on with the old ones.",
            when_red="Run `promtool check config`, `amtool check-config` or `vmalert -dryRun -rule=FILE` on "
            "the file; its log names the line.",
            queries=(
                Query("min by (job) (prometheus_config_last_reload_successful)", "{{job}}", 0, 1),
                Query("min by (job) (alertmanager_config_last_reload_successful)", "{{job}}", 0, 1),
                Query(
                    "min by (job) (vmalert_config_last_reload_successful)",
                    "{{job}}",
                    0,
                    1,
                    may_be_empty=True,
                ),
            ),
            steps=(Step(None, NEUTRAL), Step(0.0, FAIL), Step(1.0, NEUTRAL)),
            value_texts=((0.0, "refused"), (1.0, "accepted")),
            no_value=_NO_PROMETHEUS,
        ),
    )


def _notifications(objectives: Objectives) -> tuple[Panel, ...]:
    window = promql.RATE_INTERVAL
    rules = Evaluators(objectives.name)
    delivered, failed = "alertmanager_notifications_total", "alertmanager_notifications_failed_total"
    return (
        Panel(
            title="Alertmanagers to notify",
            shape=Shape.STAT,
            width=4,
            height=8,
            unit=Unit.COUNT,
            answers="Has what evaluates the rules, Prometheus or vmalert, anybody to send alerts to?",
            when_red="Alerts fire and go nowhere: look at `alerting` in Prometheus' configuration, or at "
            "`-notifier.url` and `-notifier.config` of vmalert.",
            queries=(Query(rules.alertmanagers(), "{{instance}}", 1, 10),),
            steps=(Step(None, NEUTRAL), Step(0.0, FAIL), Step(1.0, NEUTRAL)),
            no_value=_NO_EVALUATOR,
            decimals=0,
        ),
        Panel(
            title="Alerts sent to the Alertmanager",
            shape=Shape.TIME_SERIES,
            width=7,
            height=8,
            unit=Unit.PER_SECOND,
            answers="Do alerts reach the Alertmanager? Sent counts those that failed, too. vmalert drops "
            "none: what it cannot send is an error.",
            when_red="Errors or drops above zero are an alert, CMONotificationsFailing: see whether the "
            "Alertmanager is up, and the log of Prometheus or vmalert.",
            queries=(
                Query(evaluators.sent(), "sent", 0.0, _MOST_EVENTS),
                Query(evaluators.send_errors(), "errors", 0.0, _MOST_EVENTS),
                Query(
                    f"sum(rate(prometheus_notifications_dropped_total[{window}]))",
                    "dropped",
                    0.0,
                    _MOST_EVENTS,
                ),
            ),
            no_value=_RARELY,
        ),
        Panel(
            title="The Alertmanager to receivers",
            shape=Shape.TIME_SERIES,
            width=7,
            height=8,
            unit=Unit.COUNT,
            answers="Do notifications reach the pager? By the kind of receiver, the watchdog's among them, "
            "in each short interval. A kind that sent nothing in it has no line.",
            when_red="Failed above zero is an alert, CMONotificationsFailing: the receiver refuses or does "
            "not answer. Its log has the answer in words; tell people another way until then.",
            queries=(
                Query(
                    f"sum by (integration) (increase({delivered}[{window}])) > 0",
                    "{{integration}}",
                    0.0,
                    _MOST_EVENTS,
                    may_be_empty=True,
                ),
                Query(
                    f"sum by (integration) (increase({failed}[{window}])) > 0",
                    "{{integration}}, failed",
                    0.0,
                    _MOST_EVENTS,
                    may_be_empty=True,
                    dashed=True,
                ),
            ),
            no_value="Nothing sent, or the Alertmanager is not scraped",
            links=runbook_links(objectives, "CMONotificationsFailing"),
        ),
        Panel(
            title="Alerts that the Alertmanager holds",
            shape=Shape.TIME_SERIES,
            width=6,
            height=8,
            unit=Unit.COUNT,
            answers="How many alerts are active, and how many are silenced or inhibited? The watchdog is "
            "always one; each Alertmanager of a cluster counts it.",
            when_red="Suppressed without a load test or a page: somebody left "
            "a silence behind; `amtool silence query` lists them.",
            queries=(Query("sum by (state) (alertmanager_alerts)", "{{state}}", 0.0, _MOST_EVENTS),),
            no_value=_NO_ALERTMANAGER,
        ),
    )


def _exporter(objectives: Objectives) -> tuple[Panel, ...]:
    def increase(metric: catalogue.Metric, by: str, matchers: str = "") -> str:
        return f"sum by ({by}) (increase({metric.name}{matchers}[{promql.RATE_INTERVAL}]))"

    return (
        Panel(
            title="Errors of the instrumentation, and dropped series",
            shape=Shape.TIME_SERIES,
            width=12,
            height=8,
            unit=Unit.COUNT,
            answers="Are the service's numbers complete? Errors inside the instrumentation, which the "
            "service never sees, and label values outside their closed list, recorded as `_other`.",
            when_red="Anything above zero is an alert, CMOSeriesDropped: the metric named in the legend is "
            "incomplete; read the service's log for the first error of `cmo_exporter`.",
            queries=(
                Query(
                    increase(catalogue.INSTRUMENTATION_ERRORS, "metric"),
                    "errors in {{metric}}",
                    0.0,
                    _MOST_EVENTS,
                    may_be_empty=True,
                ),
                Query(
                    increase(catalogue.SERIES_DROPPED, "metric"),
                    "dropped in {{metric}}",
                    0.0,
                    _MOST_EVENTS,
                    may_be_empty=True,
                ),
            ),
            no_value="None counted, or the service is not scraped",
            links=runbook_links(objectives, "CMOSeriesDropped"),
        ),
        Panel(
            title="Requests of the metrics port, and lines of the query log",
            shape=Shape.TIME_SERIES,
            width=12,
            height=8,
            unit=Unit.COUNT,
            answers="Is the metrics port asked by the right ones, and does the log keep up? Requests that "
            "did not end well, by what became of them, and log lines dropped because too many waited.",
            when_red="`unauthorized`: Prometheus has the wrong token. "
            "`cut_off`, `refused`: somebody keeps the port busy. Dropped lines: the log's disk is slow or "
            "full.",
            queries=(
                Query(
                    increase(catalogue.METRICS_REQUESTS, "result", '{result!="ok"}'),
                    "{{result}} requests",
                    0.0,
                    _MOST_EVENTS,
                    may_be_empty=True,
                ),
                Query(
                    increase(catalogue.QUERY_LOG_LINES, "result", '{result="dropped"}'),
                    "{{result}} log lines",
                    0.0,
                    _MOST_EVENTS,
                    may_be_empty=True,
                ),
            ),
            no_value="None counted, or the service is not scraped",
        ),
    )


def _own_load() -> tuple[Panel, ...]:
    return (
        Panel(
            title="Series in memory",
            shape=Shape.TIME_SERIES,
            width=12,
            height=8,
            unit=Unit.COUNT,
            answers="How many series does Prometheus keep in memory? Each costs a few kilobytes.",
            when_red="A rise that does not end: see *Samples of a scrape* for the target.",
            queries=(
                Query("max by (instance) (prometheus_tsdb_head_series)", "{{instance}}", 0.0, _MOST_SERIES),
            ),
            no_value=_NO_PROMETHEUS,
        ),
        Panel(
            title="Memory of the monitor",
            shape=Shape.TIME_SERIES,
            width=12,
            height=8,
            unit=Unit.BYTES,
            answers="How much memory do Prometheus and the Alertmanager take? Also vmalert and "
            "VictoriaMetrics, where they are.",
            when_red="Near the machine's limit they are killed, and all is silent.",
            queries=(
                Query(
                    'process_resident_memory_bytes{job=~"prometheus|alertmanager|vmalert|victoria-metrics"}',
                    "{{job}} {{instance}}",
                    1e6,
                    1e12,
                ),
            ),
            no_value=_NO_PROMETHEUS,
        ),
    )
