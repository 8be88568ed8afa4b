"""Objectives in, Prometheus rules out: pure, so that the same objectives always give the same file.

How events are counted, and why not by ``increase(metric[window])``: that extrapolates to the edges of its
window, by a factor that differs between the counters of a ratio as soon as one of them is near zero, so that
neither the counts nor their ratio are true. Here every evaluation first copies the counters (checkpoints),
then takes what each has gained since the copy before: a plain difference of two recorded samples. The
differences add up to the truth over any window. A scrape that is still being written when the rules run is
counted one evaluation later instead of never; so is all that happened while an evaluation was missed or the
target could not be scraped, up to the look-back. A counter that went down was reset, and counts from 0.

Windows follow from the scrape interval (`page_windows`). Nothing here reads or writes a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from cmo_exporter import catalogue

from cmo_slo import recorded
from cmo_slo.indicators import GrowthIndicator, HeldLevelIndicator, LatencyIndicator, RatioIndicator
from cmo_slo.recorded import Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cmo_slo.indicators import Labels
    from cmo_slo.model import Objective, Objectives, Page

DEFAULT_SCRAPE_INTERVAL: Final = "15s"
MILLISECOND: Final = 1
SECOND: Final = 1000 * MILLISECOND
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
_UNITS: Final = {"d": DAY, "h": HOUR, "m": MINUTE, "s": SECOND, "ms": MILLISECOND}
_DURATION: Final = re.compile(r"(\d+)(ms|[dhms])")

# Prometheus forgets a series 5 minutes after its last sample; beyond 2 minutes one missed scrape is a gap.
_SHORTEST_INTERVAL: Final = 100 * MILLISECOND
_LONGEST_INTERVAL: Final = 2 * MINUTE

# A checkpoint this old is still what the next increase is taken from.
_LOOK_BACK_SCRAPES: Final = 20
_SHORTEST_LOOK_BACK: Final = MINUTE

# Scrapes until a page, from the moment when everything fails: threshold * (long - 1) <= 3.
_SCRAPES_TO_PAGE: Final = 3.0
_LONG_PER_SHORT: Final = 3
_FEWEST_SHORT_SCRAPES: Final = 4
_MOST_SHORT_SCRAPES: Final = 80
_BAD_RATIO_WITHOUT_PAGE: Final = 0.10

# Long windows are read from few samples, so they need not be evaluated at every scrape.
_LONG_WINDOWS: Final[Mapping[Window, int]] = {Window.HOUR: HOUR, Window.DAY: DAY, Window.MONTH: 30 * DAY}
_LONG_WINDOWS_INTERVAL: Final = MINUTE

_LIVE: Final[Labels] = {"scenario": (catalogue.LIVE,)}


class CompileError(Exception):
    """The objectives or the scrape interval cannot be compiled; the message says why and how to mend it."""

    exit_status: ClassVar[int] = 3


@dataclass(frozen=True)
class Rule:
    """One rule: it records a series, or raises an alert, never both."""

    expression: str
    record: str | None = None
    alert: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a rule that neither records nor alerts, or does both.

        Raises:
            ValueError: exactly one of ``record`` and ``alert`` must be given.
        """
        if (self.record is None) == (self.alert is None):
            raise ValueError("a rule either records a series or raises an alert")


@dataclass(frozen=True)
class RuleGroup:
    """Rules evaluated one after the other, at the same instant; each sees what those before it recorded."""

    name: str
    interval_milliseconds: int
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class PageWindows:
    """The two windows of a page, in milliseconds: the long one decides, the short one ends it soon after."""

    short: int
    long: int


