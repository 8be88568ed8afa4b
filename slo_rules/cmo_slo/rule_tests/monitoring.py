"""Cases of the alerts on the monitor itself: scrapes that fail, load tests, the sign of life."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmo_exporter import catalogue

from cmo_slo.durations import HOUR, MINUTE, parse_duration
from cmo_slo.rule_tests.case import TARGET, Case, Series, Text
from cmo_slo.rule_tests.stimulus import full_labels, up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_slo.alerts.alert import Surroundings
    from cmo_slo.alerts.scrape import ScrapeAlert


def scrape_cases(alert: ScrapeAlert, surroundings: Surroundings, step: int) -> Iterator[Case]:
    """Targets that are not scraped; a step is an evaluation of tickets."""
    window = parse_duration(alert.window) // step
    waits, lingers = (-(-surroundings.interval * scrapes // step) for scrapes in (4, 8))
    first = alert.jobs[0]
    counted = tuple(_queries(instance) for instance in (TARGET["instance"], "b"))
    others = (*counted, *(up("1x200", job=job) for job in alert.jobs[1:]))
    # All scrapes of a window have failed; Prometheus 2 has one more of them in a window.
    down = window + waits + 2
    back = 41 + down
    yield Case(
        "a target is down: it fires, and ends",
        (up(f"1x40 0x{down - 1} 1x60", job=first), *others),
        firing=(41 + window + waits, back + lingers - 1),
        silent=(40, 41 + window - 1, back + lingers),
        text=Text(41 + window + waits, 0, {"job": first, "instance": TARGET["instance"]}),
    )
    fires = window + waits + 1
    yield Case(
        "one of two targets is down: it fires",
        (up("1x200", job=first), up("0x200", job=first, instance="b"), *others),
        firing=(fires,),
    )
    yield Case(
        "a scrape fails now and then: silent",
        (up(f"1x40 0x{window - 2} 1x60", job=first), *others),
        silent=(40 + window - 1, 46, 70),
    )
    longer = 6 * window
    yield Case(
        "a deploy has replaced a target, whose last scrapes failed: silent",
        (up("1x40 0x2 stale", job=first), up("_x40 1x200", job=first, instance="b"), *others),
        silent=(*range(42, 44 + window), *range(41 + longer, 45 + longer)),
    )
    yield from _often_failing_cases(first, others)
    for absent in alert.jobs:
        yield Case(
            f"the job {absent} has no target: it fires",
            (*counted, *(up("1x200", job=job) for job in alert.jobs if job != absent)),
            firing=(fires,),
        )
    yield Case(
        "scrapes of the service hold nothing of queries: it fires",
        (up("1x200", job=surroundings.job), *others[len(counted) :]),
        firing=(fires,),
        text=Text(fires, 1, {"job": surroundings.job, "instance": TARGET["instance"]}),
    )
    yield Case(
        "for a while they hold nothing of queries: silent",
        (_queries("a", f"0x40 _x{window - 2} 0x60"), up("1x200", job=surroundings.job), *others[1:]),
        silent=(40 + window, 42 + window, 44 + window),
    )
    yield Case("no series at all: it fires for every job", (), firing=(fires,), alerts=len(alert.jobs))
    yield Case(
        "a target that starts slowly: silent", (up("0x2 1x60", job=first), *others), silent=(2, 4, 6, 10)
    )
    yield Case("all is scraped, and idle: silent", (up("1x200", job=first), *others), silent=(fires, 40))
    yield Case(
        "a restart of the service: silent",
        (up("1x40 0x1 1x60", job=first), *others),
        silent=(40, 42, 44, 50),
    )
    yield Case(
        "a target that is down is restarted in vain: it fires on",
        (up(f"1x40 0x{down - 1} stale 0x{window}", job=first), *others),
        firing=(back - 1, back, back + 2, back + window),
    )


def _queries(instance: str, values: str = "0x200") -> Series:
    """That the service counts queries, though there are none."""
    name = catalogue.QUERIES.name
    return Series(name, {**full_labels(name, {}), "instance": instance}, values)


def _often_failing_cases(first: str, others: tuple[Series, ...]) -> Iterator[Case]:
    """A share of scrapes fails for long: the longer window is half an hour."""
    for every, name, fires in ((3, "third", True), (4, "fourth", False)):
        seldom, often = [1, 1, 1, 1, 1, 0] * 6, ([1] * (every - 1) + [0]) * 15
        yield Case(
            f"every {name} scrape fails for long: {'it fires' if fires else 'silent'}",
            (up(" ".join(map(str, seldom + often)), job=first), *others),
            firing=(36 + 40,) if fires else (),
            silent=(35,) if fires else (35, 60, 36 + 40, 90),
        )


def load_test_cases(scenarios: tuple[str, ...]) -> Iterator[Case]:
    """Queries of a scenario; a step is a minute."""
    name = catalogue.QUERIES_STARTED.name
    lingers = HOUR // MINUTE

    def series(scenario: str, values: str) -> tuple[Series, ...]:
        return (Series(name, full_labels(name, {"scenario": scenario}), values),)

    for scenario in scenarios:
        yield Case(
            f"{scenario} is asked for: it fires", series(scenario, "0x5 1x5"), firing=(6, 7), silent=(5,)
        )
    yield Case(
        "a load test is over: it fires on for an hour, and ends",
        series(scenarios[0], f"0x2 300x{lingers + 5}"),
        firing=(3, 3 + lingers),
        silent=(2, 3 + lingers + 1),
    )
    yield Case("it says how many queries", series(scenarios[0], "0x2 60x5"), text=Text(3, 60))
    yield Case("live queries are no load test", series(catalogue.LIVE, "0+90x10"), silent=(5, 10))
    yield Case("no series at all: silent", (), silent=(5,))
    yield Case(
        "idle, with counts of an earlier load test: silent", series(scenarios[0], "300x10"), silent=(5, 10)
    )
    yield Case("a counter reset: silent", series(scenarios[0], "300x5 0x5"), silent=(5, 6, 7, 10))
    yield Case(
        "a restart of the service: silent",
        series(scenarios[0], "300x5 stale _x2 0x5"),
        silent=(5, 7, 9, 10, 13),
    )
    yield Case(
        "a restart amid a load test does not hide it",
        series(scenarios[0], "0x2 stale 40x5"),
        firing=(4, 9),
        silent=(2,),
    )


def watchdog_cases() -> Iterator[Case]:
    """It fires, whatever happens."""
    yield Case("without any series", (), firing=(1, 10), text=Text(10, 1))
    yield Case("while all targets are down", (up("0x10"),), firing=(10,))
    yield Case("through a restart of the service", (up("1x3 0x2 1x3"),), firing=(3, 5, 8))
