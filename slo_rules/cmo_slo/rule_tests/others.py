"""Cases of the alerts that are no share of events, one function a kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmo_exporter import catalogue

from cmo_slo.alerts.page import LINGERS_SCRAPES
from cmo_slo.durations import MINUTE, SECOND, parse_duration
from cmo_slo.monitor_series import MONITOR_COUNTERS, UP
from cmo_slo.rule_tests.case import TARGET, Case, Series, Text
from cmo_slo.rule_tests.stimulus import full_labels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_slo.alerts.alert import Surroundings
    from cmo_slo.alerts.hanging import HangingAlert
    from cmo_slo.alerts.level import LevelAlert
    from cmo_slo.alerts.no_traffic import NoTrafficAlert
    from cmo_slo.alerts.restarts import RestartsAlert
    from cmo_slo.alerts.rise import RiseAlert
    from cmo_slo.alerts.scrape import ScrapeAlert
    from cmo_slo.alerts.trend import TrendAlert


def _up(values: str, job: str = "cmo") -> Series:
    return Series(UP, {**TARGET, "job": job}, values)


def down_cases(surroundings: Surroundings) -> Iterator[Case]:
    """The service is gone; a step is a scrape."""
    restart = -(-surroundings.restart // surroundings.interval)
    gone = restart + 2
    many = 10 * restart
    yield Case(
        "no instance is scraped: it fires after a restart's time, and ends",
        (_up(f"1x{many} 0x{gone - 1} 1x{many}"),),
        firing=(many + 1 + restart, many + gone + LINGERS_SCRAPES - 1),
        silent=(many, many + restart, many + 1 + gone + LINGERS_SCRAPES + 1),
        text=Text(many + 1 + restart, "0", {"job": surroundings.job}),
    )
    yield Case(
        "a deploy's restart is no outage",
        (_up(f"1x{many} 0x{restart - 2} 1x20"),),
        silent=(many + restart - 1, many + restart, many + restart + 2),
    )
    yield Case(
        "one of two instances is gone: no page",
        (_up("1x40"), Series(UP, {**TARGET, "instance": "b"}, "1x10 0x30")),
        silent=(20, 40),
    )
    crashing = " ".join(["1 0 0 0"] * (many // 2))
    yield Case(
        "it is scraped now and then, as in a crash loop: it fires",
        (_up(f"1x{many} {crashing}"),),
        firing=(2 * many + restart + 2,),
        silent=(many,),
    )
    yield Case(
        "half of the scrapes fail: no page",
        (_up(" ".join(["1 0"] * many)),),
        silent=(restart + 2, many, 2 * many - 1),
    )
    yield Case(
        "a first start that takes a while: no page",
        (_up(f"0x{restart - 2} 1x{many}"),),
        silent=(restart, restart + 2, restart + 10),
    )
    yield Case("no target at all: it fires", (), firing=(restart + 1,), silent=(restart - 1,))
    yield Case("its target disappears: it fires", (_up("1x10 stale"),), firing=(11 + restart,), silent=(10,))
    yield Case(
        "an idle service is there",
        (_up("1x40"), *_queries("0x40")),
        silent=(5, 20, 40),
    )


def _queries(values: str) -> tuple[Series, ...]:
    name = catalogue.QUERIES.name
    return (Series(name, full_labels(name, {"outcome": "success"}), values),)


def hanging_cases(alert: HangingAlert, surroundings: Surroundings) -> Iterator[Case]:
    """Queries hang; a step is a scrape."""
    after = parse_duration(alert.after) // surroundings.interval
    few = alert.minimum_queries

    def series(
        started: str, in_progress: str, blocked: str | None = None, instance: str = "a"
    ) -> tuple[Series, ...]:
        names = (catalogue.QUERIES_STARTED.name, catalogue.QUERIES_IN_PROGRESS.name)
        loop = catalogue.EVENT_LOOP_BLOCKED.name
        found = tuple(
            Series(name, {**full_labels(name, {}), "instance": instance}, values)
            for name, values in zip(names, (started, in_progress), strict=True)
        )
        return found if blocked is None else (*found, Series(loop, full_labels(loop, {}), blocked))

    yield Case(
        "as many as its minimum do not finish: it fires once they are too old, and ends",
        series(f"0x5 {few}x60", f"0x5 {few}x{after + 4} 0x60"),
        firing=(6 + after, 6 + after + 3 + LINGERS_SCRAPES - 1),
        silent=(5, 5 + after - 1, 6 + after + 5 + LINGERS_SCRAPES + 1),
        text=Text(6 + after, str(few), {"scenario": catalogue.LIVE}),
    )
    yield Case(
        "one less: silent",
        series(f"0x5 {few - 1}x60", f"0x5 {few - 1}x60"),
        silent=(5 + after, 6 + after, 30 + after),
    )
    yield Case(
        "many are under way and all of them are young: silent",
        series("0+50x60", "100x60"),
        silent=(20, 40, 60),
    )
    yield Case(
        "some hang among many that do not: it fires",
        series("0+50x200", f"100x{after + 20} {50 * after + few}x40"),
        firing=(after + 25,),
        silent=(after + 20,),
    )
    yield Case(
        "one of two instances hangs: the other's traffic does not hide it",
        (
            *series(f"0x5 {few}x60", f"0x5 {few}x60"),
            *series("0+50x60", "3x60", instance="b"),
        ),
        firing=(6 + after,),
        silent=(5,),
    )
    yield Case(
        "it has not been scraped for long: silent, for what has begun before is not known",
        series(f"_x5 {few}x60", f"_x5 {10 * few}x3 0x57"),
        silent=(6, 7, 8, 9),
    )
    yield from _unfinished_cases(alert, surroundings)
    limit = parse_duration(alert.after) // SECOND
    yield Case(
        "one query is inside a blocked event loop: it fires",
        series("1x60", "1x60", f"0x5 {limit}x5 {limit + 1}x10 0x40"),
        firing=(12,),
        silent=(10, 20 + 2 * LINGERS_SCRAPES),
    )
    yield Case(
        "nobody is inside a blocked event loop: silent", series("0x30", "0x30", "900x30"), silent=(10, 30)
    )
    yield Case("no series at all: silent", (), silent=(30,))
    yield Case("nobody asks: silent", series("7x60", "0x60", "0x60"), silent=(5, 30, 60))
    yield Case(
        "a counter reset and a restart are no hang",
        series("0+50x20 stale _x2 0+50x30", "100x20 stale _x2 0+30x3 100x30"),
        silent=tuple(range(18, 40, 2)),
    )


def _unfinished_cases(alert: HangingAlert, surroundings: Surroundings) -> Iterator[Case]:
    """Some hang among many that finish: by what is in progress and what has been finished."""
    window = 5 * parse_duration(alert.after) // surroundings.interval
    limit = parse_duration(alert.after) // SECOND
    length = window + 60
    busy, seconds = 20, surroundings.interval / SECOND
    duration_sum = f"{catalogue.QUERY_DURATION.name}_sum"
    outcome = {"outcome": "success"}

    def series(hanging: int, oldest: int, done: float = 1.0) -> tuple[Series, ...]:
        values = {
            catalogue.QUERIES_STARTED.name: f"0+500x{length}",
            catalogue.QUERIES_IN_PROGRESS.name: f"{busy + hanging}x{length}",
            catalogue.OLDEST_QUERY_AGE.name: f"{oldest}x{length}",
        }
        found = tuple(Series(name, full_labels(name, {}), text) for name, text in values.items())
        labels = full_labels(catalogue.QUERY_DURATION.name, outcome)
        return (*found, Series(duration_sum, labels, f"0+{busy * seconds * done:g}x{length}"))

    few = alert.minimum_queries
    firing = (window + 10,)
    yield Case("some hang among many that finish: it fires", series(few, limit + 1), firing=firing)
    yield Case("one less hangs: silent", series(few - 1, limit + 1), silent=(window + 10, length))
    yield Case("none is old: silent", series(few, limit), silent=(window + 10, length))
    yield Case("one is old, and all the others finish: silent", series(1, 900), silent=(window + 10, length))


def no_traffic_cases(alert: NoTrafficAlert, surroundings: Surroundings) -> Iterator[Case]:
    """Nobody is answered and the probe fails; a step is a scrape. Last week has a test of its own."""
    window = parse_duration(alert.probe_window) // surroundings.interval
    waits = MINUTE // surroundings.interval
    probe = catalogue.PROBE_UP.name
    long = window + waits + 2

    def series(queries: str, *probes: str, up: str = "1x200") -> tuple[Series, ...]:
        canaries = tuple(
            Series(probe, {**TARGET, "job": "probe", "canary": str(number)}, values)
            for number, values in enumerate(probes)
        )
        return (*_queries(queries), *canaries, _up(up))

    yield Case(
        "nobody is answered and all probes fail: it fires, and ends",
        series(f"0+5x10 55x{long - 1} 60+5x60", f"1x10 0x{long - 1} 1x60", f"1x10 0x{long - 1} 1x60"),
        firing=(10 + long, 10 + long + LINGERS_SCRAPES - 1),
        silent=(10, 10 + window + 2, 11 + long + LINGERS_SCRAPES + 2),
        text=Text(10 + long, "0", {"scenario": catalogue.LIVE}),
    )
    yield Case("one canary is well: silent", series("5x200", "0x200", "1x200"), silent=(long, 100))
    yield Case("somebody is answered: silent", series("0+1x200", "0x200"), silent=(long, 100))
    started = catalogue.QUERIES_STARTED.name

    def asked(queries: int) -> tuple[Series, ...]:
        # One step of them, a few steps after the start, and nobody is answered.
        values = f"0x{window - 6} {queries}x200"
        return (*series("5x200"), Series(started, full_labels(started, {}), values))

    yield Case(
        "enough ask and nobody is answered: all of them have left: it fires",
        asked(alert.unanswered_queries),
        firing=(window + waits,),
    )
    yield Case("one less asks: silent", asked(alert.unanswered_queries - 1), silent=(window + waits, 100))
    yield Case("an idle night with a prober that is well: silent", series("5x200", "1x200"), silent=(100,))
    yield Case("an idle night without a prober: silent", series("5x200"), silent=(100, 200))
    begun = 40
    yield Case(
        "a prober that has just begun: silent until it has failed for the whole window",
        series("5x200", f"_x{begun} 0x150"),
        firing=(begun + window + waits + 2,),
        silent=tuple(range(begun + 1, begun + window + waits, 2)),
    )
    yield Case(
        "a prober that fails for a while and then is gone, or no longer answers because it is stuck: silent",
        series("5x200", f"1x{begun} 0x{window // 2} stale"),
        silent=tuple(range(begun + 1, begun + 2 * window + waits, 2)),
    )
    yield Case("no series at all: silent", (), silent=(100,))
    yield Case(
        "the service is gone, which is another page's",
        series("5x200", "0x200", up="1x10 0x190"),
        silent=(60, 120),
    )
    yield Case(
        "a restart and a counter reset are no lack of traffic",
        series("0+5x60 stale _x2 0+5x60", "1x60 0x4 1x60", up="1x60 0x3 1x60"),
        silent=tuple(range(58, 90, 4)),
    )


def level_cases(alert: LevelAlert, step: int) -> Iterator[Case]:
    """A gauge's mean, of a state that is 1 or 0; a step is an evaluation of tickets."""
    window = parse_duration(alert.window) // step
    waits = window // 2
    name = alert.gauge.metric
    labels = full_labels(name, {label: values[0] for label, values in alert.gauge.labels.items()})
    kept = {label: labels[label] for label in alert.by}

    def series(values: str) -> tuple[Series, ...]:
        return (Series(name, labels, values),)

    half = window // 2
    fires = window + waits + 1
    yield Case(
        "always in that state: it fires, and ends",
        series(f"0x{window} 1x{fires} 0x{4 * window}"),
        firing=(window + fires,),
        silent=(window, 2 * window + 2 * window + fires),
        text=Text(window + fires, "100%", kept),
    )
    yield Case(
        "in that state for just more than the limit: it fires",
        series(" ".join([f"0x{half - 2} 1x{window - half}"] * 6)),
        firing=(4 * window,),
    )
    yield Case(
        "in that state for just less than the limit: silent",
        series(" ".join([f"0x{window - half} 1x{half - 3}"] * 6)),
        silent=(window, 2 * window, 3 * window, 4 * window),
    )
    yield Case(
        "for a short while: silent",
        series(f"0x{window} 1x{half - 2} 0x{window}"),
        silent=(window + half, 2 * window),
    )
    for label, values in alert.gauge.labels.items():
        turns = tuple(
            Series(
                name,
                {**labels, label: value},
                " ".join(["0x9" if at % len(values) != turn else "1x9" for at in range(9)]),
            )
            for turn, value in enumerate(values)
        )
        yield Case(f"one {label} after the other: it fires", turns, firing=(window + fires,))
    yield Case("no series at all: silent", (), silent=(fires,))
    yield Case("never in that state, and idle: silent", series("0x60"), silent=(10, 60))
    yield Case(
        "a restart of the service: silent",
        series(f"0x{window} stale _x1 1x1 0x{window}"),
        silent=(window, window + 2, window + 4, 2 * window),
    )


