"""Good and bad events as series: what has to be counted for an objective or an alert to see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue

from cmo_slo.alerts.share import ShareAlert, SlowShareAlert
from cmo_slo.monitor_series import UP
from cmo_slo.rule_tests.case import TARGET, Phase, Series, counter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cmo_slo.alerts.share import AnyShare
    from cmo_slo.indicators import Labels, LatencyIndicator, RatioIndicator

_OPEN_LABELS: Final[Mapping[str, str]] = {"scenario": catalogue.LIVE, "component": "lightrag", "worker": "0"}
"""Values of labels whose lists are settings of the exporter."""


@dataclass(frozen=True)
class Events:
    """A phase of events: good and bad ones of each step, or a reset, or no scrape at all."""

    good: float
    bad: float
    steps: int
    reset: bool = False
    absent: bool = False


Stimulus = Callable[[Sequence[Events]], tuple[Series, ...]]
"""Phases of events in, series out."""


def _phases(events: Iterable[Events], gain: Callable[[Events], float]) -> list[Phase]:
    return [Phase(gain(one), one.steps, reset=one.reset, absent=one.absent) for one in events]


def good(events: Events) -> float:
    """Good events of a step."""
    return events.good


def bad(events: Events) -> float:
    """Bad events of a step."""
    return events.bad


def full_labels(metric: str, chosen: Mapping[str, str]) -> dict[str, str]:
    """All labels of one series of a metric: those chosen, and a value for each of the others."""
    labels = {
        name: chosen.get(name) or _OPEN_LABELS.get(name) or (values[0] if values else "x")
        for name, values in catalogue.BY_NAME[metric].labels.items()
    }
    job = {"job": "probe"} if metric in catalogue.PROBE_METRICS else {}
    return {**TARGET, **job, **labels}


def of_ratio(indicator: RatioIndicator) -> Stimulus:
    """Events of a ratio: two series of one counter."""
    return _two_series(indicator.good.metric, indicator.good.labels, indicator.total.labels, flipped=False)


def of_latency(indicator: LatencyIndicator) -> Stimulus:
    """Events of a latency: all are real answers, the bad ones above the threshold."""
    chosen = {name: values[0] for name, values in indicator.good.items()}
    return _histogram(indicator.metric, chosen, indicator.threshold_seconds)


def of_share(alert: AnyShare) -> Stimulus:
    """Events of an alert on a share."""
    if isinstance(alert, SlowShareAlert):
        chosen = {name: values[0] for name, values in alert.labels.items()}
        return _histogram(alert.metric, chosen, alert.above_seconds)
    return _share(alert)


def _share(alert: ShareAlert) -> Stimulus:
    return _two_series(alert.bad.metric, alert.bad.labels, alert.total.labels, flipped=True)


def _two_series(metric: str, part: Labels, whole: Labels, *, flipped: bool) -> Stimulus:
    """One series within the part and one in the rest of the whole; ``flipped``: the part is what is bad."""
    inside = {name: values[0] for name, values in part.items()}
    outside = {**inside, **_rest(metric, part, whole)}
    good_labels, bad_labels = (outside, inside) if flipped else (inside, outside)

    def series(events: Sequence[Events]) -> tuple[Series, ...]:
        return (
            Series(metric, full_labels(metric, good_labels), counter(_phases(events, good))),
            Series(metric, full_labels(metric, bad_labels), counter(_phases(events, bad))),
        )

    return series


def _rest(metric: str, part: Labels, whole: Labels) -> dict[str, str]:
    for name, values in part.items():
        allowed = whole.get(name) or catalogue.BY_NAME[metric].labels[name] or ()
        others = [value for value in allowed if value not in values]
        if others:
            return {name: others[0]}
    raise ValueError(f"{metric}: nothing of the whole is outside the part")


def _histogram(metric: str, chosen: Mapping[str, str], threshold: float) -> Stimulus:
    labels = full_labels(metric, chosen)

    def series(events: Sequence[Events]) -> tuple[Series, ...]:
        every = _phases(events, lambda one: one.good + one.bad)
        return (
            Series(f"{metric}_count", labels, counter(every)),
            Series(f"{metric}_bucket", {**labels, "le": repr(threshold)}, counter(_phases(events, good))),
        )

    return series


def up(values: str, *, job: str = TARGET["job"], instance: str = TARGET["instance"]) -> Series:
    """Whether scrapes of a target succeed."""
    return Series(UP, {"job": job, "instance": instance}, values)