def page_windows(bad_ratio_above: float, scrape_interval: int) -> PageWindows:
    """The windows over which a ratio of bad events is held against a limit.

    A window reaches the limit ``limit * (window - scrape) / jump`` after bad events jump from nothing to
    ``jump`` (``evidence.md``, Paging), so a long window of 3 / limit scrapes pages 3 scrapes after everything
    fails, and 6 after half does. The short one is a third of it, which is how long a page outlives its cause.
    Bounds keep both at a size that means something: 4 to 80 scrapes for the short one.

    Args:
        bad_ratio_above: the limit, from 0 to below 1.
        scrape_interval: milliseconds.
    """
    scrapes = _SCRAPES_TO_PAGE / bad_ratio_above / _LONG_PER_SHORT if bad_ratio_above else _MOST_SHORT_SCRAPES
    short = min(max(round(scrapes), _FEWEST_SHORT_SCRAPES), _MOST_SHORT_SCRAPES) * scrape_interval
    return PageWindows(short, short * _LONG_PER_SHORT)


def compile_rules(
    objectives: Objectives, scrape_interval: str = DEFAULT_SCRAPE_INTERVAL
) -> tuple[RuleGroup, ...]:
    """Compile one objectives file.

    Args:
        objectives: what to compile.
        scrape_interval: how often the service is scraped, as Prometheus writes durations; the rules are
            evaluated as often.

    Raises:
        CompileError: the interval is unusable, or a page could never fire.
    """
    interval = parse_duration(scrape_interval)
    if not _SHORTEST_INTERVAL <= interval <= _LONGEST_INTERVAL:
        raise CompileError(
            f"A scrape interval of {scrape_interval} cannot be compiled: expected "
            f"{duration(_SHORTEST_INTERVAL)} to {duration(_LONGEST_INTERVAL)}, such as 15s."
        )
    _refuse_unreachable_pages(objectives)
    slo = {"slo": objectives.name}
    name = objectives.name
    groups = (
        RuleGroup(f"{name}-events", interval, tuple(_label(_event_rules(objectives, interval), slo))),
        RuleGroup(f"{name}-hourly", HOUR, tuple(_label(_hourly_rules(objectives), slo))),
        RuleGroup(
            f"{name}-long-windows", _LONG_WINDOWS_INTERVAL, tuple(_label(_long_window_rules(objectives), slo))
        ),
        RuleGroup(f"{name}-objectives", interval, tuple(_label(_constant_rules(objectives, interval), slo))),
    )
    return tuple(group for group in groups if group.rules)


def recorded_names(objectives: Objectives) -> tuple[str, ...]:
    """Names of all series that the compiled rules record, sorted."""
    groups = compile_rules(objectives)
    return tuple(sorted({rule.record for group in groups for rule in group.rules if rule.record}))


def as_document(groups: Sequence[RuleGroup]) -> dict[str, Any]:
    """The rule file as plain data, ready to be written as YAML."""
    return {
        "groups": [
            {
                "name": group.name,
                "interval": duration(group.interval_milliseconds),
                "rules": [_plain(rule) for rule in group.rules],
            }
            for group in groups
        ]
    }


def parse_duration(text: str) -> int:
    """Milliseconds of a duration as Prometheus writes it: ``15s``, ``1m30s``, ``500ms``.

    Raises:
        CompileError: it is none.
    """
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise CompileError(f"{text!r} is no duration: expected one such as 15s, 1m30s or 500ms.")
    return sum(int(number) * _UNITS[unit] for number, unit in parts)


