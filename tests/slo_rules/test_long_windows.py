"""Roll-ups, coverage and burn rates on a real Prometheus, in every version, with hours of four seconds.

promtool ignores the interval of a group, so what is recorded once an hour is tested nowhere else. The rules
are the committed ones with shorter hours (`faster_rules`); the events are the test's, so it knows the truth.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import pytest
import requests
import yaml
from cmo_exporter import catalogue
from cmo_slo import recorded
from cmo_slo.recorded import Window
from cmo_stack import servers
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess
from prometheus_client import CollectorRegistry, Gauge, Histogram, start_http_server
from prometheus_client import Counter as EventCounter

from .faster_rules import faster_hours, with_look_back
from .promtool_runs import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cmo_stack.servers import Server

FACTOR: Final = 900
HOUR: Final = 4.0  # seconds
LONG: Final = {
    Window.HOUR: HOUR,
    Window.SIX_HOURS: 6 * HOUR,
    Window.DAY: 24 * HOUR,
    Window.THREE_DAYS: 72 * HOUR,
    Window.MONTH: 720 * HOUR,
}
DEADLINE_SECONDS: Final = 120.0
LOOK_BACK_SECONDS: Final = 6
CANDIDATES: Final = 24
LIVE: Final = f'scenario="{catalogue.LIVE}"'
RULES: Final[dict[str, Any]] = read("rules/cmo-015-1s.yml")
RECORDED: Final = sorted(
    {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
)
Samples = list[tuple[float, float]]


def wait_for(what: str, condition: Callable[[], Any]) -> Any:
    """Ask again and again until the answer is true."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.2)
    raise AssertionError(f"not within {DEADLINE_SECONDS:g} s: {what}")


@dataclass
class Truth:
    """What has been asked of live queries."""

    success: Counter[str] = field(default_factory=Counter)
    within_2s: Counter[str] = field(default_factory=Counter)

    def of(self, objective: str) -> Counter[str]:
        counted: Counter[str] = getattr(self, objective)
        return counted

    def burn(self, objective: str) -> float:
        """The share of bad events over the 5 % that may be bad."""
        counted = self.of(objective)
        return (counted["total"] - counted["good"]) / counted["total"] / 0.05


