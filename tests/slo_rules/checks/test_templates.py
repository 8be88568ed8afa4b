"""Templates that Prometheus refuses or leaves empty, and their neighbours that it fills in."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cmo_slo.checks import CHECKS, Context, read_rules
from cmo_stack import servers

from .checking import ERROR, alert, findings, group, in_rules, record, rule_file
from .generators import kubernetes_mixin, pyrra, sloth

if TYPE_CHECKING:
    from pathlib import Path

BY_JOB = "sum by (job) (rate(a_total[5m])) > 1"


def saying(text: str, expression: str = BY_JOB, **labels: str) -> dict[str, Any]:
    """An alert with this description."""
    return alert(
        expression, labels={"severity": "page", **labels}, annotations={"summary": "x", "description": text}
    )


UNDEFINED = [
    ("{{ $lables.job }}", "lables"),
    ("{{$Value}}", "Value"),
    ('{{ printf "%.2f" $vlaue }}', "vlaue"),
    ("{{ with query \"up{job='x'}\" }}{{ $sample }}{{ end }}", "sample"),
    ("{{ with printf \"up{job='%s'}\" $label.job | query }}{{ end }}", "label"),
]
DEFINED = [
    "{{ $labels.job }} {{ $value }} {{ $externalLabels.cluster }} {{ $externalURL }} {{ $.Value }}",
    "{{ $share := $value }}{{ $share | humanizePercentage }}",
    '{{ range $index, $sample := query "up" }}{{ $index }} {{ $sample.Value }}{{ end }}',
    '{{ "$lables" }} {{ `$lables` }} {{/* $lables */}}',
    "$lables costs $5",
]


@pytest.mark.parametrize(("text", "name"), UNDEFINED)
def test_a_variable_that_nothing_defines_is_an_error(text: str, name: str) -> None:
    for rule in (saying(text), saying("x", team=text)):
        (found,) = in_rules("templates", rule)
        assert found.severity is ERROR
        assert f"reads ${name}, which nothing defines" in found.wrong
    assert "the label 'team'" in found.wrong


def test_the_variable_that_was_meant_is_told() -> None:
    (found,) = in_rules("templates", saying("{{ $lables.job }}"))
    assert "the annotation 'description'" in found.wrong
    assert "did you mean $labels?" in found.mend


@pytest.mark.parametrize("text", DEFINED)
def test_what_is_defined_is_let_be(text: str) -> None:
    assert in_rules("templates", saying(text)) == []


@pytest.mark.parametrize(
    ("text", "refused"), [*((text, True) for text, _ in UNDEFINED), *((text, False) for text in DEFINED)]
)
def test_promtool_agrees_about_variables(text: str, refused: bool, tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(rule_file(group(saying(text))))
    done = promtool("check", "rules", str(tmp_path / "rules.yml"))
    assert ("undefined variable" in done.stdout + done.stderr) is refused, done.stdout + done.stderr


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    found = servers.newest("promtool")
    environment = {**os.environ, **found.environment}
    return subprocess.run([str(found.path), *arguments], env=environment, capture_output=True, text=True)


EMPTY = [
    ("{{ $labels.nope }}", BY_JOB),
    ("{{ $labels.severity }}", BY_JOB),
    ("{{ $labels.alertname }}", BY_JOB),
    ("{{ $labels.job }}", "sum(rate(a_total[5m])) > 1"),
    ("{{ $labels.job }}", "vector(1)"),
    ("{{ $labels.instance }}", 'absent(b{job="x"})'),
    ("{{ $labels.pod }}", "sum without (pod) (rate(a_total[5m])) > 1"),
    ("{{ $labels.pod | title }}", "sum by (job, pod) (rate(a_total[5m])) / on (job) count by (job) (up) > 1"),
]


@pytest.mark.parametrize(("text", "expression"), EMPTY)
def test_a_label_that_cannot_be_there_is_an_error(text: str, expression: str) -> None:
    (found,) = in_rules("templates", saying(text, expression))
    assert found.severity is ERROR
    assert "it stays empty" in found.wrong


def test_promtool_agrees_that_they_stay_empty(tmp_path: Path) -> None:
    alerts = [
        {**saying(f"[{text}]", expression), "alert": f"A{number}"}
        for number, (text, expression) in enumerate(EMPTY)
    ]
    (tmp_path / "rules.yml").write_text(rule_file(group(*alerts)))
    series = {'a_total{job="x",instance="1",pod="p"}': "0+6000x20", 'up{job="x",instance="1"}': "1x20"}
    labels: tuple[list[str], ...] = ["job"], ["job"], ["job"], [], [], ["job"], ["job", "instance"], ["job"]
    values = {"job": "x", "instance": "1"}
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": numbers} for name, numbers in series.items()],
                "alert_rule_test": [
                    {
                        "eval_time": "15m",
                        "alertname": f"A{number}",
                        "exp_alerts": [
                            {
                                "exp_labels": {"severity": "page", **{name: values[name] for name in names}},
                                "exp_annotations": {"summary": "x", "description": "[]"},
                            }
                        ],
                    }
                    for number, names in enumerate(labels)
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    done = promtool("test", "rules", str(tmp_path / "test.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("{{ $labels.job }}", BY_JOB),
        ("{{ $labels.anything }}", "a > 1"),
        ("{{ $labels.anything }}", "cmo_queries_total > 1"),
        ("{{ $labels.anything }}", "sum without (pod) (a) > 1"),
        ("{{ $labels.job }}", 'absent(b{job="x"})'),
        ("{{ $labels.version }}", 'count_values("version", build) > 1'),
        ("{{ $labels.version }}", 'count_values without (version) ("version", build) > 1'),
        ("{{ $labels.zone }}", "sum by (job) (a) * on (job) group_left (zone) b > 1"),
        ("{{ $labels.job }}", "1 < sum by (job) (a)"),
        ("{{ $labels.job }}", "0 > -sum by (job) (a)"),
        ("{{ $labels.pod }}", f"({BY_JOB}) or sum by (pod) (b) > 1"),
        ("{{ if $labels.pod }}{{ $labels.pod }}{{ end }}", BY_JOB),
        ("{{ with $labels.pod }}of {{ . }}{{ end }}", BY_JOB),
        ("{{ or $labels.pod $labels.job }}", BY_JOB),
        ('{{ "$labels.pod" }} $labels.pod', BY_JOB),
        ('{{ range query "up" }}{{ .Labels.pod }}{{ end }}', BY_JOB),
    ],
)
def test_a_label_that_may_be_there_is_let_be(text: str, expression: str) -> None:
    assert in_rules("templates", saying(text, expression)) == []


def test_what_was_probably_meant_is_told() -> None:
    (found,) = in_rules("templates", saying("{{ $labels.jobs }}"))
    assert found.mend == "expected job; did you mean job?"
    (dropped,) = in_rules("templates", saying("{{ $labels.pod }}", "sum without (pod) (a) > 1"))
    assert "expected a label that is not dropped" in dropped.mend


def test_a_recorded_series_has_the_labels_of_its_rule() -> None:
    rule = record("job:a:rate5m", "sum by (job) (rate(a_total[5m]))", tier="gold")
    told = saying("{{ $labels.job }} {{ $labels.tier }} {{ $labels.pod }}", "job:a:rate5m > 1")
    (found,) = in_rules("templates", rule, told)
    assert "$labels.pod" in found.wrong
    assert in_rules("templates", told) == [], "who records it is not known"


def test_an_expression_that_cannot_be_read_hides_no_variable() -> None:
    text = rule_file(group(saying("{{ $lables.job }} {{ $labels.nope }}", "sum by (job")))
    (found,) = CHECKS["templates"](read_rules(text, "rules.yml").documents, Context())
    assert "$lables" in found.wrong


@pytest.mark.parametrize("target", [0.7, 0.999])
def test_what_generators_emit_is_let_be(target: float) -> None:
    for text in (sloth(target), pyrra(target), kubernetes_mixin(target)):
        assert findings("templates", text) == []
