"""Sides that never match and quantiles without buckets, and their neighbours that give something."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml
from cmo_stack import servers

from .checking import ERROR, alert, findings, in_rules, record, severities
from .generators import kubernetes_mixin, pyrra, sloth

if TYPE_CHECKING:
    from pathlib import Path

BY_JOB = "sum by (job) (rate(a_total[5m]))"
BY_SCENARIO = "sum by (scenario) (rate(cmo_queries_total[5m]))"


NEVER = [
    (
        f"{BY_JOB} / on (instance) rate(b_total[5m])",
        "`on (instance)` compares these labels, which cannot be on `sum by (job)",
    ),
    (
        f"rate(b_total[5m]) / on (instance) {BY_JOB}",
        "`on (instance)` compares these labels, which cannot be on `sum by (job)",
    ),
    (f"{BY_JOB} / on (instance) {BY_JOB}", "`on (instance)` compares these labels, which cannot be on"),
    (f"{BY_JOB} / on (job, instance) up", "'instance' is not on `sum by (job)"),
    (f"up * on (instance) group_left {BY_JOB}", "'instance' is not on `sum by (job)"),
    (f"{BY_JOB} / {BY_SCENARIO}", "'scenario' is not on `sum by (job)"),
    (f"{BY_JOB} / {BY_SCENARIO}", "'job' is not on `sum by (scenario)"),
    ("sum by (pod) (a) / sum by (node) (b)", "'node' is not on `sum by (pod) (a)`"),
    (
        "sum by (pod) (a) / on (node) kube_pod_info",
        "`on (node)` compares these labels, which cannot be on `sum by (pod) (a)`",
    ),
    ('rate(a_total{code="500"}[5m]) / sum by (job) (rate(a_total[5m]))', "'code' is not on"),
    ('rate(a_total{code="500"}[5m]) / sum without (code) (rate(a_total[5m]))', "'code' is not on"),
    (f"{BY_JOB} > vector(1)", "'job' is not on `vector(1)`"),
    (f"{BY_JOB} > 1 and hour() >= 0", "'job' is not on `hour() >= 0`"),
    (f"{BY_JOB} > 1 and absent(b)", "'job' is not on `absent(b)`"),
    (f"{BY_SCENARIO} / ignoring (job) sum(b)", "all others, and 'scenario' is not on `sum(b)`"),
    ("cmo_queries_total / sum by (scenario) (cmo_queries_total)", "'instance', 'job', "),
    ("sum(1 - up / on (job) sum by (instance) (b))", "'job' is not on `sum by (instance) (b)`"),
    ("max by (job) (a) - topk by (job) (1, sum by (scenario) (b))", "'scenario' is not on"),
]


@pytest.mark.parametrize(("expression", "why"), NEVER)
def test_sides_that_never_match_are_an_error(expression: str, why: str) -> None:
    (found,) = in_rules("matching", alert(expression))
    assert found.severity is ERROR
    tied = "cannot be on" in why
    assert ("ties nothing together" if tied else "gives nothing, for its sides never match") in found.wrong
    assert why in found.wrong


def test_promtool_agrees_that_they_give_nothing(tmp_path: Path) -> None:
    both = 'job="x",instance="1"'
    series = {
        **{f'{name}{{{both},code="500"}}': "0+6000x20" for name in ("a_total", "b_total")},
        **{f'{name}{{{both},pod="p",node="n",scenario="s"}}': "1+1x20" for name in ("a", "kube_pod_info")},
        # No series `b` beside `absent(b)`.
        f'cmo_queries_total{{{both},scenario="live",outcome="success"}}': "0+6000x20",
        f"up{{{both}}}": "1x20",
    }
    # Of one job alone the two sides of this do match, without any label.
    told = [one for one, _ in NEVER if one != f"{BY_JOB} / on (instance) {BY_JOB}"]
    test = {
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": one.replace("(b)", "(a)").replace("absent(a)", "absent(b)"),
                        "eval_time": "15m",
                        "exp_samples": [],
                    }
                    for one in told
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    promtool = servers.newest("promtool")
    done = subprocess.run(
        [str(promtool.path), "test", "rules", str(tmp_path / "test.yml")],
        env={**os.environ, **promtool.environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_never_matches_excludes_nothing() -> None:
    (found,) = in_rules("matching", alert(f"{BY_JOB} > 1 unless absent(b)"))
    assert "excludes nothing" in found.wrong


@pytest.mark.parametrize(
    "expression",
    [
        f"{BY_JOB} / {BY_JOB} > 1",
        f"{BY_JOB} / on (job) {BY_JOB} > 1",
        f"{BY_JOB} / on (job, instance) {BY_JOB} > 1",
        f"{BY_JOB} / on () sum(b) > 1",
        f"{BY_JOB} / on (cluster) group_left sum(b) > 1",
        f"sum(a) / on (cluster) sum(b) > 1 or {BY_SCENARIO} > 1",
        f"{BY_JOB} / ignoring (job) group_left sum(b) > 1",
        f"{BY_SCENARIO} / scalar(sum(b)) > 1",
        f"{BY_JOB} > 1 and on () hour() >= 0",
        f"{BY_JOB} > 2 * 3 or vector(0)",
        f"time() - {BY_JOB} > 1",
        f"{BY_JOB} > 1 and on () {BY_SCENARIO} > 1",
        # What a series has is not known:
        "cmo_queries_total / on (shard) cmo_queries_total > 1",
        "(sum by (job, tier) (a) * on (job) group_left (tier) b) / sum by (job) (c) > 1",
        "a / b > 1",
        "a / on (instance) b > 1",
        f"a / {BY_JOB} > 1",
        f"{BY_JOB} / on (job, instance) job:b:rate5m > 1",
        "sum without (pod) (a) / on (instance) sum without (pod) (b) > 1",
        "sum by (job, zone) (a) / on (job) group_left sum by (job) (b) > 1",
        'sum by (job) (label_replace(a, "x", "$1", "job", "(.*)")) / b > 1',
        'label_replace(sum by (pod) (a), "node", "$1", "pod", "(.*)") / sum by (node) (b) > 1',
        "sum by (job) (a or vector(0)) / sum(b) > 1",
        # Labels that need not be set:
        "sum by (cluster, job) (a) / sum by (job) (b) > 1",
        "sum by (namespace, pod) (a) * on (cluster, namespace, pod) group_left (node) kube_pod_info > 1",
        'count_values ("version", build) / on (version) sum by (version) (b) > 1',
        "count by (job) (a * on (job) group_left (zone) b) / on (job) sum by (job) (up) > 1",
        "up * on (job) group_left (version) sum by (job, version) (b) > 1",
    ],
)
def test_sides_that_may_match_are_let_be(expression: str) -> None:
    assert in_rules("matching", alert(expression)) == []


def test_a_recorded_series_has_the_labels_of_its_rule() -> None:
    recorded = [record("job:a:rate5m", BY_JOB, window="5m"), record("job:b:rate5m", BY_JOB)]
    assert severities(in_rules("matching", *recorded, alert("job:a:rate5m / job:b:rate5m > 1"))) == [ERROR]
    both = alert("job:a:rate5m / ignoring (window) job:b:rate5m > 1")
    assert in_rules("matching", *recorded, both) == []
    elsewhere = alert("job:a:rate5m / job:c:rate5m > 1")
    assert in_rules("matching", *recorded, elsewhere) == []


def test_rules_that_record_each_other_in_a_circle_end() -> None:
    circle = [record("a:b:c", "d:e:f / 2"), record("d:e:f", "a:b:c * 2"), alert("a:b:c / on (x) d:e:f > 1")]
    assert in_rules("matching", *circle) == []


@pytest.mark.parametrize(
    ("histogram", "mend"),
    [
        ("sum by (scenario) (rate(cmo_query_duration_seconds_bucket[5m]))", "write `by (le, scenario)`"),
        ("sum(rate(a_bucket[5m]))", "write `by (le)`"),
        ("sum without (le) (rate(a_bucket[5m]))", "take it out of `without (…)`"),
        ("sum(rate(a_bucket[5m])) * 2", "group by it as well"),
    ],
)
def test_a_quantile_without_buckets_is_an_error(histogram: str, mend: str) -> None:
    for call in (f"histogram_quantile(0.9, {histogram})", f"histogram_fraction(0, 1, {histogram})"):
        for rule in (alert(f"{call} > 5"), record("job:a:p90", call)):
            (found,) = in_rules("matching", rule)
            assert found.severity is ERROR
            assert "drops the label 'le'" in found.wrong
            assert mend in found.mend


@pytest.mark.parametrize(
    "histogram",
    [
        "rate(a_bucket[5m])",
        "sum by (le) (rate(a_bucket[5m]))",
        "sum without (pod) (rate(a_bucket[5m]))",
        "sum by (le, node) (rate(a_bucket[5m])) * on (node) group_left (zone) node_info",
        # Native histograms:
        "sum by (job) (rate(a_seconds[5m]))",
        "sum(a_seconds)",
        # Not known what it is:
        "sum by (job) (job:a:rate5m)",
        'sum by (job) ({__name__=~"a_bucket|b_bucket"})',
    ],
)
def test_a_quantile_with_buckets_is_let_be(histogram: str) -> None:
    assert in_rules("matching", alert(f"histogram_quantile(0.9, {histogram}) > 5")) == []


def test_buckets_that_were_recorded_without_their_edges_are_told() -> None:
    page = alert("histogram_quantile(0.9, job:a:rate5m) > 5")
    buckets = record("job:a:rate5m", "sum by (job) (rate(a_bucket[5m]))")
    native = record("job:a:rate5m", "sum by (job) (rate(a_seconds[5m]))")
    assert severities(in_rules("matching", buckets, page)) == [ERROR]
    assert in_rules("matching", native, page) == []


@pytest.mark.parametrize("target", [0.7, 0.999])
def test_what_generators_emit_is_let_be(target: float) -> None:
    for text in (sloth(target), pyrra(target), kubernetes_mixin(target)):
        assert findings("matching", text) == []
