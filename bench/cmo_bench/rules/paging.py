"""From live queries failing to the page at the receiver, on servers as they are deployed.

Each time is of a service, a Prometheus and an Alertmanager that were started for it: nothing is left of the
time before, and nothing has to recover. The fault comes when the page's long window is full of good answers,
at a random moment between two scrapes.
"""

from __future__ import annotations

import random
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click
from cmo_slo import recorded

from cmo_bench.exporter.report import Section, Target, Verdict, table
from cmo_bench.rules.server import MeasurementError
from cmo_bench.rules.service import FAILING_SHARE, QUERIES_PER_SECOND
from cmo_bench.rules.watched import Watched

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ALERT: Final = "CMOLiveQueriesFailing"
_OBJECTIVE: Final = "success"
_START_SECONDS: Final = 120.0
_LONGEST_SECONDS: Final = 300.0
_LOOK_SECONDS: Final = 1.0
_LONG_WINDOW: Final = f'max({recorded.WINDOW_SECONDS}{{objective="{_OBJECTIVE}",window="long"}})'
_EVALUATIONS: Final = (
    f'max(count_over_time({recorded.TOTAL_EVENTS}{{objective="{_OBJECTIVE}",scenario="live"}}[1h]))'
)


@dataclass(frozen=True)
class Pace:
    """How often everything is scraped and evaluated, and what is promised of it.

    Attributes:
        interval_seconds: of scrapes and evaluations.
        limit_seconds: what the time to the page may be on average.
        side_by_side: how many services are watched at once.
    """

    interval_seconds: int
    limit_seconds: float
    side_by_side: int


PACES: Final = (Pace(1, 4.0, 4), Pace(15, 60.0, 20))
"""The two files that are committed. At 15 s, twenty sets of servers are hardly busy; at 1 s, four are."""


def paging(directory: Path, paces: Sequence[Pace], repetitions: int) -> Section:
    """Measure each pace so many times.

    Raises:
        MeasurementError: a server does not start, or pages before anything has failed.
    """
    rows, targets = [], []
    for pace in paces:
        times = times_to_page(pace, directory / f"every-{pace.interval_seconds}s", repetitions)
        rows.append(_row(pace, times))
        targets.append(_target(pace, times))
    return Section(
        "From fault to page",
        f"A service is asked {QUERIES_PER_SECOND} live queries a second; from one moment on "
        f"{FAILING_SHARE:.0%} of them fail. Seconds from that moment to the notification of {ALERT} at "
        "the webhook receiver, with the committed rules, Alertmanager routes and Prometheus jobs. Every "
        "time is of servers started for it, whose long window is full of good answers, and the fault "
        "comes at a random moment between two scrapes; as many sets of servers run at once as the table "
        "says.",
        table(
            ("scrapes and evaluations", "times", "at once", "mean s", "median s", "shortest", "longest"), rows
        ),
        tuple(targets),
    )


def times_to_page(pace: Pace, directory: Path, repetitions: int) -> list[float]:
    """Seconds to the page, each time with fresh servers; infinite where no page has come. Shows progress.

    Raises:
        MeasurementError: a server does not start, or pages before anything has failed.
    """
    stopped = threading.Event()
    with ThreadPoolExecutor(pace.side_by_side) as pool:
        try:
            times = [
                pool.submit(_time_to_page, pace, directory / str(number), stopped)
                for number in range(repetitions)
            ]
            label = f"times to the page, every {pace.interval_seconds} s"
            with click.progressbar(times, label=label, file=sys.stderr) as shown:
                return [future.result() for future in shown]
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _time_to_page(pace: Pace, directory: Path, stopped: threading.Event) -> float:
    with Watched(directory, pace.interval_seconds) as watched:
        _wait_for_full_windows(watched, pace, stopped)
        stopped.wait(random.uniform(0, pace.interval_seconds))  # noqa: S311 - not secrets
        if watched.receiver.firing_since(ALERT) is not None:
            raise MeasurementError(f"{ALERT} has paged before anything failed.")
        began: float = watched.service.ask("fail")
        deadline = time.monotonic() + _LONGEST_SECONDS
        came = None
        while came is None and time.monotonic() < deadline and not stopped.is_set():
            came = watched.receiver.firing_since(ALERT, _LOOK_SECONDS)
        return float("inf") if came is None else came - began


def _wait_for_full_windows(watched: Watched, pace: Pace, stopped: threading.Event) -> None:
    """Wait until the long window of the page has been evaluated as often as it has scrapes."""
    deadline = time.monotonic() + _START_SECONDS
    wanted = None
    while not stopped.wait(pace.interval_seconds / 2):
        window = watched.value(_LONG_WINDOW)
        evaluations = watched.value(_EVALUATIONS) or 0.0
        if window is not None and wanted is None:
            wanted = window / pace.interval_seconds
            deadline += window
        if wanted is not None and evaluations > wanted:
            return
        if time.monotonic() > deadline:
            raise MeasurementError(
                f"The long window of {ALERT} has not filled: {evaluations:.0f} evaluations of {wanted}."
            )


def _row(pace: Pace, times: Sequence[float]) -> tuple[str, ...]:
    numbers = (statistics.mean(times), statistics.median(times), min(times), max(times))
    return (
        f"every {pace.interval_seconds} s",
        str(len(times)),
        str(min(pace.side_by_side, len(times))),
        *(f"{number:.2f}" for number in numbers),
    )


def _target(pace: Pace, times: Sequence[float]) -> Target:
    mean = statistics.mean(times)
    return Target(
        "From half of the live queries failing to the page, on average, with the "
        f"{pace.interval_seconds} s files",
        f"{mean:.1f} s; at most {pace.limit_seconds:g} s",
        Verdict.HOLDS if mean <= pace.limit_seconds else Verdict.FAILED,
    )
