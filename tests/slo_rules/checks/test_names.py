"""Names that do not exist, held against the catalogue and what is recorded; other people's are let be."""

from __future__ import annotations

import pytest
from cmo_exporter import catalogue
from cmo_slo import recorded

from .checking import ERROR, WARNING, alert, findings, group, in_rules, record, rule_file, severities


@pytest.mark.parametrize(
    ("expression", "wrong", "mend"),
    [
        ("cmo_queries_totl", "'cmo_queries_totl' is neither", "did you mean cmo_queries_total?"),
        ("rate(cmo_query_duration_seconds_buckets[5m])", "'cmo_query_duration", "did you mean"),
        ("cmo_query_duration_seconds", "is neither in the catalogue", "did you mean"),
        ("cmo_made_up_by_somebody_else_entirely > 1", "is neither", "expected a series that exists"),
        ("scenario:slo_good_event:sum", "is neither", "did you mean scenario:slo_good_events:sum?"),
        ("slo:cmo_queries_totl:increase", "is neither", "expected a series"),
        (
            'cmo_queries_total{outcom="error"}',
            "cmo_queries_total has no label 'outcom'",
            "did you mean outcome?",
        ),
        (
            'cmo_queries_total{outcome="eror"}',
            "'eror' is no value of cmo_queries_total's",
            "did you mean error?",
        ),
        ('cmo_queries_total{outcome=~"error|timeuot"}', "'timeuot' is no value", "did you mean timeout?"),
        ('cmo_queries_total{outcome!="cancled"}', "'cancled' is no value", "did you mean cancelled?"),
        ('rate(cmo_query_duration_seconds_bucket{le="2.1"}[5m])', "'2.1' is no value", "expected one of"),
        ("sum by (scenaro) (cmo_queries_total)", "groups by 'scenaro'", "did you mean scenario?"),
        (
            "cmo_queries_total / on (job, outcomes) cmo_queries_total",
            "matches by 'outcomes'",
            "did you mean outcome?",
        ),
    ],
)
def test_what_does_not_exist_is_an_error(expression: str, wrong: str, mend: str) -> None:
    found = in_rules("names", alert(expression))
    assert severities(found) == [ERROR]
    assert wrong in found[0].wrong
    assert mend in found[0].mend


def test_each_edge_of_a_histogram_is_listed_once() -> None:
    (found,) = in_rules("names", alert('cmo_query_duration_seconds_bucket{le="2.1"}'))
    edges = found.mend.removeprefix("expected one of ").partition(";")[0].split(", ")
    assert edges[-1] == "+Inf"
    assert [float(edge) for edge in edges] == sorted({float(edge) for edge in edges})


@pytest.mark.parametrize(
    "expression",
    [
        "cmo_queries_total",
        'cmo_queries_total{outcome=~"error|timeout",scenario="live",job="cmo",instance="a:1"}',
        'cmo_queries_total{outcome=~"err.*"}',
        'cmo_queries_total{outcome=""}',
        'cmo_queries_total{cluster="eu"}',
        'cmo_fallbacks_total{reason="_other"}',
        'cmo_query_duration_seconds_bucket{le="2"}',
        'cmo_query_duration_seconds_bucket{le="2.0"}',
        'cmo_query_duration_seconds_bucket{le=~"2|2[.]0"}',
        'cmo_query_duration_seconds_bucket{le=~"2|2\\\\.0"}',
        'cmo_query_duration_seconds_bucket{le="+Inf"}',
        "cmo_query_duration_seconds_count + cmo_query_duration_seconds_sum",
        '{__name__="cmo_queries_total",outcome="error"}',
        '{__name__=~"cmo_.*"}',
        "sum by (job, instance, scenario, outcome) (cmo_queries_total)",
        "sum without (nothing) (cmo_queries_total)",
        'sum by (new) (label_replace(cmo_queries_total, "new", "$1", "outcome", "(.*)"))',
        "slo:cmo_queries_total:increase + slo:cmo_queries_total:checkpoint",
        recorded.GOOD_EVENTS_HOURLY,
        "http_server_request_duration_seconds_count",
        # Prometheus' own, and other people's:
        'up{job="x"} == 0 or ALERTS{alertname="X"} or scrape_duration_seconds > 5',
        "prometheus_rule_evaluation_failures_total + alertmanager_notifications_failed_total",
        "process_open_fds / process_max_fds + python_gc_collections_total + go_goroutines",
        "http_requests_total",
        'node_cpu_seconds_total{mode="idle"}',
        "kube_pod_status_phase",
        "slo:sli_error:ratio_rate5m",
        "sum by (anything) (http_requests_total)",
        "sum by (pods) (cmo_queries_total * on (job) group_left (pods) kube_pod_info)",
    ],
)
def test_what_exists_or_is_not_ours_is_let_be(expression: str) -> None:
    assert in_rules("names", alert(expression)) == []


