"""How long a scrape takes and how many series it brings, beside prometheus-client's own metrics."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from cmo_bench.exporter import variants
from cmo_bench.exporter.children import Child
from cmo_bench.exporter.figures import Rounds, Spread
from cmo_bench.exporter.laboratory import turns
from cmo_bench.exporter.ordinary import series
from cmo_bench.exporter.report import Section, Target, Verdict, table
from cmo_bench.exporter.scraping import ACCEPT, scrape

if TYPE_CHECKING:
    from cmo_bench.exporter.laboratory import Laboratory

_WORKERS: Final = 4
_SERIES_LIMIT: Final = 3000
_MILLISECONDS: Final = 1e3
_PLAIN: Final = "text/plain;version=0.0.4"

_ONE: Final = "one worker, over HTTP"
_SEVERAL: Final = f"{_WORKERS} workers, over HTTP"
_ORDINARY: Final = {
    _ONE: "prometheus-client, the series of one worker, without HTTP",
    _SEVERAL: f"prometheus-client, the series of {_WORKERS} workers, without HTTP",
}


def scrapes(laboratory: Laboratory) -> Section:
    """Scrape one worker, and several that share their storage, in turns with prometheus-client."""
    measured: dict[str, list[float]] = {name: [] for kind in _ORDINARY for name in (kind, _ORDINARY[kind])}
    counts = {}
    with contextlib.ExitStack() as stack:
        urls = {
            _ONE: _started(laboratory, stack, variants.OURS, 1),
            _SEVERAL: _started(laboratory, stack, variants.OURS_SHARED, _WORKERS),
        }
        ordinary = {}
        for kind, url in urls.items():
            text = scrape(url, _PLAIN)
            ordinary[kind] = stack.enter_context(_ordinary(laboratory, text))
            counts[kind], counts[_ORDINARY[kind]] = series(text), ordinary[kind].ask("render")["series"]
            laboratory.keep(ordinary[kind])
        for turn in turns(tuple(urls), laboratory.effort.scrapes, "scrapes"):
            for kind in turn:
                measured[kind].append(_scrape_seconds(urls[kind]) * _MILLISECONDS)
                seconds = ordinary[kind].ask("render")["seconds"]
                measured[_ORDINARY[kind]].append(seconds * _MILLISECONDS)
    return Section(
        "Scrapes",
        "The full catalogue with the settings of the reference service, in the format that Prometheus asks "
        "for. Ours is the whole scrape, from the connection to the last byte; prometheus-client is one "
        "process that renders ordinary counters, gauges and histograms with the same names and labels.",
        table(
            ("", "series", "ms: median (quartiles)"),
            [(name, str(counts[name]), str(Spread.of(measured[name]))) for name in measured],
        ),
        (_series_target(counts[_ONE]), _time_target(Rounds(measured, _SEVERAL))),
    )


def _series_target(found: int) -> Target:
    promise = f"Under {_SERIES_LIMIT:,} series a worker"
    return Target(promise, f"{found:,}", Verdict.HOLDS if found < _SERIES_LIMIT else Verdict.FAILED)


def _time_target(milliseconds: Rounds) -> Target:
    promise = f"A scrape of {_WORKERS} workers takes no longer than prometheus-client needs for one process"
    return Target.at_most(promise, milliseconds.ratio(_SEVERAL, _ORDINARY[_SEVERAL]), 1.0)


def _started(laboratory: Laboratory, stack: contextlib.ExitStack, variant: str, workers: int) -> str:
    """Start workers that have served requests of every kind; returns where one of them is scraped."""
    directory = laboratory.directory / f"scraped-{variant}"
    directory.mkdir()
    subjects = [
        stack.enter_context(laboratory.subject(variant, directory=directory, worker=str(worker)))
        for worker in range(workers)
    ]
    urls = []
    for subject in subjects:
        subject.ask("requests", laboratory.effort.warm_up)
        subject.ask("odd_requests")
        laboratory.settle(subject)
        urls.append(subject.ask("metrics_url")["url"])
    return str(urls[0])


def _ordinary(laboratory: Laboratory, text: str) -> Child:
    path = laboratory.directory / f"exposition-{len(text)}.txt"
    path.write_text(text, encoding="utf-8")
    log = laboratory.directory / "ordinary.log"
    return Child("ordinary", str(path), ACCEPT, log=log)


def _scrape_seconds(url: str) -> float:
    began = time.perf_counter()
    scrape(url)
    return time.perf_counter() - began
