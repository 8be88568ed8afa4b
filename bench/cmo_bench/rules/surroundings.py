"""Everything else that is exposed beside a history, so that no rule is cheap because its series are missing.

What the exporter, Prometheus and Alertmanager expose is taken from them as they run, and written with the
values that it has there, at every step as far back as rules read it. What the catalogue has and nobody
exposes here (the prober's metrics) gets one series for each combination of the values of its labels.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue
from prometheus_client.parser import text_string_to_metric_families

from cmo_bench.rules.backfill import Written, import_text, series_text, write_constants
from cmo_bench.rules.history import TARGET_LABELS
from cmo_bench.rules.reads import rounded_up
from cmo_bench.rules.rule_groups import DAY, HOUR

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cmo_bench.rules.history import History
    from cmo_bench.rules.reads import Plan

_INSTANCES: Final = {
    "cmo": TARGET_LABELS["instance"],
    "prometheus": "127.0.0.1:9090",
    "alertmanager": "127.0.0.1:9093",
    "probe": "127.0.0.1:9465",
}
_OF_EVERY_SCRAPE: Final = {
    "up": 1.0,
    "scrape_duration_seconds": 0.01,
    "scrape_samples_scraped": 2400.0,
    "scrape_samples_post_metric_relabeling": 2400.0,
    "scrape_series_added": 0.0,
}

_Series = tuple[str, frozenset[tuple[str, str]]]


def surround(
    plan: Plan, history: History, expositions: Mapping[str, str], blocks: Path, scratch: Path
) -> Written:
    """Import every series that the rules of a plan read and that the history does not have.

    Args:
        plan: what is read, and how far back.
        history: what is there.
        expositions: what is exposed, by the name of the job.
        blocks: where Prometheus keeps its data.
        scratch: a folder for the text.

    Raises:
        MeasurementError: promtool refuses it.
    """
    known = {_identity(one.key[0], {**TARGET_LABELS, **dict(one.key[1])}) for one in history.series()}
    of_history = {name for name, _ in known}
    longest = (history.end - history.start) * 1000
    by_span: dict[int, dict[str, float]] = {}
    for name, labels, value in _exposed(expositions):
        if name in plan.raw_milliseconds and _identity(name, labels) not in known:
            span = _span(plan, name, longest, beside_history=name in of_history)
            by_span.setdefault(span, {})[series_text(name, labels)] = value
    written = Written(0, 0)
    for span, series in by_span.items():
        text = scratch / "surroundings.om"
        written += write_constants(text, series, history.end - span // 1000, history.end)
        import_text(text, blocks)
        text.unlink()
    return written


def _span(plan: Plan, name: str, longest: int, *, beside_history: bool) -> int:
    """How far back a series goes: of the history's metrics, as far as what is evaluated at the end reads."""
    if beside_history:
        needed = max(plan.raw_at_the_end_milliseconds.get(name, 0), DAY - HOUR)
    else:
        needed = plan.raw_milliseconds[name]
    return rounded_up(needed + HOUR, longest)


def _exposed(expositions: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str], float]]:
    names = set()
    for job, text in expositions.items():
        target = {"job": job, "instance": _INSTANCES[job]}
        for name, value in _OF_EVERY_SCRAPE.items():
            yield name, target, value
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                names.add(sample.name)
                yield sample.name, {**target, **sample.labels}, sample.value
    probe = {"job": "probe", "instance": _INSTANCES["probe"]}
    for metric in catalogue.CATALOGUE:
        for name in metric.series_names:
            if name not in names:
                for labels in _combinations(metric, name):
                    yield name, {**probe, **labels}, 0.0


def _combinations(metric: catalogue.Metric, name: str) -> Iterator[dict[str, str]]:
    values = {label: closed or ("one",) for label, closed in metric.labels.items()}
    if name.endswith("_bucket"):
        values["le"] = (*map(repr, metric.buckets), "+Inf")
    for combination in itertools.product(*values.values()):
        yield dict(zip(values, combination, strict=True))


def _identity(name: str, labels: Mapping[str, str]) -> _Series:
    return name, frozenset(labels.items())