@pytest.mark.parametrize("metric", catalogue.CATALOGUE, ids=lambda metric: metric.name)
def test_all_that_is_in_the_catalogue_is_known(metric: catalogue.Metric) -> None:
    for name in metric.series_names:
        matchers = ",".join(
            f'{label}="{(values or ["anything"])[0]}"' for label, values in metric.labels.items()
        )
        assert in_rules("names", alert(f"{name}{{{matchers}}}")) == []
        missing = in_rules("names", alert(f'{name}{{{matchers}{"," if matchers else ""}not_there="x"}}'))
        assert severities(missing) == [ERROR]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("cm_queries_total", "did you mean cmo_queries_total?"),
        ("rate(cmp_queries_total[5m])", "did you mean cmo_queries_total?"),
        (
            "http_server_request_duration_second_count",
            "did you mean http_server_request_duration_seconds_count?",
        ),
        ("http_server_requests_seconds_count", "if it is meant as ours"),
    ],
)
def test_a_name_that_is_nearly_ours_is_a_warning(expression: str, expected: str) -> None:
    found = in_rules("names", alert(expression))
    assert severities(found) == [WARNING]
    assert expected in f"{found[0].wrong} {found[0].mend}"


def test_what_any_of_the_files_records_is_known() -> None:
    reading = rule_file(group(alert("cmo_own:queries:rate5m > 1")))
    recording = rule_file(
        group(record("cmo_own:queries:rate5m", "sum(rate(cmo_queries_total[5m]))"), name="other")
    )
    assert severities(findings("names", reading)) == [ERROR]
    assert findings("names", reading, recording) == []


def test_labels_that_every_recording_rule_sets_are_held_against_what_is_asked() -> None:
    rules = [record("job:a:sum", "sum(a)", window="short"), record("job:a:sum", "sum(a)", window="long")]
    assert in_rules("names", *rules, alert('job:a:sum{window="short"}')) == []
    assert in_rules("names", *rules, alert('job:a:sum{other="x"}')) == [], "it may come from the expression"
    (found,) = in_rules("names", *rules, alert('job:a:sum{window="1w"}'))
    assert 'no rule records job:a:sum with window="1w"' in found.wrong
    assert "expected one of long, short" in found.mend


def test_labels_that_no_one_rule_sets_together_are_told() -> None:
    rules = [record("job:a:sum", "sum(a)", w="1", o="x"), record("job:a:sum", "sum(a)", w="2", o="y")]
    (found,) = in_rules("names", *rules, alert('job:a:sum{w="1",o="y"}'))
    assert 'with all of o="y", w="1"' in found.wrong
    others = [record("job:a:sum", "sum(a)", w="1"), record("job:a:sum", "sum(a)", o="x")]
    (found,) = in_rules("names", *others, alert('job:a:sum{w="2",o="y"}'))
    assert 'with all of o="y", w="2"' in found.wrong, "no label is set by both"
