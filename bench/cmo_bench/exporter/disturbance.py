"""Whether being scraped slows the service: the slowest requests, with and without a scrape each second."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from typing import TYPE_CHECKING, Final

from cmo_bench.exporter import variants
from cmo_bench.exporter.children import ChildError
from cmo_bench.exporter.figures import Spread, estimate
from cmo_bench.exporter.laboratory import turns
from cmo_bench.exporter.load import CONNECTIONS
from cmo_bench.exporter.report import Section, Target, table
from cmo_bench.exporter.scraping import scrape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cmo_bench.exporter.laboratory import Laboratory

_WITHOUT, _WITH = "without scrapes", "scraped every second"
_FIRST_AFTER_SECONDS: Final = 0.5
_INTERVAL_SECONDS: Final = 1.0
_LIMIT: Final = 1.05
_MILLISECONDS: Final = 1e3


def scrapes_and_the_slowest_requests(laboratory: Laboratory) -> Section:
    """Load one service for slices of time in turns: with scrapes, and without."""
    effort = laboratory.effort
    slices: dict[str, list[list[float]]] = {_WITHOUT: [], _WITH: []}
    with laboratory.subject(variants.OURS) as subject:
        url, port = subject.ask("metrics_url")["url"], subject.ask("serve")["port"]
        laboratory.load.ask("requests", port, effort.warm_up)
        subject.ask("odd_requests")
        laboratory.settle(subject)
        for turn in turns(tuple(slices), effort.slices, "scrapes and P99"):
            for name in turn:
                with _scraped(url) if name == _WITH else contextlib.nullcontext():
                    answer = laboratory.load.ask("seconds", port, effort.slice_seconds)
                slices[name].append(answer["latencies"])

    p99s = {name: [_p99(one) * _MILLISECONDS for one in slices[name]] for name in slices}
    moved = [after / before for after, before in zip(p99s[_WITH], p99s[_WITHOUT], strict=True)]
    rows = [
        (
            name,
            str(sum(map(len, slices[name]))),
            f"{_p99([latency for one in slices[name] for latency in one]) * _MILLISECONDS:.2f}",
            str(Spread.of(p99s[name])),
        )
        for name in slices
    ]
    promise = "Scraping every second moves the service's P99 by at most 5 %: P99 with scrapes, over without"
    return Section(
        "Scrapes and the slowest requests",
        f"One worker under {CONNECTIONS} connections as above, in turn for {effort.slice_seconds:g} s "
        "without a scrape and as long with one every second. The target is judged by the median of pairs.",
        table(("", "requests", "P99 in ms", "P99 of a slice: median (quartiles)"), rows),
        (
            Target.at_most(
                promise,
                estimate(effort.slices, lambda pairs: statistics.median([moved[pair] for pair in pairs])),
                _LIMIT,
            ),
        ),
    )


def _p99(latencies: Sequence[float]) -> float:
    return sorted(latencies)[int(len(latencies) * 0.99)]


@contextlib.contextmanager
def _scraped(url: str) -> Iterator[None]:
    """Meanwhile, something scrapes every second.

    Raises:
        ChildError: nothing was scraped meanwhile.
    """
    stop = threading.Event()
    done: list[int] = []

    def scrape_on() -> None:
        at = time.monotonic() + _FIRST_AFTER_SECONDS
        while not stop.wait(max(0.0, at - time.monotonic())):
            done.append(len(scrape(url)))
            at += _INTERVAL_SECONDS

    scraper = threading.Thread(target=scrape_on)
    scraper.start()
    try:
        yield
    finally:
        stop.set()
        scraper.join()
    if not done:
        raise ChildError("Nothing was scraped in a slice that should have been scraped.")
