"""Whether being scraped slows the service: the slowest requests, with and without a scrape each second.

Whoever scrapes takes time from the client that measures, which a Prometheus on another machine would not. So
while the service is not scraped, a stand-in is that answers the same: what is left is the service's share.
"""

from __future__ import annotations

import contextlib
import os
import socket
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
_REQUEST_BYTES: Final = 65536


def scrapes_and_the_slowest_requests(laboratory: Laboratory) -> Section:
    """Load one service for slices of time in turns: with scrapes, and without."""
    effort = laboratory.effort
    slices: dict[str, list[list[float]]] = {_WITHOUT: [], _WITH: []}
    with contextlib.ExitStack() as stack:
        subject = stack.enter_context(laboratory.subject(variants.OURS))
        url, port = subject.ask("metrics_url")["url"], subject.ask("serve")["port"]
        laboratory.load.ask("requests", port, effort.warm_up)
        subject.ask("odd_requests")
        laboratory.settle(subject)
        stand_in = stack.enter_context(_stand_in(scrape(url), laboratory.other_core))
        scraped = {_WITHOUT: stand_in, _WITH: url}
        for turn in turns(tuple(slices), effort.slices, "scrapes and P99"):
            for name in turn:
                with _scraped(scraped[name], laboratory.other_core):
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
        "without a scrape and as long with one every second. Without one, a stand-in is scraped that answers "
        "the same, for whoever scrapes takes time from the client. The target is judged by the median of "
        "pairs.",
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
def _scraped(url: str, core: int | None) -> Iterator[None]:
    """Meanwhile, something scrapes every second, on this core.

    Raises:
        ChildError: nothing was scraped meanwhile.
    """
    stop = threading.Event()
    done: list[int] = []

    def scrape_on() -> None:
        _stay_on(core)
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


@contextlib.contextmanager
def _stand_in(text: str, core: int | None) -> Iterator[str]:
    """Something that answers every scrape with this text; yields its address."""
    body = text.encode()
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body

    def serve() -> None:
        _stay_on(core)
        with contextlib.suppress(OSError):  # how it hears of its end
            while True:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(_REQUEST_BYTES)
                    connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=serve)
        server.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/metrics"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            server.join()


def _stay_on(core: int | None) -> None:
    """Keep this thread on a core."""
    if core is not None:
        os.sched_setaffinity(threading.get_native_id(), {core})