class Service:
    """What a CMO exposes, as far as the test wants it to: at first live queries, and nothing else."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.queries = EventCounter("cmo_queries", "x", ["scenario", "outcome"], registry=registry)
        self.durations = Histogram(
            "cmo_query_duration_seconds",
            "x",
            ["scenario", "outcome"],
            buckets=catalogue.DURATION_BUCKETS_SECONDS,
            registry=registry,
        )
        start = Gauge("cmo_worker_start_time_seconds", "x", ["worker"], registry=registry)
        start.labels("0").set(time.time())
        self.calls: EventCounter | None = None
        self.truth = Truth()
        self.asked = 0
        self.add_scenario(catalogue.LIVE)
        self.server, self.thread = start_http_server(0, addr="127.0.0.1", registry=registry)

    def add_scenario(self, scenario: str) -> None:
        for outcome in catalogue.QUERY_OUTCOMES:
            self.queries.labels(scenario, outcome)
        for outcome in catalogue.DURATION_OUTCOMES:
            self.durations.labels(scenario, outcome)

    def add_metrics(self) -> None:
        """What a service exposes only later: caches, components, queues, an event loop, answers, memory."""
        registry = self.registry
        cache = EventCounter("cmo_query_cache_results", "x", ["scenario", "result"], registry=registry)
        for result in catalogue.QUERY_CACHE_RESULTS:
            cache.labels(catalogue.LIVE, result)
        cache.labels(catalogue.LIVE, "hit").inc(3)
        EventCounter("cmo_answers", "x", ["scenario", "source"], registry=registry).labels(
            catalogue.LIVE, "lightrag"
        )
        self.calls = EventCounter(
            "cmo_component_calls", "x", ["scenario", "component", "outcome"], registry=registry
        )
        self.waits = Histogram(
            "cmo_queue_wait_seconds", "x", ["component"], buckets=(0.5, 1.0), registry=registry
        )
        self.add_component("lightrag")
        Histogram("cmo_event_loop_lag_seconds", "x", buckets=(0.5, 1.0), registry=registry)
        memory = Gauge("cmo_memory_bytes", "x", ["worker", "kind"], registry=registry)
        memory.labels("0", "rss").set(500e6)

    def add_component(self, component: str) -> None:
        assert self.calls is not None
        self.calls.labels(catalogue.LIVE, component, "success").inc()
        self.waits.labels(component)

    def ask(self, outcome: str, seconds: float, *, seen: bool = True) -> None:
        """One live query; what Prometheus cannot have seen is no part of the truth that it can know."""
        self.queries.labels(catalogue.LIVE, outcome).inc()
        kind = outcome if outcome in catalogue.DURATION_OUTCOMES else "failure"
        self.durations.labels(catalogue.LIVE, kind).observe(seconds)
        if self.calls is not None:
            self.calls.labels(catalogue.LIVE, "lightrag", outcome).inc()
        if seen:
            within = seconds <= 2.0
            success = outcome == "success"
            self.truth.success.update(good=success, total=outcome != "cancelled")
            self.truth.within_2s.update(
                good=success and within, total=not (outcome == "cancelled" and within)
            )

    def ask_some(self) -> None:
        """A few queries, of which about a tenth fails, some are slow, and some are left."""
        for _ in range(3):
            turn = self.asked = self.asked + 1
            outcome = "error" if turn % 11 == 0 else "cancelled" if turn % 13 == 0 else "success"
            self.ask(outcome, 2.5 if turn % 7 == 0 else 0.2)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@dataclass
class Monitor:
    """A Prometheus with the fast rules on a folder of its own, which can be stopped and started again."""

    server: Server
    folder: Path
    target: str
    rules: dict[str, Any]
    url: str = ""
    process: ManagedProcess | None = None

    def begin(self) -> None:
        """Start it for the first time, its hours at a safe distance from its evaluations of events."""
        self.start([str(path) for path in self._write_candidates()])
        chosen = self._best_candidate()
        chosen.write_text(yaml.safe_dump(self.rules))
        self._configure([str(chosen)])
        assert self.process is not None
        requests.post(f"{self.url}/-/reload", timeout=10).raise_for_status()

    def start(self, rule_files: list[str] | None = None) -> None:
        if rule_files is not None:
            self._configure(rule_files)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.process = ManagedProcess(
            self.server.label,
            [
                str(self.server.path),
                f"--config.file={self.folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--web.enable-lifecycle",
                # As much shorter than the gap as in truth: what was scraped before it is not taken for new.
                f"--query.lookback-delta={LOOK_BACK_SECONDS - 1}s",
            ],
            log_path=self.folder / "log",
            ready=self._ready,
            environment=self.server.environment,
        ).start()

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()
            self.process = None

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        parameters = {"query": expression} | ({} if at is None else {"time": f"{at:.3f}"})
        answer = requests.get(f"{self.url}/api/v1/query", params=parameters, timeout=30).json()
        assert answer["status"] == "success", answer
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def samples(self, series: str, until: float | None = None) -> Samples:
        """All samples of one series, as stored; none where there is none yet."""
        found = self.query(f"{series}[1h]", until)
        assert len(found) <= 1, found
        return [(float(at), float(value)) for one in found for at, value in one["values"]]

    def total(self, series: str) -> float:
        return sum(value for _, value in self.samples(series))

    def _ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/-/ready", timeout=1).ok
        except requests.RequestException:
            return False

    def _configure(self, rule_files: list[str]) -> None:
        configuration = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": rule_files,
            "scrape_configs": [{"job_name": "cmo", "static_configs": [{"targets": [self.target]}]}],
        }
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))

    # Groups are evaluated side by side, each at a moment of the second that follows from its name and its
    # file's. A roll-up that comes just after an evaluation of events does not find what that is about to
    # write. So the rules get a file name by which it comes as soon after as can be.

    def _write_candidates(self) -> Iterator[Path]:
        for number in range(CANDIDATES):
            path = self.folder / f"rules-{number}.yml"
            groups = [
                {
                    "name": f"cmo-015-{part}",
                    "interval": "1s",
                    "rules": [
                        {"record": "phase", "expr": "vector(1)", "labels": {"part": part, "file": path.name}}
                    ],
                }
                for part in ("events", "hourly")
            ]
            path.write_text(yaml.safe_dump({"groups": groups}))
            yield path

    def _best_candidate(self) -> Path:
        def phases() -> dict[tuple[str, str], float]:
            found = self.query("phase[1m]")
            return {
                (one["metric"]["file"], one["metric"]["part"]): float(one["values"][-1][0]) % 1
                for one in found
            }

        wait_for("a phase of each group", lambda: len(phases()) == 2 * CANDIDATES)
        known = phases()
        distances = {
            file: (known[file, "hourly"] - moment) % 1
            for (file, part), moment in known.items()
            if part == "events"
        }
        return self.folder / min(distances, key=distances.__getitem__)


@dataclass
class Driver:
    """Asks live queries all the time, from a thread of its own, until it is told to stop."""

    service: Service
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Driver:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.03):
            self.service.ask_some()


@pytest.fixture
def service() -> Iterator[Service]:
    with ExitStack() as stack:
        driven = Service()
        stack.callback(driven.close)
        yield driven


@pytest.fixture
def monitors(service: Service, tmp_path: Path) -> Iterator[list[Monitor]]:
    """Every version of Prometheus, side by side: hours take as long for two as for one."""
    rules = with_look_back(faster_hours(RULES, FACTOR), LOOK_BACK_SECONDS)
    with ExitStack() as stack:
        started = []
        for number, server in enumerate(servers.installed("prometheus")):
            folder = tmp_path / str(number)
            folder.mkdir()
            monitor = Monitor(server, folder, service.address, rules)
            stack.callback(monitor.stop)
            monitor.begin()
            started.append(monitor)
        assert started
        yield started


def of(series: str, objective: str, window: Window | None = None) -> str:
    more = f',window="{window.value}"' if window else ""
    return f'{series}{{objective="{objective}",{LIVE}{more}}}'


def wait_for_hours(monitor: Monitor, number: int) -> None:
    """Wait for so many more roll-ups."""
    series = of(recorded.TOTAL_EVENTS_HOURLY, "success")
    wanted = len(monitor.samples(series)) + number
    wait_for(f"{number} roll-ups", lambda: len(monitor.samples(series)) >= wanted)


def wait_for_total(monitor: Monitor, series: str, events: int) -> None:
    wait_for(f"{events} events in {series}", lambda: monitor.total(series) >= events)


def wait_for_truth(monitor: Monitor, truth: Truth) -> None:
    """Wait until the roll-ups hold every query, and see that they hold none twice."""
    for objective in ("success", "within_2s"):
        counted = truth.of(objective)
        hourly = of(recorded.TOTAL_EVENTS_HOURLY, objective)
        wait_for_total(monitor, hourly, counted["total"])
        assert monitor.total(hourly) == counted["total"]
        assert monitor.total(of(recorded.GOOD_EVENTS_HOURLY, objective)) == counted["good"]
        for series, events in ((recorded.TOTAL_EVENTS, "total"), (recorded.GOOD_EVENTS, "good")):
            assert monitor.total(of(series, objective)) == counted[events]


def wait_for_burn_rate(monitor: Monitor, window: Window, objective: str, burn_rate: float) -> None:
    series = of(recorded.BURN_RATE, objective, window)
    wait_for(
        f"a burn rate of {burn_rate:g} over {window}",
        lambda: (now := monitor.samples(series)) and now[-1][1] == pytest.approx(burn_rate, abs=1e-9),
    )


# An evaluation of events, of which the last is left to the next roll-up: it may still be being written.
STEP = 1.0


def within(samples: Samples, end: float, seconds: float) -> list[float]:
    return [value for at, value in samples if end - seconds < at <= end]


def assert_roll_ups_are_hours(monitor: Monitor, objective: str) -> None:
    """Every roll-up holds what was recorded in the hour until a step ago, and how much of it that was."""
    steps = {
        recorded.GOOD_EVENTS_HOURLY: monitor.samples(of(recorded.GOOD_EVENTS, objective)),
        recorded.TOTAL_EVENTS_HOURLY: monitor.samples(of(recorded.TOTAL_EVENTS, objective)),
    }
    for hourly, source in steps.items():
        for at, value in monitor.samples(of(hourly, objective)):
            assert value == sum(within(source, at - STEP, HOUR)), (hourly, at)
    covered = monitor.samples(of(recorded.COVERED_SECONDS_HOURLY, objective))
    for at, seconds in covered:
        assert seconds == len(within(steps[recorded.TOTAL_EVENTS_HOURLY], at - STEP, HOUR)) <= HOUR


def assert_windows_are_hours(monitor: Monitor, objective: str, window: Window) -> list[int]:
    """Every value of a window is the sum of its roll-ups; returns how many roll-ups each is made of."""
    made_of = []
    for hourly, target, seconds in (
        (recorded.GOOD_EVENTS_HOURLY, recorded.GOOD_EVENTS_IN_WINDOW, 1.0),
        (recorded.TOTAL_EVENTS_HOURLY, recorded.TOTAL_EVENTS_IN_WINDOW, 1.0),
        (recorded.COVERED_SECONDS_HOURLY, recorded.COVERAGE, LONG[window]),
    ):
        hours = monitor.samples(of(hourly, objective))
        for at, value in monitor.samples(of(target, objective, window)):
            # A roll-up of the second before may have come too late for this evaluation.
            if at < hours[0][0] + 1 or within(hours, at, 1.0):
                continue
            summed = within(hours, at, LONG[window])
            assert value == pytest.approx(sum(summed) / seconds, abs=1e-9), (target, at)
            made_of.append(len(summed))
    return made_of


def assert_components_are_hours(monitor: Monitor, window: Window) -> None:
    """Calls of a component that came late are rolled up as queries are, and make up windows."""
    of_lightrag = f'indicator="success",component="lightrag",{LIVE}'
    for source, hourly, target in (
        (
            recorded.COMPONENT_GOOD_EVENTS,
            recorded.COMPONENT_GOOD_EVENTS_HOURLY,
            recorded.COMPONENT_GOOD_EVENTS_IN_WINDOW,
        ),
        (
            recorded.COMPONENT_TOTAL_EVENTS,
            recorded.COMPONENT_TOTAL_EVENTS_HOURLY,
            recorded.COMPONENT_TOTAL_EVENTS_IN_WINDOW,
        ),
    ):
        steps = monitor.samples(f"{source}{{{of_lightrag}}}")
        hours = monitor.samples(f"{hourly}{{{of_lightrag}}}")
        for at, value in hours:
            assert value == sum(within(steps, at - STEP, HOUR)), (hourly, at)
        assert sum(value for _, value in hours) > 0
        in_window = monitor.samples(f'{target}{{{of_lightrag},window="{window.value}"}}')
        assert in_window[-1][1] == sum(within(hours, in_window[-1][0], LONG[window]))


def assert_burn_rates_follow(monitor: Monitor, objective: str, *, stops: int = 0) -> None:
    """At every moment and for every window: bad over total over 5 %, and 0 where nobody has asked.

    ``stops`` is how often Prometheus was stopped, maybe in the middle of an evaluation.
    """
    until = time.time() - 1  # an evaluation that is still going on has written only some of it
    for window in LONG:
        good, total, burn = (
            dict(monitor.samples(of(series, objective, window), until))
            for series in (
                recorded.GOOD_EVENTS_IN_WINDOW,
                recorded.TOTAL_EVENTS_IN_WINDOW,
                recorded.BURN_RATE,
            )
        )
        assert burn.keys() <= total.keys()
        assert len(total.keys() - burn.keys()) <= stops
        for at, burn_rate in burn.items():
            expected = (total[at] - good[at]) / total[at] / 0.05 if total[at] else 0.0
            assert burn_rate == pytest.approx(expected, abs=1e-9)
    month = dict(monitor.samples(of(recorded.BURN_RATE, objective, Window.MONTH), until))
    remaining = monitor.samples(of(recorded.BUDGET_REMAINING, objective, Window.MONTH), until)
    assert remaining
    assert all(left == pytest.approx(1 - month[at], abs=1e-9) for at, left in remaining)


def assert_all_is_finite(monitor: Monitor) -> set[str]:
    """No sample of any recorded series is NaN or infinite; returns the names of the series that there are."""
    found = monitor.query(f'{{__name__=~"{"|".join(RECORDED)}"}}[1h]')
    for one in found:
        for at, value in one["values"]:
            assert math.isfinite(float(value)), (one["metric"], at, value)
    return {one["metric"]["__name__"] for one in found}


def wait_for_hours_of(monitors: list[Monitor], number: int) -> None:
    for monitor in monitors:
        wait_for_hours(monitor, number)


def test_hours_and_windows_hold_every_query_once(monitors: list[Monitor], service: Service) -> None:
    """Nobody asks; people ask; Prometheus is away while all fails; people ask again."""
    for monitor in monitors:
        assert_idle_hours(monitor)

    with Driver(service):
        wait_for_hours_of(monitors, 2)
        service.add_metrics()
        service.add_scenario("academic_research")
        wait_for_hours_of(monitors, 2)
        service.add_component("perplexity")
        wait_for_hours_of(monitors, 2)
    for monitor in monitors:
        wait_for_truth(monitor, service.truth)
        assert_busy_hours(monitor, service.truth)

    last = [monitor.samples(of(recorded.TOTAL_EVENTS_HOURLY, "success"))[-1][0] for monitor in monitors]
    back = miss_two_hours(monitors, service)
    with Driver(service):
        wait_for_hours_of(monitors, 2)
    for monitor, last_hour in zip(monitors, last, strict=True):
        wait_for_truth(monitor, service.truth)
        assert_hours_around_a_gap(monitor, service.truth, last_hour, back)


def assert_idle_hours(monitor: Monitor) -> None:
    """Nobody asks, and most metrics are absent."""
    wait_for_hours(monitor, 1)
    wait_for_burn_rate(monitor, Window.MONTH, "success", 0.0)
    assert {value for _, value in monitor.samples(of(recorded.BURN_RATE, "success", Window.HOUR))} == {0.0}
    left = monitor.samples(of(recorded.BUDGET_REMAINING, "success", Window.MONTH))
    assert {value for _, value in left} == {1.0}
    assert_all_is_finite(monitor)


def assert_busy_hours(monitor: Monitor, truth: Truth) -> None:
    """Some hours have been busy, in which metrics, a scenario and a component came late."""
    for objective in ("success", "within_2s"):
        burn_rate = truth.burn(objective)
        assert burn_rate > 1
        wait_for_burn_rate(monitor, Window.MONTH, objective, burn_rate)
        wait_for_burn_rate(monitor, Window.HOUR, objective, 0.0)  # idle again
        assert_roll_ups_are_hours(monitor, objective)
        assert 6 in assert_windows_are_hours(monitor, objective, Window.SIX_HOURS)
        assert_windows_are_hours(monitor, objective, Window.MONTH)
        assert_burn_rates_follow(monitor, objective)
    assert_components_are_hours(monitor, Window.DAY)
    coverage = monitor.samples(of(recorded.COVERAGE, "success", Window.SIX_HOURS))
    assert max(value for _, value in coverage) >= 0.8
    assert max(value for _, value in coverage) <= 1

    names = assert_all_is_finite(monitor)
    assert names >= {recorded.BURN_RATE, recorded.ALERT_TOTAL_EVENTS, recorded.SLOW_EVENTS_IN_WINDOW}
    late = monitor.query(f'{recorded.ALERT_TOTAL_EVENTS}{{component="perplexity"}}[1h]')
    assert {one["metric"]["alert"] for one in late} == {"CMOComponentTimeouts", "CMOQueueSaturated"}
    assert monitor.query(f'{recorded.TOTAL_EVENTS}{{scenario="academic_research"}}[1h]')


def miss_two_hours(monitors: list[Monitor], service: Service) -> float:
    """Every Prometheus is away while everything fails; returns when they came back."""
    for monitor in monitors:
        monitor.stop()
    for _ in range(50):
        service.ask("error", 0.2, seen=False)
    back = time.time() + 2 * HOUR
    wait_for("two hours to pass", lambda: time.time() > back)
    for monitor in monitors:
        monitor.start()
    for monitor in monitors:
        wait_until_recorded_after(monitor, back)
    return back


def wait_until_recorded_after(monitor: Monitor, moment: float) -> None:
    series = of(recorded.TOTAL_EVENTS, "success")
    wait_for("events to be recorded again", lambda: monitor.samples(series)[-1][0] > moment)


def assert_hours_around_a_gap(monitor: Monitor, truth: Truth, last_hour: float, back: float) -> None:
    """What nobody has seen counts for nothing: the gap lowers coverage and no ratio."""
    for objective in ("success", "within_2s"):
        wait_for_burn_rate(monitor, Window.MONTH, objective, truth.burn(objective))
        assert_roll_ups_are_hours(monitor, objective)
        assert_windows_are_hours(monitor, objective, Window.SIX_HOURS)
        assert_burn_rates_follow(monitor, objective, stops=1)
    steps = monitor.samples(of(recorded.TOTAL_EVENTS, "success"))
    gone = max(after - before for (before, _), (after, _) in pairwise(steps))
    assert gone > 2 * HOUR
    hour = monitor.samples(of(recorded.COVERAGE, "success", Window.HOUR))
    assert max(value for at, value in hour if at < last_hour + HOUR) == 1
    assert min(value for at, value in hour if at > back) < 1
    # What is covered is what is left of the whole time.
    covered = monitor.samples(of(recorded.COVERED_SECONDS_HOURLY, "success"))
    assert 0 < sum(seconds for _, seconds in covered) <= covered[-1][0] - steps[0][0] - gone + 2
    assert_all_is_finite(monitor)