def duration(milliseconds: int) -> str:
    """A duration as Prometheus writes it; the inverse of `parse_duration`."""
    text = ""
    for unit, size in _UNITS.items():
        count, milliseconds = divmod(milliseconds, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def _plain(rule: Rule) -> dict[str, Any]:
    plain: dict[str, Any] = {"record": rule.record} if rule.record else {"alert": rule.alert}
    plain["expr"] = rule.expression
    if rule.labels:
        plain["labels"] = dict(rule.labels)
    if rule.annotations:
        plain["annotations"] = dict(rule.annotations)
    return plain


def _label(rules: Iterable[Rule], labels: Mapping[str, str]) -> Iterator[Rule]:
    for rule in rules:
        yield Rule(rule.expression, rule.record, rule.alert, {**labels, **rule.labels}, rule.annotations)


def _refuse_unreachable_pages(objectives: Objectives) -> None:
    for objective in objectives.objectives:
        page = objective.page
        if page is not None and not 0 <= page.bad_ratio_above < 1:
            raise CompileError(
                f"{page.alert} could never fire: it asks for more than {page.bad_ratio_above:.0%} bad events "
                f"in objective {objective.name}; expected bad_ratio_above of at least 0 and below 1."
            )


# --- selectors -------------------------------------------------------------------------------------


def _selector(series: str, labels: Labels, *more: str) -> str:
    matchers = [*(_matcher(name, values) for name, values in labels.items()), *more]
    return f"{series}{{{','.join(matchers)}}}" if matchers else series


def _matcher(name: str, values: Sequence[str]) -> str:
    # Label values of the catalogue are words; a regular expression reads them literally.
    return f'{name}="{values[0]}"' if len(values) == 1 else f'{name}=~"{"|".join(values)}"'


def _edge(threshold_seconds: float) -> str:
    # The same edge is exposed as "2.0" by some and as "2" by others.
    if threshold_seconds == int(threshold_seconds):
        whole = int(threshold_seconds)
        return f'le=~"{whole}|{whole}[.]0"'
    return f'le="{threshold_seconds}"'


# --- events: checkpoints, increases, windows, pages ------------------------------------------------


def _event_rules(objectives: Objectives, interval: int) -> Iterator[Rule]:
    counters = _counters(objectives)
    for series, selection in counters.items():
        yield Rule(selection, record=recorded.checkpoint(series))
    for series in counters:
        yield Rule(_increase_expression(series, objectives.name, interval), record=recorded.increase(series))
    for objective in objectives.objectives:
        yield from _step_rules(objective, objectives.name)
    for objective in _counted(objectives):
        yield from _window_rules(objective, objectives.name, interval)
    for objective in objectives.objectives:
        if objective.page is not None:
            yield _page_rule(objectives, objective, objective.page, interval)


def _counted(objectives: Objectives) -> list[Objective]:
    return [
        objective
        for objective in objectives.objectives
        if isinstance(objective.indicator, RatioIndicator | LatencyIndicator)
    ]


def _counters(objectives: Objectives) -> dict[str, str]:
    """Every counter that some objective reads, and the selection of it that all objectives together need."""
    edges: dict[str, set[float]] = {}
    plain: dict[str, None] = {}
    for objective in objectives.objectives:
        indicator = objective.indicator
        if isinstance(indicator, RatioIndicator):
            plain[indicator.total.metric] = None
        elif isinstance(indicator, HeldLevelIndicator):
            plain[indicator.integral] = plain[indicator.clock] = None
        elif isinstance(indicator, LatencyIndicator):
            plain[f"{indicator.metric}_count"] = None
            edges.setdefault(f"{indicator.metric}_bucket", set()).add(indicator.threshold_seconds)
    buckets = {
        series: " or ".join(_selector(series, {}, _edge(edge)) for edge in sorted(thresholds))
        for series, thresholds in edges.items()
    }
    return {**{series: series for series in plain}, **buckets}


def _increase_expression(series: str, slo: str, interval: int) -> str:
    look_back = duration(max(_LOOK_BACK_SCRAPES * interval, _SHORTEST_LOOK_BACK))
    now = _selector(recorded.checkpoint(series), {"slo": (slo,)})
    # One millisecond back lies the checkpoint of the evaluation before, however long ago that was.
    before = f"last_over_time({now}[{look_back}] offset 1ms)"
    started = f"min by (job, instance) ({catalogue.WORKER_START_TIME.name})"
    age_limit = parse_duration(look_back) / SECOND
    return (
        f"{now}\n"
        f"- (\n"
        f"  {before} <= {now}\n"
        f"  or 0 * ({now} and {before})\n"
        f"  or 0 * ({now} and on (job, instance) (time() - {started} < {age_limit:g}))\n"
        f")"
    )


def _step_rules(objective: Objective, slo: str) -> Iterator[Rule]:
    """What happened since the evaluation before, in terms of one objective."""
    for record, expression in _steps(objective, slo).items():
        yield Rule(expression, record=record, labels={"objective": objective.name})


def _steps(objective: Objective, slo: str) -> dict[str, str]:
    indicator = objective.indicator
    if isinstance(indicator, RatioIndicator):
        good = _gained(indicator.good.metric, slo, indicator.good.labels)
        total = _gained(indicator.total.metric, slo, indicator.total.labels)
        return {recorded.GOOD_EVENTS: _or_zero(good, total), recorded.TOTAL_EVENTS: total}
    if isinstance(indicator, LatencyIndicator):
        good = _gained_within(indicator, slo, indicator.good)
        total = _gained(f"{indicator.metric}_count", slo, indicator.total)
        judged = total
        if indicator.excluded_within_threshold:
            excluded = _gained_within(indicator, slo, indicator.excluded_within_threshold)
            judged = f"{total}\n- (\n  {_or_zero(excluded, total)}\n)"
        return {recorded.GOOD_EVENTS: _or_zero(good, total), recorded.TOTAL_EVENTS: judged}
    if isinstance(indicator, HeldLevelIndicator):
        clock = _selector(recorded.increase(indicator.clock), {"slo": (slo,)})
        return {
            recorded.USER_SECONDS: _gained(indicator.integral, slo, {}),
            # Instances run side by side: their user-seconds add up, their clocks do not.
            recorded.USER_CLOCK_SECONDS: f"max({clock})",
        }
    if isinstance(indicator, GrowthIndicator):
        peak = _selector(indicator.peak.metric, indicator.peak.labels)
        base = _selector(indicator.base.metric, indicator.base.labels)
        return {recorded.LEVEL_PEAK: f"sum by (scenario) ({peak})", recorded.LEVEL_BASE: f"sum({base})"}
    return {}


def _gained(series: str, slo: str, labels: Labels, *matchers: str) -> str:
    selector = _selector(recorded.increase(series), {"slo": (slo,), **labels}, *matchers)
    return f"sum by (scenario) ({selector})"


def _gained_within(indicator: LatencyIndicator, slo: str, labels: Labels) -> str:
    return _gained(f"{indicator.metric}_bucket", slo, labels, _edge(indicator.threshold_seconds))


def _or_zero(part: str, total: str) -> str:
    # What has never been counted is 0 of a total that has: an outage from the first query on must page.
    return f"{part}\nor 0 * {total}"


def _windows(objective: Objective, interval: int) -> PageWindows:
    limit = objective.page.bad_ratio_above if objective.page else _BAD_RATIO_WITHOUT_PAGE
    return page_windows(limit, interval)


def _sum(series: str, matchers: str, window: int) -> str:
    # A range of the window less 1 ms holds the same samples whether its left end counts (2.x) or not (3.x).
    return f"sum_over_time({series}{{{matchers}}}[{duration(window - MILLISECOND)}])"


def _window_rules(objective: Objective, slo: str, interval: int) -> Iterator[Rule]:
    windows = _windows(objective, interval)
    own = f'slo="{slo}",objective="{objective.name}"'
    for window, length in ((Window.SHORT, windows.short), (Window.LONG, windows.long)):
        labels = {"objective": objective.name, "window": window.value}
        for source, target in (
            (recorded.GOOD_EVENTS, recorded.GOOD_EVENTS_IN_WINDOW),
            (recorded.TOTAL_EVENTS, recorded.TOTAL_EVENTS_IN_WINDOW),
        ):
            yield Rule(_sum(source, own, length), record=target, labels=labels)


def _page_rule(objectives: Objectives, objective: Objective, page: Page, interval: int) -> Rule:
    total_short, bad_short = _total_and_bad(objectives, objective, Window.SHORT)
    total_long, bad_long = _total_and_bad(objectives, objective, Window.LONG)
    limit = repr(page.bad_ratio_above)
    # Divided, not multiplied out: a quotient is rounded once, so exactly the limit is not above it.
    return Rule(
        f"max without (window) ({bad_short} / ({total_short} > 0)) > {limit}\n"
        f"and\n"
        f"max without (window) ({bad_long} / ({total_long} > 0)) > {limit}\n"
        f"and\n"
        f"max without (window) {bad_long} >= {page.minimum_bad_events}",
        alert=page.alert,
        labels={"severity": "page"},
        annotations={
            "summary": page.summary,
            "description": _page_description(objective, page, _windows(objective, interval)),
            "runbook": page.runbook,
            "dashboard": f"/d/{objectives.name}",
        },
    )


def _page_description(objective: Objective, page: Page, windows: PageWindows) -> str:
    consequence = "Users get errors, apologies or stale answers instead of real ones."
    if isinstance(objective.indicator, LatencyIndicator):
        seconds = objective.indicator.threshold_seconds
        consequence = f"Users wait longer than {seconds:g} s, or get no real answer."
    short, long = duration(windows.short), duration(windows.long)
    return (
        f"{{{{ $value | humanizePercentage }}}} of the live queries of the last {short} were bad for "
        f'"{objective.title}". {consequence} Pages above {100 * page.bad_ratio_above:g}% over {short} '
        f"and {long}, from {page.minimum_bad_events} bad ones."
    )


def _total_and_bad(objectives: Objectives, objective: Objective, window: Window) -> tuple[str, str]:
    labels = {"slo": (objectives.name,), "objective": (objective.name,), **_LIVE, "window": (window.value,)}
    total = _selector(recorded.TOTAL_EVENTS_IN_WINDOW, labels)
    return total, f"({total} - {_selector(recorded.GOOD_EVENTS_IN_WINDOW, labels)})"


# --- long windows, of live queries -----------------------------------------------------------------

_HOURLY: Final = (
    (recorded.GOOD_EVENTS, recorded.GOOD_EVENTS_HOURLY, recorded.GOOD_EVENTS_IN_WINDOW),
    (recorded.TOTAL_EVENTS, recorded.TOTAL_EVENTS_HOURLY, recorded.TOTAL_EVENTS_IN_WINDOW),
)


def _hourly_rules(objectives: Objectives) -> Iterator[Rule]:
    if _counted(objectives):
        for source, target, _ in _HOURLY:
            yield Rule(_sum(source, _long_matchers(objectives), HOUR), record=target)


def _long_window_rules(objectives: Objectives) -> Iterator[Rule]:
    if not _counted(objectives):
        return
    for window, length in _LONG_WINDOWS.items():
        for source, hourly, target in _HOURLY:
            series = source if length == HOUR else hourly
            yield Rule(
                _sum(series, _long_matchers(objectives), length),
                record=target,
                labels={"window": window.value},
            )


def _long_matchers(objectives: Objectives) -> str:
    return f'slo="{objectives.name}",scenario="{catalogue.LIVE}"'


# --- targets and thresholds ------------------------------------------------------------------------


def _constant_rules(objectives: Objectives, interval: int) -> Iterator[Rule]:
    for objective in objectives.objectives:
        name = {"objective": objective.name}
        yield _constant(
            recorded.TARGET,
            objective.target,
            {**name, "operator": objective.operator.value, "unit": objective.unit},
        )
        indicator = objective.indicator
        if isinstance(indicator, LatencyIndicator):
            yield _constant(recorded.THRESHOLD_SECONDS, indicator.threshold_seconds, name)
        if objective.page is not None:
            yield _constant(recorded.PAGE_BAD_RATIO_LIMIT, objective.page.bad_ratio_above, name)
            yield _constant(recorded.PAGE_BAD_EVENTS_LIMIT, objective.page.minimum_bad_events, name)
    for objective in _counted(objectives):
        windows = _windows(objective, interval)
        lengths = {Window.SHORT: windows.short, Window.LONG: windows.long, **_LONG_WINDOWS}
        for window, length in lengths.items():
            labels = {"objective": objective.name, "window": window.value}
            yield _constant(recorded.WINDOW_SECONDS, length / SECOND, labels)


def _constant(record: str, value: float, labels: Mapping[str, str]) -> Rule:
    return Rule(f"vector({float(value)!r})", record=record, labels=labels)