def rise_cases(alert: RiseAlert, step: int) -> Iterator[Case]:
    """What counters gain; a step is an evaluation of tickets."""
    window = parse_duration(alert.window) // step
    lingers = window
    first = alert.counters[0]
    labels = {name: (TARGET.get(name) or "lightrag") for name in alert.by}

    def series(counter_name: str, values: str) -> tuple[Series, ...]:
        own = full_labels(counter_name, {}) if counter_name in catalogue.BY_NAME else _monitor(counter_name)
        return (Series(counter_name, {**own, **labels}, values),)

    # Half above the limit in a window, spread over it: what is above and what is below differ by one step's
    # gain.
    above = (alert.gain_above * 1.02 + 1) / (window - 1)
    below = alert.gain_above * 0.98 / window
    for counter_name in alert.counters:
        yield Case(
            f"{counter_name} gains more than the limit: it fires, and ends",
            series(
                counter_name, f"0x3 0+{above:.4f}x{window + 2} _x1 {above * (window + 2):.4f}x{3 * window}"
            ),
            firing=(window + 5,),
            silent=(3, window + 6 + window + lingers + 2),
        )
    yield Case(
        "at the limit it is silent",
        series(first, f"5+{below:.4f}x{3 * window}"),
        silent=(window, 2 * window, 3 * window),
    )
    yield Case("no series at all: silent", (), silent=(window,))
    yield Case("idle: silent", series(first, f"7x{2 * window}"), silent=(window, 2 * window))
    yield Case(
        "a counter reset and a restart: silent",
        series(first, f"700x{window} stale _x1 0x{window}"),
        silent=(window, window + 3, 2 * window),
    )


