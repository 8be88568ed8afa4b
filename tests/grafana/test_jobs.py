"""Every raw series is asked of the job that the rules count, however its selector is written."""

from __future__ import annotations

import pytest
from cmo_dashboards import queries, shipped_dashboards
from cmo_dashboards.document import expressions
from cmo_dashboards.jobs import of_its_job
from cmo_dashboards.overview import overview
from cmo_slo.model import Objectives, Service
from cmo_slo.objectives import load_objectives, shipped_directory

SERVICE = Service(job="ours", probe_job="asks-ours")


@pytest.mark.parametrize(
    ("expression", "narrowed"),
    [
        ("cmo_memory_bytes", 'cmo_memory_bytes{job="ours"}'),
        ("cmo_memory_bytes{}", 'cmo_memory_bytes{job="ours"}'),
        (
            'rate(cmo_queries_total{scenario="live"}[5m])',
            'rate(cmo_queries_total{job="ours", scenario="live"}[5m])',
        ),
        (
            'cmo_query_duration_seconds_bucket{le=~"2|2[.]0"} offset 5m',
            'cmo_query_duration_seconds_bucket{job="ours", le=~"2|2[.]0"} offset 5m',
        ),
        ("min by (canary) (cmo_probe_up)", 'min by (canary) (cmo_probe_up{job="asks-ours"})'),
        ("cmo_probe_duration_seconds_sum", 'cmo_probe_duration_seconds_sum{job="asks-ours"}'),
        ('cmo_memory_bytes{kind="a}b"}', 'cmo_memory_bytes{job="ours", kind="a}b"}'),
        ('cmo_memory_bytes{job=~"$job"}', 'cmo_memory_bytes{job=~"$job"}'),
        ('cmo_memory_bytes{kind="rss", job!="x"}', 'cmo_memory_bytes{kind="rss", job!="x"}'),
        ("instance:cmo_memory_bytes:sum + up", "instance:cmo_memory_bytes:sum + up"),
        ('label_replace(up, "cmo_memory_bytes", "cmo_probe_up", "", "")',) * 2,
        ("cmo_other_bytes", "cmo_other_bytes"),
    ],
)
def test_raw_series_are_narrowed_and_nothing_else_is(expression: str, narrowed: str) -> None:
    assert of_its_job(expression, SERVICE) == narrowed
    assert of_its_job(narrowed, SERVICE) == narrowed, "once is enough"


def test_a_dashboard_asks_for_the_job_of_its_objectives() -> None:
    objectives = load_objectives(shipped_directory() / "cmo-015.yml")
    other = Objectives.model_validate({**objectives.model_dump(mode="json"), "service": {"job": "staging"}})
    asked = " ".join(query.expression for query in queries(overview(other)))
    assert 'job="staging"' in asked
    assert 'job="cmo"' not in asked


def test_only_resources_lets_people_choose_the_job() -> None:
    choosing = {
        board.uid
        for board in shipped_dashboards()
        if any("$job" in asked for _, asked in expressions(board.document))
    }
    assert choosing == {"cmo-resources"}
