"""Cases of the pages that are no share of events: the service is gone, queries hang, none come."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cmo_exporter import catalogue

from cmo_slo.alerts.page import LINGERS_SCRAPES
from cmo_slo.durations import MINUTE, SECOND
from cmo_slo.rule_tests.case import TARGET, Case, Phase, Series, Text, counter
from cmo_slo.rule_tests.stimulus import full_labels, up

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cmo_slo.alerts.alert import Surroundings
    from cmo_slo.alerts.hanging import HangingAlert
    from cmo_slo.alerts.no_traffic import NoTrafficAlert


# --- gone ------------------------------------------------------------------------------------------


def down_cases(surroundings: Surroundings) -> Iterator[Case]:
    """The service is gone; a step is a scrape."""
    restart = -(-surroundings.restart // surroundings.interval)
    gone = restart + 2
    many = 10 * restart
    yield Case(
        "no instance is scraped: it fires after a restart's time, and ends",
        (up(f"1x{many} 0x{gone - 1} 1x{many}"),),
        firing=(many + 1 + restart, many + gone + LINGERS_SCRAPES - 1),
        silent=(many, many + restart, many + 1 + gone + LINGERS_SCRAPES + 1),
        text=Text(many + 1 + restart, 0, {"job": surroundings.job}),
    )
    yield Case(
        "a deploy's restart is no outage",
        (up(f"1x{many} 0x{restart - 2} 1x20"),),
        silent=(many + restart - 1, many + restart, many + restart + 2),
    )
    yield Case(
        "one of two instances is gone: no page",
        (up("1x40"), up("1x10 0x30", instance="b")),
        silent=(20, 40),
    )
    crashing = " ".join(["1 0 0 0"] * (many // 2))
    yield Case(
        "it is scraped now and then, as in a crash loop: it fires",
        (up(f"1x{many} {crashing}"),),
        firing=(2 * many + restart + 2,),
        silent=(many,),
    )
    names = [
        up(f"_x{many + 4 * number} 1 0 0 0 stale", instance=f"pod-{number}")
        for number in range(2 * many // 4)
    ]
    yield Case(
        "it crashes under another name each time, as pods do: it fires",
        (up(f"1x{many - 1} stale", instance="before"), *names),
        firing=(2 * many + restart + 2,),
        silent=(many,),
    )
    without = [
        up(f"_x{many + 6 * number} 1 1 1 stale", instance=f"pod-{number}") for number in range(many // 6 + 2)
    ]
    yield Case(
        "half of the time it has no target at all, between two names: it fires",
        (up(f"1x{many - 1} stale", instance="before"), *without),
        firing=(2 * many + restart + 2,),
        silent=(many,),
    )
    half = many // 2
    yield Case(
        "it crashes from the first scrape on: it fires once it is known for long enough",
        (up(" ".join(["1 0 0 0"] * many)),),
        firing=(half + restart + 2,),
        silent=(half - 2,),
    )
    lately = max(4 * restart, 8)
    yield Case(
        "it ends when a long outage has been over for four restarts",
        (up(f"1x{many} 0x{lately} 1x{many}"),),
        firing=(many + lately + LINGERS_SCRAPES,),
        silent=(many + 2 * lately + LINGERS_SCRAPES + 3,),
    )
    yield from _there_cases(restart, many)


def _there_cases(restart: int, many: int) -> Iterator[Case]:
    """It is there, or there is no target of which to know."""
    most = " ".join(["1 0 1"] * many)
    yield Case(
        "just more scrapes fail than may: it fires",
        (up(f"1x{many} {most}"),),
        firing=(3 * many,),
        silent=(many,),
    )
    yield Case(
        "every fourth scrape fails, which is less: no page",
        (up(" ".join(["1 0 1 1"] * many)),),
        silent=(restart + 2, many, 2 * many - 1),
    )
    yield Case(
        "a first start that takes a while: no page",
        (up(f"0x{restart - 2} 1x{many}"),),
        silent=(restart, restart + 2, restart + 10),
    )
    yield Case(
        "two instances fail in turn, and one is always there: no page",
        (up(" ".join(["1 0 1 0"] * many)), up(" ".join(["0 1 0 1"] * many), instance="b")),
        silent=(restart + 2, many, 2 * many - 1),
    )
    yield Case("no target at all: it fires", (), firing=(restart + 1,), silent=(restart - 1,))
    yield Case("its target disappears: it fires", (up("1x10 stale"),), firing=(11 + restart,), silent=(10,))
    yield Case(
        "an idle service is there",
        (up("1x40"), *_queries("0x40")),
        silent=(5, 20, 40),
    )


def _queries(values: str) -> tuple[Series, ...]:
    name = catalogue.QUERIES.name
    return (Series(name, full_labels(name, {"outcome": "success"}), values),)


# --- hanging ---------------------------------------------------------------------------------------


def hanging_cases(alert: HangingAlert, surroundings: Surroundings) -> Iterator[Case]:
    """Queries hang; a step is a scrape."""
    after = surroundings.window(alert.after) // surroundings.interval
    yield from _older_cases(after, alert.minimum_queries)
    yield from _unfinished_cases(alert, surroundings)
    yield from _blocked_cases(
        surroundings.window(alert.after) // SECOND,
        surroundings.scenarios[0] if surroundings.scenarios else "x",
    )
    yield Case("no series at all: silent", (), silent=(30,))
    yield Case("nobody asks: silent", _in_progress("7x60", "0x60", "0x60"), silent=(5, 30, 60))
    yield from _hanging_restart_cases(after, alert.minimum_queries)


def _in_progress(
    started: str, in_progress: str, blocked: str | None = None, instance: str = TARGET["instance"]
) -> tuple[Series, ...]:
    """Queries that have begun, those that have not ended, and for how long the event loop is blocked."""
    names = (catalogue.QUERIES_STARTED.name, catalogue.QUERIES_IN_PROGRESS.name)
    loop = catalogue.EVENT_LOOP_BLOCKED.name
    found = tuple(
        Series(name, {**full_labels(name, {}), "instance": instance}, values)
        for name, values in zip(names, (started, in_progress), strict=True)
    )
    return found if blocked is None else (*found, Series(loop, full_labels(loop, {}), blocked))


def _older_cases(after: int, few: int) -> Iterator[Case]:
    """By what has begun within a time and what is in progress: all that is more than that is older."""
    yield Case(
        "as many as its minimum do not finish: it fires once they are too old, and ends",
        _in_progress(f"0x5 {few}x60", f"0x5 {few}x{after + 4} 0x60"),
        firing=(6 + after, 6 + after + 3 + LINGERS_SCRAPES - 1),
        silent=(5, 5 + after - 1, 6 + after + 5 + LINGERS_SCRAPES + 1),
        text=Text(6 + after, few, {"scenario": catalogue.LIVE}),
    )
    yield Case(
        "one less: silent",
        _in_progress(f"0x5 {few - 1}x60", f"0x5 {few - 1}x60"),
        silent=(5 + after, 6 + after, 30 + after),
    )
    yield Case(
        "many are under way and all of them are young: silent",
        _in_progress("0+50x60", "100x60"),
        silent=(20, 40, 60),
    )
    yield Case(
        "some hang among many that do not: it fires",
        _in_progress("0+50x200", f"100x{after + 20} {50 * after + few}x40"),
        firing=(after + 25,),
        silent=(after + 20,),
    )
    yield Case(
        "one of two instances hangs: the other's traffic does not hide it",
        (
            *_in_progress(f"0x5 {few}x60", f"0x5 {few}x60"),
            *_in_progress("0+50x60", "3x60", instance="b"),
        ),
        firing=(6 + after,),
        silent=(5,),
    )
    yield Case(
        "it has not been scraped for long: silent, for what has begun before is not known",
        _in_progress(f"_x5 {few}x60", f"_x5 {10 * few}x3 0x57"),
        silent=(6, 7, 8, 9),
    )


def _blocked_cases(limit: int, of_a_load_test: str) -> Iterator[Case]:
    yield Case(
        "one query is inside a blocked event loop: it fires",
        _in_progress("1x60", "1x60", f"0x5 {limit}x5 {limit + 1}x10 0x40"),
        firing=(12,),
        silent=(10, 22 + LINGERS_SCRAPES + 1),
    )
    scenario = {**full_labels(catalogue.QUERIES_IN_PROGRESS.name, {}), "scenario": of_a_load_test}
    yield Case(
        "a load test blocks the event loop, and nobody live is inside: silent",
        (
            *_in_progress("0x60", "0x60", f"0x5 {limit}x5 {limit + 1}x40"),
            Series(catalogue.QUERIES_IN_PROGRESS.name, scenario, "50x60"),
        ),
        silent=(12, 30),
    )
    yield Case(
        "nobody is known to be inside a blocked event loop, because it counts nobody any more: it fires",
        _in_progress("0x60", "0x60", f"0x5 {limit}x5 {limit + 1}x40"),
        firing=(12,),
        silent=(10,),
    )


def _hanging_restart_cases(after: int, few: int) -> Iterator[Case]:
    yield Case(
        "a target that went while Prometheus was down is seen for five minutes more: silent",
        _in_progress(f"0+{few}x{after} _x40", f"{few + 1}x{after} _x40"),
        silent=tuple(range(after, 2 * after + 10, 2)),
    )
    yield Case(
        "a counter reset is no hang",
        _in_progress("0+50x20 0+50x30", "100x20 0+30x3 100x30"),
        silent=tuple(range(18, 40, 2)),
    )
    yield Case(
        "a restart of the service is no hang",
        _in_progress("0+50x20 stale _x2 0+50x30", "100x20 stale _x2 0+30x3 100x30"),
        silent=tuple(range(18, 40, 2)),
    )
    yield Case(
        "a counter reset does not hide a hang",
        _in_progress(f"700x5 {few}x60", f"0x5 {few}x60"),
        firing=(6 + after,),
        silent=(5, 5 + after - 1),
    )


def _unfinished_cases(alert: HangingAlert, surroundings: Surroundings) -> Iterator[Case]:
    """Some hang among many that finish: by what is in progress and what has been finished."""
    window = 5 * surroundings.window(alert.after) // surroundings.interval
    limit = surroundings.window(alert.after) // SECOND
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
    in_progress, oldest = catalogue.QUERIES_IN_PROGRESS.name, catalogue.OLDEST_QUERY_AGE.name
    later = {
        in_progress: f"{busy + 4 * few}x{window + 5} {few - 1}x50",
        oldest: f"{limit}x{window + 5} {limit + 1}x50",
    }
    yield Case(
        "many have been finished at last, and few are old: silent",
        tuple(replace(one, values=later.get(one.name, one.values)) for one in series(few, limit)),
        silent=(window + 7, window + 9),
    )
    many = tuple(_with_a_gap(one, window, length) for one in series(1, 900))
    yield Case(
        "many are under way while Prometheus is away, and one is old: silent",
        many,
        silent=tuple(range(window + 10, 2 * window + 20, max(window // 10, 1))),
    )
    again = tuple(
        replace(one, values=f"_x{window + 5} {one.values}") if one.name == duration_sum else one
        for one in series(1, 900)
    )
    yield Case(
        "durations are there again after they were gone: silent",
        again,
        silent=(window + 8, window + 12, window + 20),
    )
    yield Case("one is old, and all the others finish: silent", series(1, 900), silent=(window + 10, length))


def _with_a_gap(one: Series, window: int, length: int) -> Series:
    """A few scrapes are missing after a whole window, of a service that goes on meanwhile."""
    missing = max(window // 3, 4)
    first, _, more = one.values.partition("+")
    if not more:
        level = one.values.partition("x")[0]
        return replace(one, values=f"{level}x{window + 4} _x{missing} {level}x{length}")
    step = float(more.partition("x")[0])
    after = step * (window + 5 + missing)
    return replace(one, values=f"{first}+{step:g}x{window + 4} _x{missing} {after:g}+{step:g}x{length}")


# --- no traffic ------------------------------------------------------------------------------------


def no_traffic_cases(alert: NoTrafficAlert, surroundings: Surroundings) -> Iterator[Case]:
    """Nobody is answered and the probe fails; a step is a scrape. Last week has a test of its own."""
    window = surroundings.window(alert.probe_window) // surroundings.interval
    waits = MINUTE // surroundings.interval
    yield from _probe_cases(window, waits)
    yield from _unanswered_cases(window, waits, alert.unanswered_queries)
    if surroundings.scenarios:
        yield from _load_test_cases(surroundings.scenarios[0], window + waits + 2)
    long = window + waits + 2
    yield Case(
        "an idle night with a prober that is well: silent",
        _traffic("5x900", "1x900"),
        silent=(long, long + 10),
    )
    yield Case("an idle night without a prober: silent", _traffic("5x900"), silent=(long, long + 10))
    yield Case("no series at all: silent", (), silent=(long,))
    yield Case(
        "the service is gone, which is another page's",
        _traffic("5x900", "0x900", scraped="1x10 0x900"),
        silent=(40, long + 10),
    )
    after = (*range(58, 68), 60 + window, 62 + window + waits)
    yield Case(
        "a counter reset is no lack of traffic",
        _traffic("0+5x60 0+5x900", "1x900"),
        silent=after,
    )
    yield Case(
        "a restart of the service is no lack of traffic",
        _traffic("0+5x60 stale _x2 0+5x900", "1x60 0x4 1x900", scraped="1x60 0x3 1x900"),
        silent=after,
    )


def _load_test_cases(scenario: str, long: int) -> Iterator[Case]:
    name = catalogue.QUERIES_STARTED.name
    asked = Series(name, {**full_labels(name, {}), "scenario": scenario}, "0+40x900")
    canary = {**TARGET, "job": "probe", "canary": "0"}
    results = catalogue.PROBE_RESULTS.name
    late = Series(results, {**canary, "result": str(catalogue.ProbeResult.TOO_SLOW)}, "0+1x900")
    yield Case(
        "a load test makes the prober wait, and nobody live asks: silent",
        (*_traffic("5x900"), Series(catalogue.PROBE_UP.name, canary, "0x900"), late, asked),
        silent=(long, long + 10),
    )
    yield Case(
        "the prober gets no answer at all while a load test asks: it fires",
        (*_traffic("5x900", "0x900"), asked),
        firing=(long,),
    )


def _traffic(queries: str, *probes: str, scraped: str = "1x900") -> tuple[Series, ...]:
    """Answered queries, how each canary fares (1 a step: well), and whether the service is scraped."""
    canaries = (
        series for number, values in enumerate(probes) for series in _canary(str(number), values.split())
    )
    return (*_queries(queries), *canaries, up(scraped))


def _canary(name: str, phases: Sequence[str], job: str = "probe") -> tuple[Series, ...]:
    """One that is asked at every step; ``1x5`` is five steps more at which it is well, as promtool counts."""
    labels = {**TARGET, "job": job, "canary": name}
    results: dict[str, list[Phase]] = {"success": [], "timeout": []}
    for phase in phases:
        value, _, more = phase.partition("x")
        for result, counted in results.items():
            gain = {"1": float(result == "success"), "0": float(result != "success")}.get(value, 0.0)
            counted.append(Phase(gain, int(more or 0) + 1, absent=value in ("_", "stale")))
    state = Series(catalogue.PROBE_UP.name, labels, " ".join(phases))
    return (
        state,
        *(
            Series(catalogue.PROBE_RESULTS.name, {**labels, "result": result}, counter(counted))
            for result, counted in results.items()
        ),
    )


def _probe_cases(window: int, waits: int) -> Iterator[Case]:
    long = window + waits + 2
    probes = f"1x10 0x{long - 1} 1x60"
    yield Case(
        "nobody is answered and all probes fail: it fires, and ends",
        _traffic(f"0+5x10 55x{long - 1} 60+5x60", probes, probes),
        firing=(10 + long, 10 + long + LINGERS_SCRAPES - 1),
        silent=(10, 10 + window + 2, 11 + long + LINGERS_SCRAPES + 2),
        text=Text(10 + long, 0, {"scenario": catalogue.LIVE}),
    )
    yield Case("one canary is well: silent", _traffic("5x900", "0x900", "1x900"), silent=(long, long + 10))
    well = {**TARGET, "job": "probe", "canary": "well"}
    yield Case(
        "many canaries are asked in turn, and one that was not asked in all that time is well: silent",
        (
            *_traffic("5x900", "0x900"),
            Series(catalogue.PROBE_UP.name, well, "1x900"),
            Series(catalogue.PROBE_RESULTS.name, {**well, "result": "success"}, "3x900"),
        ),
        silent=(long, long + 10),
    )
    yield Case("somebody is answered: silent", _traffic("0+1x900", "0x900"), silent=(long, long + 10))
    begun = 40
    yield Case(
        "a prober that has just begun: silent until it has failed for the whole window",
        _traffic("5x900", f"_x{begun} 0x900"),
        firing=(begun + window + waits + 2,),
        silent=(begun + 1, begun + waits + 2, begun + window + waits - 1),
    )
    yield Case(
        "a prober that fails for a while and then is gone, or no longer answers because it is stuck: silent",
        _traffic("5x900", f"1x{begun} 0x{window // 2} stale"),
        silent=(begun + waits + 2, begun + window, begun + window + waits + 2),
    )
    yield Case(
        "nothing is counted any more, though it is scraped, and all probes fail: it fires",
        _traffic("0+5x10 stale", "1x10 0x900"),
        firing=(10 + 2 * window + waits + 2,),
        silent=(10,),
    )
    yield Case(
        "the prober of another service is well: it fires all the same",
        (*_traffic("5x900", "0x900"), *_canary("staging", ["1x900"], job="staging-probe")),
        firing=(long,),
    )
    labels = {**TARGET, "job": "probe", "canary": "0"}
    yield Case(
        "a single question has failed in all that time: silent",
        (
            *_traffic("5x900"),
            Series(catalogue.PROBE_UP.name, labels, "0x900"),
            Series(catalogue.PROBE_RESULTS.name, {**labels, "result": "timeout"}, f"0x{window - 4} 1x900"),
        ),
        silent=(window + waits, long),
    )
    half = window // 2
    yield Case(
        "a restart amid it does not hide it",
        _traffic(f"5x{half} stale 0x900", f"0x{half} _x1 0x900", scraped=f"1x{half} 0x1 1x900"),
        firing=(long,),
    )


def _unanswered_cases(window: int, waits: int, enough: int) -> Iterator[Case]:
    started = catalogue.QUERIES_STARTED.name

    def asked(queries: int) -> tuple[Series, ...]:
        # One step of them, a few steps after the start, and nobody is answered.
        values = f"0x{window - 6} {queries}x900"
        return (*_traffic("5x900"), Series(started, full_labels(started, {}), values))

    yield Case(
        "as many as its minimum ask and nobody is answered: all of them have left: it fires",
        asked(enough),
        firing=(window + waits,),
        silent=(window - 6 + waits,),
    )
    yield Case("one less asks: silent", asked(enough - 1), silent=(window + waits, window + waits + 5))
