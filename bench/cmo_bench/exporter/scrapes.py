"""How long a scrape takes and how many series it brings, beside prometheus-client's own metrics."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from cmo_bench.exporter import variants
from cmo_bench.exporter.children import Child
from cmo_bench.exporter.comparison import NO_SHARED_STORAGE
from cmo_bench.exporter.disturbance import ACCEPT, scrape
from cmo_bench.exporter.figures import Rounds, Spread
from cmo_bench.exporter.laboratory import measurable, turns
from cmo_bench.exporter.ordinary import series
from cmo_bench.exporter.report import Section, Target, Verdict, table

if TYPE_CHECKING:
    from cmo_bench.exporter.laboratory import Laboratory

_WORKERS: Final = 4
_SERIES_LIMIT: Final = 3000
_MILLISECONDS: Final = 1e3
_PLAIN: Final = "text/plain;version=0.0.4"

_ONE: Final = "one worker, over HTTP"
_FOUR: Final = f"{_WORKERS} workers, over HTTP"
_ORDINARY: Final = "prometheus-client in one process, rendering alone, the same series as {}"


def scrapes(laboratory: Laboratory) -> Section:
    """Scrape one worker, and several that share their storage, in turns with prometheus-client."""
    has_shared = variants.OURS_SHARED in measurable()
    kinds = [_ONE, _FOUR] if has_shared else [_ONE]
    with contextlib.ExitStack() as stack:
        urls = {_ONE: _started(laboratory, stack, variants.OURS, 1)}
        if has_shared:
            urls[_FOUR] = _started(laboratory, stack, variants.OURS_SHARED, _WORKERS)
        texts = {kind: scrape(urls[kind], _PLAIN) for kind in kinds}
        counts = {kind: series(texts[kind]) for kind in kinds}
        ordinary = {kind: stack.enter_context(_ordinary(laboratory, texts[kind])) for kind in kinds}
        for child in ordinary.values():
            child.ask("")
            if laboratory.measured_core is not None:
                child.keep_on(laboratory.measured_core)
        measured: dict[str, list[float]] = {}
        names = [*kinds, *(_ORDINARY.format(kind.partition(",")[0]) for kind in kinds)]
        for turn in turns(names, laboratory.effort.scrapes, "scrapes"):
            for name in turn:
                kind = kinds[names.index(name) % len(kinds)]
                seconds = _scrape_seconds(urls[kind]) if name in kinds else ordinary[kind].ask("")["seconds"]
                measured.setdefault(name, []).append(seconds * _MILLISECONDS)
        counts |= {
            names[len(kinds) + turn]: ordinary[kind].ask("")["series"] for turn, kind in enumerate(kinds)
        }
    rows = [(name, str(counts[name]), str(Spread.of(measured[name]))) for name in names]
    return Section(
        "Scrapes",
        "The full catalogue with the settings of the reference service, in the format that Prometheus asks "
        "for. Ours is the whole scrape, from the connection to the last byte; prometheus-client's is the "
        "rendering alone, without a connection.",
        table(("", "series", "ms: median (quartiles)"), rows),
        (_series_target(counts[_ONE]), _time_target(measured, names)),
    )


def _series_target(found: int) -> Target:
    promise = f"Under {_SERIES_LIMIT:,} series a worker"
    return Target(promise, f"{found:,}", Verdict.HOLDS if found < _SERIES_LIMIT else Verdict.FAILED)


def _time_target(measured: dict[str, list[float]], names: list[str]) -> Target:
    promise = (
        f"A scrape of {_WORKERS} workers takes no longer than prometheus-client needs to render "
        "as many series of one process"
    )
    if _FOUR not in measured:
        return Target(promise, NO_SHARED_STORAGE, Verdict.NOT_MEASURED)
    return Target.at_most(promise, Rounds(measured, _FOUR).ratio(_FOUR, names[-1]), 1.0)


def _started(laboratory: Laboratory, stack: contextlib.ExitStack, variant: str, workers: int) -> str:
    """Start workers that have served requests of every kind; returns where one of them is scraped."""
    directory = laboratory.directory / f"scraped-{variant}"
    directory.mkdir()
    urls = []
    for worker in range(workers):
        subject = stack.enter_context(laboratory.subject(variant, directory=directory, worker=str(worker)))
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
