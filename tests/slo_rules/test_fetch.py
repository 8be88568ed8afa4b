"""Fetching waits for what a run still owes, no longer than told, and reads enough for the counts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from cmo_slo.count import count_scenario
from cmo_slo.fetch import Fetcher, Source
from cmo_slo.judge import judge
from cmo_slo.objectives import find_objectives, load_objectives
from cmo_slo.prometheus import DataSourceError, Prometheus
from cmo_slo.samples import Reading, find_targets
from cmo_slo.verdict import Outcome
from hypothesis import given
from hypothesis import strategies as st

from .exposition import Answers
from .scripted import EPOCH, World, four, load

if TYPE_CHECKING:
    from cmo_slo.manifest import Run
    from cmo_slo.samples import Evidence

CMO_015 = load_objectives(find_objectives("cmo-015"))


@dataclass
class Past:
    """Answers queries from a scripted world, as if it were ``now``; time passes when somebody sleeps."""

    world: World
    now: float
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.everything = {
            reading.query.partition("{")[0]: reading for reading in self.world.evidence().readings
        }

    def raw(self, selector: str, *, since: float, until: float) -> Reading:
        self.asked.append(selector)
        name = selector.partition("{")[0]
        found = self.everything.get(name)
        series = []
        for one in found.series if found else ():
            points = {at: value for at, value in one.points.items() if since <= at <= min(until, self.now)}
            if points:
                series.append(replace(one, points=points))
        return Reading(selector, until, tuple(series))

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def fetch(past: Past, wait: float | None = None, said: list[str] | None = None) -> Evidence:
    run = past.world.run()
    fetcher = Fetcher(
        past,  # type: ignore[arg-type]
        Source('job="cmo"'),
        wait,
        (said if said is not None else []).append,
        lambda: past.now,
        past.sleep,
    )
    return fetcher.fetch(run, run.scenarios, CMO_015)


@pytest.mark.parametrize("interval", [1.0, 5.0, 15.0])
def test_it_waits_until_the_run_has_come_to_rest(interval: float) -> None:
    world = four(interval=interval)
    end = world.run().end
    said: list[str] = []
    past = Past(world, now=end)
    evidence = fetch(past, said=said)
    assert end + interval < past.now <= end + 3 * interval + 5.0
    assert len(said) == 1
    assert said[0].startswith("waiting up to ")
    found = find_targets(evidence, world.run().start)
    for scenario in world.run().scenarios:
        assert count_scenario(found.targets, scenario).problems == ()


def test_it_waits_no_longer_than_told_and_then_says_so() -> None:
    world = four(interval=15.0)
    past = Past(world, now=world.run().end)
    evidence = fetch(past, wait=2.0)
    assert past.now <= world.run().end + 2.5
    verdict = judge(CMO_015, world.run(), evidence)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    reasons = [unit.reason for result in verdict.results for unit in result.units]
    assert any("give it more time with --wait" in reason for reason in reasons)


def test_an_old_run_is_read_at_once_and_not_up_to_today() -> None:
    world = four()
    past = Past(world, now=EPOCH + 90_000.0)
    evidence = fetch(past, wait=0.0)
    assert past.now == EPOCH + 90_000.0
    assert evidence.evaluation_time <= world.run().end + 10.0
    assert judge(CMO_015, world.run(), evidence).outcome is Outcome.COMPLIANT


def test_a_manifest_of_the_future_is_not_waited_for() -> None:
    world = four()
    past = Past(world, now=world.run().start - 86_400.0)
    started = past.now
    fetch(past, wait=5.0)
    assert past.now - started < 7.0


def test_live_and_foreign_scenarios_are_not_even_read() -> None:
    past = Past(World((load(),)), now=EPOCH + 500.0)
    fetch(past)
    matched = [selector for selector in past.asked if "scenario=~" in selector]
    assert matched
    assert all('job="cmo",scenario=~"academic_research"' in selector for selector in matched)


@dataclass
class Clocks:
    """A data source that tells nothing but the time, after a round trip; in steps of `resolution`, if any."""

    ahead: float
    round_trip: float
    resolution: float = 0.0
    here: float = 1000.0
    url: str = "http://there"

    def now(self) -> float:
        self.here += self.round_trip / 2
        told = self.here + self.ahead
        self.here += self.round_trip / 2
        return told // self.resolution * self.resolution if self.resolution else told

    def sleep(self, seconds: float) -> None:
        self.here += seconds

    def fetcher(self) -> Fetcher:
        return Fetcher(self, Source(""), clock=lambda: self.here, sleep=self.sleep)  # type: ignore[arg-type]


def run_of_this_host() -> Run:
    text = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return replace(four().run(), host=hashlib.sha256(text.encode()).hexdigest()[:16])


@given(st.floats(-5.0, 5.0), st.floats(0.0, 1.0), st.floats(0.001, 0.1))
def test_a_clock_of_whole_seconds_is_compared_when_it_goes_on(
    ahead: float, begun: float, round_trip: float
) -> None:
    """VictoriaMetrics tells the time in whole seconds, which would be taken for a clock that is behind."""
    clocks = Clocks(ahead, round_trip, resolution=1.0, here=1000.0 + begun)
    compared = clocks.fetcher().compare_clocks(run_of_this_host())
    assert compared.difference_seconds == pytest.approx(ahead, abs=compared.uncertainty_seconds + 1e-6)
    assert compared.uncertainty_seconds <= round_trip + 0.01


def test_a_clock_that_stands_still_is_no_clock() -> None:
    clocks = Clocks(0.0, 0.01, resolution=1e6)
    with pytest.raises(DataSourceError, match="http://there stands still at 0"):
        clocks.fetcher().compare_clocks(run_of_this_host())


@pytest.mark.parametrize("ending", ["", "\n"])
@pytest.mark.parametrize("ahead", [0.0, 0.4, -7.0])
def test_clocks_are_compared_on_the_host_that_wrote_the_manifest(ahead: float, ending: str) -> None:
    text = Path("/proc/sys/kernel/random/boot_id").read_text().strip() + ending
    host = hashlib.sha256(text.encode()).hexdigest()[:16]
    fetcher = Clocks(ahead, 0.1).fetcher()
    run = four().run()
    compared = fetcher.compare_clocks(replace(run, host=host))
    assert compared.difference_seconds == pytest.approx(ahead)
    assert compared.uncertainty_seconds == pytest.approx(0.05)
    assert fetcher.compare_clocks(run).difference_seconds is None


def test_every_query_names_its_window_and_its_time() -> None:
    body = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": []}})
    answers = Answers(200, body, {"Content-Type": "application/json"})
    world = four()
    run = world.run()
    with answers.serve() as url, Prometheus(url) as client:
        evidence = Fetcher(client, Source('job="cmo"'), 0.0, clock=lambda: EPOCH + 500).fetch(
            run, run.scenarios, CMO_015
        )
    asked = [parse_qs(urlsplit(path).query) for path, _ in answers.seen]
    for parameters in asked[1:]:
        assert parameters["query"][0].endswith("ms]")
        assert float(parameters["time"][0]) == pytest.approx(evidence.evaluation_time, abs=0.001)
        assert parameters["nocache"] == ["1"]
