"""Cases of the alerts on causes that are no share of events: levels, rises, trends and restarts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue

from cmo_slo.durations import HOUR, MINUTE, SECOND, parse_duration
from cmo_slo.monitor_series import MONITOR_COUNTERS, RULE_GROUP, VMALERT_GROUP
from cmo_slo.rule_tests.case import TARGET, Case, Series, Text
from cmo_slo.rule_tests.stimulus import full_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmo_slo.alerts.level import LevelAlert
    from cmo_slo.alerts.restarts import RestartsAlert
    from cmo_slo.alerts.rise import RiseAlert
    from cmo_slo.alerts.trend import TrendAlert

_TARGET_LABELS = {"job": TARGET["job"], "instance": TARGET["instance"]}


# --- levels ----------------------------------------------------------------------------------------


def level_cases(alert: LevelAlert, step: int) -> Iterator[Case]:
    """A gauge's mean, of a state that is 1 or 0; a step is an evaluation of tickets."""
    window = parse_duration(alert.window) // step
    waits = -(-parse_duration(alert.window) // (2 * step))
    name = alert.gauge.metric
    labels = full_labels(name, {label: values[0] for label, values in alert.gauge.labels.items()})

    def series(values: str) -> tuple[Series, ...]:
        return (Series(name, labels, values),)

    yield from _level_timing_cases(alert, series, window, waits)
    half = window // 2
    yield Case(
        "in that state for just more than the limit: it fires",
        series(" ".join([f"0x{half - 2} 1x{window - half}"] * 3)),
        firing=(2 * window + half,),
    )
    yield Case(
        "in that state for just less than the limit: silent",
        series(" ".join([f"0x{window - half} 1x{half - 3}"] * 4)),
        silent=(window, 2 * window, 3 * window),
    )
    fires = window + waits + 1
    for label, values in alert.gauge.labels.items():
        # Two steps each, so that none of them is what most of the window has.
        turns = tuple(
            Series(
                name,
                {**labels, label: value},
                " ".join(["0x1" if at % len(values) != turn else "1x1" for at in range(fires)]),
            )
            for turn, value in enumerate(values)
        )
        yield Case(f"one {label} after the other: it fires", turns, firing=(fires,))
    yield Case("no series at all: silent", (), silent=(fires,))
    yield Case("never in that state, and idle: silent", series(f"0x{2 * fires}"), silent=(10, 2 * fires))
    yield Case(
        "a restart of the service: silent",
        series(f"0x{window} stale _x1 1x1 0x{window}"),
        silent=(window, window + 2, window + 4, 2 * window),
    )
    yield Case(
        "a restart amid that state does not end it",
        series(f"1x{fires} stale _x1 1x{window}"),
        firing=(fires, fires + 2, fires + window),
    )


def _level_timing_cases(
    alert: LevelAlert, series: Callable[[str], tuple[Series, ...]], window: int, waits: int
) -> Iterator[Case]:
    """Not before its ``for`` is over, and on for its ``keep_firing_for``, a window, and no longer."""
    yield Case(
        "in that state from the first sample on: not before its time",
        series(f"1x{waits + 2}"),
        firing=(waits,),
        silent=(waits - 1,),
    )
    fires = window + waits + 1
    over = window + 1 + fires
    # So many samples that are 0 end it; Prometheus 2 has one more of them in a window.
    first, last = (math.ceil(round(samples * (1 - alert.mean_above), 9)) for samples in (window, window + 1))
    (labels,) = (one.labels for one in series(""))
    yield Case(
        "always in that state: it fires, and ends a window after its mean was above",
        series(f"0x{window} 1x{fires} 0x{3 * window}"),
        firing=(window + fires, over + first + window - 1),
        silent=(window, over + last + window),
        text=Text(window + fires, 1.0, {label: labels[label] for label in alert.by}),
    )
    half = window // 2
    yield Case(
        "for a short while: silent",
        series(f"0x{window} 1x{half - 2} 0x{window}"),
        silent=(window + half, 2 * window),
    )


# --- rises -----------------------------------------------------------------------------------------


_GROUP_OF_OTHERS: Final = "/etc/prometheus/others.yml;others-events"


def rise_cases(alert: RiseAlert, slo: str, step: int) -> Iterator[Case]:
    """What counters gain; a step is an evaluation of tickets."""
    window = parse_duration(alert.window) // step
    named = {**TARGET, RULE_GROUP: _group(slo)}
    labels = {name: named.get(name, "lightrag") for name in alert.by}

    def series(values: str, name: str = alert.counters[0], group: str = _group(slo)) -> tuple[Series, ...]:
        own = full_labels(name, {}) if name in catalogue.BY_NAME else _monitor(name, group)
        others = {label: value for label, value in labels.items() if label != RULE_GROUP}
        return (Series(name, {**own, **others}, values),)

    # Spread over a window: what is above the limit and what is below differ by one step's gain.
    above = round((alert.gain_above * 1.02 + 1) / (window - 1), 4)
    below = alert.gain_above * 0.98 / window
    for name in alert.counters:
        yield Case(
            f"{name} gains just more than the limit: it fires, and says how much",
            series(f"700x3 700+{above:.4f}x{window + 2}", name),
            firing=(window + 5,),
            silent=(3,),
            text=Text(window + 5, above * window, labels),
        )
    jump = 2 * alert.gain_above + 2
    yield Case(
        "it gains all at once: it fires, a window longer than that is in its window, and ends",
        series(f"700x3 {700 + jump:g}x{2 * window + 2}"),
        # Prometheus 2 has one more sample in a window.
        firing=(4, 2 * window + 2),
        silent=(3, 2 * window + 4),
    )
    yield Case(
        "at the limit it is silent",
        series(f"5+{below:.4f}x{2 * window}"),
        silent=(window, 2 * window),
    )
    yield Case("no series at all: silent", (), silent=(window,))
    yield Case("idle: silent", series(f"7x{window + 5}"), silent=(5, window, window + 5))
    for name in alert.counters:
        if not {RULE_GROUP, *VMALERT_GROUP}.isdisjoint(MONITOR_COUNTERS.get(name, ())):
            others = series(f"700x3 700+{above:.4f}x{window + 2}", name, _GROUP_OF_OTHERS)
            yield Case(f"{name} of others' rules: silent", others, silent=(window + 5,))
    yield from _rise_restart_cases(series, window, above)


def _rise_restart_cases(
    series: Callable[[str], tuple[Series, ...]], window: int, above: float
) -> Iterator[Case]:
    yield Case(
        "a counter reset: silent",
        series(f"700x{window} 0x{window}"),
        silent=(window, window + 1, window + 3, 2 * window),
    )
    yield Case(
        "a restart of the service: silent",
        series(f"700x{window} stale _x1 0x{window}"),
        silent=(window, window + 3, 2 * window),
    )
    # No life is as long as a window: only what several have gained is above the limit.
    half = window // 2
    life = f"{above:.4f}+{above:.4f}x{half - 1}"
    yield Case(
        "counter resets do not hide a gain",
        series(" ".join([life] * 6)),
        firing=(4 * half, 6 * half - 1),
    )
    yield Case(
        "restarts of the service do not hide a gain",
        series(" ".join([life, life, "stale", *[life] * 4])),
        firing=(4 * half, 6 * half),
    )


def _monitor(counter_name: str, group: str) -> dict[str, str]:
    of_group = {RULE_GROUP: group, **dict(zip(VMALERT_GROUP, group.split(";"), strict=True))}
    own = {label: of_group.get(label, "lightrag") for label in MONITOR_COUNTERS[counter_name]}
    return {**TARGET, "job": "prometheus", **own}


def _group(slo: str) -> str:
    """A group of the rules of an objectives file, as Prometheus names it."""
    return f"/etc/prometheus/{slo}.yml;{slo}-events"


# --- trends ----------------------------------------------------------------------------------------

_BASE = 300e6
_WAITS = 15 * MINUTE
_LINGERS = HOUR


def trend_cases(alert: TrendAlert, step: int) -> Iterator[Case]:
    """Memory that grows; a step is five minutes."""
    window, horizon = parse_duration(alert.window) // step, parse_duration(alert.horizon) // step
    slope = alert.gain_bytes_above / horizon
    yield from _trend_timing_cases(alert, window, slope, step)
    yield Case(
        "a trend just below the limit: silent",
        _memory(f"{_BASE:.0f}+{slope * 0.95:.0f}x{window + 24}"),
        silent=(window, window + 12, window + 24),
    )
    yield from _no_trend_cases(alert, window, slope)
    yield Case("no series at all: silent", (), silent=(window,))
    yield Case("idle: silent", _memory(f"{_BASE:.0f}x{window + 24}"), silent=(window, window + 24))
    yield Case(
        "a process that warms up: silent",
        _memory(f"_x{window} {_BASE:.0f}+{slope * 3:.0f}x{window - 4}", f"{window * step // SECOND}x300"),
        silent=(window + window // 2, 2 * window - 5),
    )


def _memory(values: str, started: str = "0x300") -> tuple[Series, ...]:
    name, start = catalogue.MEMORY.name, catalogue.WORKER_START_TIME.name
    return (
        Series(name, full_labels(name, {"kind": "rss"}), values),
        Series(start, full_labels(start, {}), started),
    )


def _trend_timing_cases(alert: TrendAlert, window: int, slope: float, step: int) -> Iterator[Case]:
    waits, lingers = _WAITS // step, _LINGERS // step
    grows = f"{_BASE:.0f}+{slope * 1.05:.0f}x"
    # A process is older than the window one step after it.
    fires, over = window + 1 + waits, window + 11
    yield Case(
        "a trend just above the limit: it fires, and ends an hour after the memory is given back",
        _memory(f"{grows}{over - 1} {_BASE:.0f}x{lingers + 12}"),
        firing=(fires, over + lingers - 1),
        silent=(window - 1, fires - 1, over + lingers, over + lingers + 6),
        text=Text(over - 1, alert.gain_bytes_above * 1.05, _TARGET_LABELS),
    )
    restarted = f"0x{over - 1} {over * step // SECOND}x{2 * window}"
    yield Case(
        "a restart amid a trend ends it, until it has been there for as long again",
        _memory(f"{grows}{over - 1} {grows}{window + waits + 4}", restarted),
        firing=(over - 1, over + lingers - 1, over + fires),
        silent=(over + lingers, over + window // 2, over + window - 1, over + fires - 1),
    )


def _no_trend_cases(alert: TrendAlert, window: int, slope: float) -> Iterator[Case]:
    base = f"{_BASE:.0f}"
    yield Case(
        "a spike: silent",
        _memory(f"{base}x{window} 900e6x2 {base}x{window + 12}"),
        silent=tuple(range(window, 2 * window, 6)),
    )
    yield Case(
        "a step: silent",
        _memory(f"{base}x{window} 900e6x{2 * window}"),
        silent=tuple(range(window, 3 * window, 6)),
    )
    # Noise of the allocator in one half, and in the other a step: the trend of the whole looks steep.
    noise, half = 0.0175 * alert.gain_bytes_above, window // 2
    drift = noise / half
    yield Case(
        "a rise that has ended: silent",
        _memory(
            f"{base}x{window} {base}+{16 * slope:.0f}x{half} "
            f"{_BASE + 16 * slope * half:.0f}+{drift:.0f}x{half + 28}"
        ),
        silent=tuple(range(2 * window + 20, 2 * window + 24)),
    )
    # Of three hours it would be above the limit, and of six it is not.
    slow = 0.04 * alert.gain_bytes_above / half
    yield Case(
        "a trend that is above the limit in half of its time: silent",
        _memory(
            f"{base}x{window} {base}+{slow:.0f}x{half} {_BASE + slow * half:.0f}+{1.5 * slope:.0f}x{half + 8}"
        ),
        silent=tuple(range(2 * window - 2, 2 * window + 5, 2)),
    )
    yield Case(
        "a rise that has just begun: silent",
        _memory(f"{base}x{window} {base}+{drift:.0f}x{half} {_BASE + noise:.0f}+{8 * slope:.0f}x{half - 4}"),
        silent=tuple(range(2 * window - 8, 2 * window - 4)),
    )


# --- restarts --------------------------------------------------------------------------------------


def restarts_cases(alert: RestartsAlert, step: int) -> Iterator[Case]:
    """Start times that change; a step is a few minutes."""
    window = parse_duration(alert.window) // step
    lingers = _LINGERS // step
    name = catalogue.WORKER_START_TIME.name
    labels = full_labels(name, {})
    many, between = alert.restarts_above + 1, 10

    def series(restarts: int, gap: str = "") -> tuple[Series, ...]:
        lives = f" {gap}".join(f"{1000 * (life + 1)}x{between - 1} " for life in range(restarts + 1))
        return (Series(name, labels, f"{lives} {1000 * (restarts + 1)}x{window + 80}"),)

    last = many * between
    yield Case(
        "one restart more than the limit: it fires, and ends an hour after the first has left the window",
        series(many),
        # Prometheus 2 has one more sample in a window.
        firing=(last, window + between - 1 + lingers - 1),
        silent=(last - 1, window + between + lingers),
        text=Text(last, many, _TARGET_LABELS),
    )
    yield Case("as many as the limit: silent", series(many - 1), silent=(last, last + 20))
    yield Case("gaps between lives: it fires", series(many, "stale _x1 "), firing=(last + 2 * many,))
    yield Case(
        "restarts of a deploy, as many as the limit, each with a gap: silent",
        series(many - 1, "stale _x1 "),
        silent=(last, last + 2 * many, last + 3 * many),
    )
    yield Case("no series at all: silent", (), silent=(10,))
    yield Case("idle: silent", series(0), silent=(10, 30))