def _monitor(counter_name: str) -> dict[str, str]:
    return {**TARGET, "job": "prometheus", **dict.fromkeys(MONITOR_COUNTERS[counter_name], "lightrag")}


def trend_cases(alert: TrendAlert, step: int) -> Iterator[Case]:
    """Memory that grows; a step is five minutes."""
    window, horizon = parse_duration(alert.window) // step, parse_duration(alert.horizon) // step
    name, start = catalogue.MEMORY.name, catalogue.WORKER_START_TIME.name
    slope = alert.gain_bytes_above / horizon
    base = 300e6

    def series(values: str, started: str = "0") -> tuple[Series, ...]:
        return (
            Series(name, full_labels(name, {"kind": "rss"}), values),
            Series(start, full_labels(start, {}), f"{started}x{8 * window}"),
        )

    yield Case(
        "a trend above the limit: it fires, and ends",
        series(f"{base:.0f}+{slope * 1.05:.0f}x{2 * window} {base + slope * 2.1 * window:.0f}x{3 * window}"),
        firing=(2 * window,),
        silent=(window - 1, 5 * window),
    )
    yield Case(
        "a trend below the limit: silent",
        series(f"{base:.0f}+{slope * 0.95:.0f}x{3 * window}"),
        silent=(window, 2 * window, 3 * window),
    )
    yield Case(
        "a spike: silent",
        series(f"{base:.0f}x{window} 900e6x2 {base:.0f}x{2 * window}"),
        silent=tuple(range(window, 2 * window, 6)),
    )
    yield Case(
        "a step: silent",
        series(f"{base:.0f}x{window} 900e6x{3 * window}"),
        silent=tuple(range(window, 3 * window, 6)),
    )
    # Noise of the allocator in one half, and in the other a step: the trend of the whole looks steep.
    noise, half = 0.0175 * alert.gain_bytes_above, window // 2
    drift = noise / half
    yield Case(
        "a rise that has ended: silent",
        series(
            f"{base:.0f}x{window} {base:.0f}+{16 * slope:.0f}x{half} "
            f"{base + 16 * slope * half:.0f}+{drift:.0f}x{half + 28}"
        ),
        silent=tuple(range(2 * window + 20, 2 * window + 24)),
    )
    yield Case(
        "a rise that has just begun: silent",
        series(
            f"{base:.0f}x{window} {base:.0f}+{drift:.0f}x{half} {base + noise:.0f}+{8 * slope:.0f}x{half - 4}"
        ),
        silent=tuple(range(2 * window - 8, 2 * window - 4)),
    )
    yield Case("no series at all: silent", (), silent=(window,))
    yield Case("idle: silent", series(f"{base:.0f}x{3 * window}"), silent=(window, 3 * window))
    yield Case(
        "a process that warms up: silent",
        series(f"_x{window} {base:.0f}+{slope * 3:.0f}x{window - 4}", str(window * step // SECOND)),
        silent=(window + window // 2, 2 * window - 5),
    )


def scrape_cases(alert: ScrapeAlert, surroundings: Surroundings, step: int) -> Iterator[Case]:
    """Targets that are not scraped; a step is an evaluation of tickets."""
    window = parse_duration(alert.window) // step
    waits = -(-surroundings.interval * 4 // step)
    fires = window + waits + 1
    others = tuple(_up("1x200", job) for job in alert.jobs[1:])
    first = alert.jobs[0]
    yield Case(
        "a target is down: it fires, and ends",
        (_up(f"1x40 0x{fires} 1x60", first), *others),
        firing=(41 + fires,),
        silent=(40, 40 + window, 41 + fires + 10),
        text=Text(41 + fires, "0", {"job": first, "instance": TARGET["instance"]}),
    )
    yield Case(
        "one of two targets is down: it fires",
        (_up("1x200", first), Series(UP, {"job": first, "instance": "b"}, "0x200"), *others),
        firing=(fires + 1,),
    )
    yield Case(
        "a scrape fails now and then: silent",
        (_up(f"1x40 0x{window - 2} 1x60", first), *others),
        silent=(44, 46, 70),
    )
    yield Case(
        "every third scrape fails for long: it fires",
        (_up(" ".join(map(str, 15 * [1, 1, 1, 1, 1, 0] + 40 * [1, 1, 0])), first), *others),
        firing=(180,),
        silent=(60,),
    )
    for absent in alert.jobs:
        yield Case(
            f"the job {absent} has no target: it fires",
            tuple(_up("1x200", job) for job in alert.jobs if job != absent),
            firing=(fires + 1,),
        )
    yield Case(
        "a target that starts slowly: silent",
        (_up("0x2 1x60", first), *others),
        silent=(2, 4, 6, 10),
    )
    yield Case("all is scraped: silent", (_up("1x200", first), *others), silent=(fires, 100))
    yield Case(
        "a restart of the service: silent", (_up("1x40 0x1 1x60", first), *others), silent=(40, 42, 44, 50)
    )


def restarts_cases(alert: RestartsAlert, step: int) -> Iterator[Case]:
    """Start times that change; a step is an evaluation of tickets."""
    window = parse_duration(alert.window) // step
    name = catalogue.WORKER_START_TIME.name
    labels = full_labels(name, {})
    many, between = alert.restarts_above + 1, 10

    def series(restarts: int, gap: str = "") -> tuple[Series, ...]:
        lives = f" {gap}".join(f"{1000 * (life + 1)}x{between - 1} " for life in range(restarts + 1))
        return (Series(name, labels, f"{lives} {1000 * (restarts + 1)}x{window + 80}"),)

    last = many * between
    kept = {"job": TARGET["job"], "instance": TARGET["instance"]}
    yield Case(
        "one restart more than the limit: it fires, and ends a window after the first",
        series(many),
        firing=(last + 1,),
        silent=(last - 1, window + between + 62),
        text=Text(last + 1, str(many), kept),
    )
    yield Case("as many as the limit: silent", series(many - 1), silent=(last, last + 60))
    yield Case("gaps between lives: it fires", series(many, "stale _x1 "), firing=(last + 3 * many,))
    yield Case("no series at all: silent", (), silent=(10,))
    yield Case("idle: silent", series(0), silent=(10, 60))


def load_test_cases(scenarios: tuple[str, ...]) -> Iterator[Case]:
    """Queries of a scenario; a step is a minute."""
    name = catalogue.QUERIES_STARTED.name

    def series(scenario: str, values: str) -> tuple[Series, ...]:
        return (Series(name, full_labels(name, {"scenario": scenario}), values),)

    for scenario in scenarios:
        yield Case(
            f"{scenario} is asked for: it fires, and for an hour after",
            series(scenario, "0x5 300x80"),
            firing=(6, 7, 60),
            silent=(5, 6 + 62),
        )
    yield Case("it says how many queries", series(scenarios[0], "0x2 60x5"), text=Text(3, "60"))
    yield Case("live queries are no load test", series(catalogue.LIVE, "0+90x10"), silent=(5, 10))
    yield Case("no series at all: silent", (), silent=(5,))
    yield Case(
        "counts of an earlier load test, and a restart: silent",
        series(scenarios[0], "300x10 stale _x2 0x10"),
        silent=(5, 10, 12, 15, 20),
    )


def watchdog_cases() -> Iterator[Case]:
    """It fires, whatever happens."""
    yield Case("without any series", (), firing=(1, 10, 100), text=Text(10, "1"))
    yield Case("while all targets are down", (_up("0x100"),), firing=(10, 100))
