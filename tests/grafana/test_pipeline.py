"""Components, resources and the comparison of two runs on a real Prometheus, where every number is known.

A service is idle, then under load with one release, idle again, and under load with the next. It is the past
that a Prometheus is given, with all that the rules would have recorded of it: nothing is late, however busy
this machine is. Whatever is asked is asked at one moment of the second load, which all tests look at.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import shutil
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pytest
import requests
from cmo_dashboards import Macros, PanelQuery, queries, shipped_dashboards
from cmo_dashboards.colours import FAIL, NEUTRAL, PASS, WARN, Step, colour_of
from cmo_dashboards.document import defaults_of, panels
from cmo_dashboards.variables import AGAINST, RUN, TAIL_SECONDS
from cmo_exporter import catalogue
from cmo_stack import servers

from ..slo_rules.backfill import Past
from . import pipeline as truth
from .conftest import FAILING, LOADING_STEPS, MEGABYTE, PASSING, RSS_LOADED, RSS_LOADING, SCENARIOS
from .pipeline_past import (
    BEGIN,
    FIRST_STEPS,
    FORGOTTEN_SCRAPES,
    PAUSE_SCRAPES,
    QUIET_SCRAPES,
    SCRAPE,
    SECOND_STEPS,
    STEP_SECONDS,
    make_past,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cmo_dashboards import Dashboard
    from cmo_dashboards.variables import Distance

BOARDS: Final = {board.uid: board for board in shipped_dashboards()}
COMPLIANCE: Final = BOARDS["cmo-015"]
COMPONENTS: Final = BOARDS["cmo-components"]
RESOURCES: Final = BOARDS["cmo-resources"]
LOAD_TEST: Final = BOARDS["cmo-load-test"]
MINE: Final = (COMPONENTS, RESOURCES, LOAD_TEST)

EVERYTHING: Final = "1800000ms"
"""A range that holds all that has happened."""
NOT_MOVED: Final = str(RUN.fixed[0][1])
"""What "Run" stands for where the run is the one in the range."""
LONG_AGO_SECONDS: Final = "36000"
"""Before anything was scraped."""

Labels = dict[str, str]
Series = list[tuple[Labels, list[float]]]
Values = dict[tuple[str, str], Series]


@dataclass(frozen=True)
class Watcher:
    """The HTTP interface of a Prometheus."""

    url: str

    def ask(self, query: PanelQuery, start: float, moment: float) -> Series:
        """What a panel shows at a moment, or from a start on up to it."""
        if query.instant:
            found = self.instant(query.expression, moment)
            return [(item["metric"], [float(item["value"][1])]) for item in found]
        window = {"start": start, "end": moment, "step": STEP_SECONDS}
        found = self._get("query_range", {"query": query.expression, **window})
        return [(item["metric"], [float(value) for _, value in item["values"]]) for item in found]

    def instant(self, expression: str, moment: float) -> list[dict[str, Any]]:
        return self._get("query", {"query": expression, "time": moment})

    def _get(self, path: str, arguments: Mapping[str, str | float]) -> list[dict[str, Any]]:
        answer = requests.post(f"{self.url}/api/v1/{path}", data=dict(arguments), timeout=60)
        assert answer.ok, f"{arguments['query']}: {answer.text}"
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found


@dataclass(frozen=True)
class Watched:
    """What has happened, and how to look at it.

    Attributes:
        watcher: whom to ask.
        quiet: a moment before any load.
        gap: a moment between the two loads.
        moment: one under the second load, of which at least a rate interval has passed.
    """

    watcher: Watcher
    quiet: float
    gap: float
    moment: float
    _asked: dict[tuple[Any, ...], Values] = field(default_factory=dict, repr=False)

    def values(self, board: Dashboard, *, moment: float, range_: str = EVERYTHING, **chosen: str) -> Values:
        """Everything that a dashboard shows, asked once."""
        key = (board.uid, moment, range_, *chosen.items())
        if key not in self._asked:
            macros = Macros(range=range_, rate_interval="1m", interval=SCRAPE, chosen=chosen)
            start = max(moment - _seconds(range_), BEGIN)
            self._asked[key] = {
                (query.panel, query.ref_id): self.watcher.ask(query, start, moment)
                for query in queries(board, macros)
            }
        return self._asked[key]

    def busy(self, board: Dashboard, **chosen: str) -> Values:
        """What it shows under the second load, in a range that holds everything."""
        return self.values(board, moment=self.moment, **chosen)

    def idle(self, board: Dashboard) -> Values:
        """What it shows before any load."""
        return self.values(board, moment=self.quiet, against=LONG_AGO_SECONDS)

    def compared(self) -> Values:
        """What the comparison shows of the second load, held against the last run of the release before."""
        [seconds] = [value for text, value in self.compared_with().items() if "last run of" in text]
        return self.values(LOAD_TEST, moment=self.moment, range_=self.range_of_second, against=seconds)

    @property
    def range_of_second(self) -> str:
        """From the gap to the moment that is looked at, also where it is moved as little as it can be."""
        return _range(self.gap + int(NOT_MOVED), self.moment)

    def compared_with(self, run: str = NOT_MOVED, moment: float | None = None) -> dict[str, str]:
        """What "Compare with" offers, when a run is chosen and a moment is the end of the range."""
        return self._offered(AGAINST, AGAINST.question, self.moment if moment is None else moment, run)

    def runs(self) -> dict[str, str]:
        """What "Run" offers."""
        return self._offered(RUN, RUN.question, self.moment)

    def macros(self, moment: float, *, interval: str = SCRAPE, run: str = NOT_MOVED) -> Macros:
        """What a variable is asked with."""
        chosen = {"history": "30m", "run": run}
        return Macros(range=self.range_of_second, interval=interval, end=moment, chosen=chosen)

    def _offered(
        self, variable: Distance, question: str, moment: float, run: str = NOT_MOVED
    ) -> dict[str, str]:
        """What a variable offers, as Grafana takes it out of the results of its query."""
        macros = self.macros(moment, run=run)
        pattern = re.compile(variable.pattern.strip("/").replace("(?<", "(?P<"))
        options = {}
        for item in self.watcher.instant(macros.replace(question), moment):
            labels = ",".join(f'{name}="{value}"' for name, value in item["metric"].items())
            at, value = item["value"]
            if found := pattern.search(f"{{{labels}}} {value} {at * 1000:g}"):
                options[found["text"]] = found["value"]
        return options


@pytest.fixture(
    scope="module", params=servers.installed("prometheus"), ids=lambda one: one.label.replace(" ", "-")
)
def watched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Two loads, known to each Prometheus of this machine in turn."""
    server: servers.Server = request.param
    folder = tmp_path_factory.mktemp("pipeline")
    # Of several processes that run these tests, one makes the past, and the others wait for it.
    here = tmp_path_factory.getbasetemp()
    shared = (here.parent if "PYTEST_XDIST_WORKER" in os.environ else here) / f"past-{server.label}"
    with shared.with_name(f"{shared.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "moments.json").exists():
            shutil.rmtree(shared, ignore_errors=True)  # what one that failed has left
            moments = make_past(server, shared)
            (shared / "moments.json").write_text(json.dumps(moments))
    with Past(server, folder) as past:
        past.take_over(shared)
        yield Watched(Watcher(past.url), *json.loads((shared / "moments.json").read_text()))


def test_idle_it_claims_nothing(watched: Watched) -> None:
    for board in MINE:
        idle = watched.idle(board)
        steps, units = _steps_of(board), _units_of(board)
        for (panel, ref_id), series in idle.items():
            values = [value for _, found in series for value in found]
            assert not any(math.isnan(value) for value in values), (panel, ref_id)
            assert not {colour_of(value, steps[panel]) for value in values} & {PASS, WARN}, (panel, ref_id)
            if units[panel] == "percentunit" and panel != "Open files, of those allowed":
                assert series == [], f"{panel} {ref_id} has a share of nothing"
    assert watched.idle(RESOURCES)["Workers", "A"], "the idle service was not scraped, so this showed nothing"


def test_idle_a_comparison_knows_who_was_there_and_that_nobody_came(watched: Watched) -> None:
    shown = {panel for (panel, _), series in watched.idle(LOAD_TEST).items() if series}
    assert shown == {
        "Release looked at",
        _titled(LOAD_TEST, "Users held (target"),
        "Users over time",
        "Queries a second over time (estimated)",
    }


def test_narrowed_to_an_instance_or_a_scenario_it_shows_no_other(watched: Watched) -> None:
    elsewhere = watched.busy(RESOURCES, instance="elsewhere")
    seen = [place for place, series in elsewhere.items() if series]
    assert seen == [("Targets up", "A")], "what is not scraped is shown whatever is chosen"
    of_one = watched.values(LOAD_TEST, moment=watched.moment, against="10", scenario=FAILING)
    scenarios = {labels.get("scenario", FAILING) for series in of_one.values() for labels, _ in series}
    assert scenarios == {FAILING}
    nobody = watched.busy(COMPONENTS, scenario="nobody", component="nothing")
    known_of_no_scenario = {
        "Where the time of a call of LightRAG goes",
        "Evictions, by tier",
        "Expirations, by tier",
        "Answers held, by tier",
        "Targets up",
    }
    assert {panel for (panel, _), series in nobody.items() if series} == known_of_no_scenario


def test_busy_every_query_shows_plausible_values(watched: Watched) -> None:
    for board in MINE:
        values = watched.compared() if board is LOAD_TEST else watched.busy(board)
        assert not _missing(board, values)
        for query in queries(board):
            for _, found in values[query.panel, query.ref_id]:
                outside = [value for value in found if not query.lowest <= value <= query.highest]
                assert not outside, f"{query.panel} {query.ref_id} ({query.unit}): {outside[:3]}"


def test_components_succeed_as_often_as_they_do(watched: Watched) -> None:
    busy = watched.busy(COMPONENTS)
    stat = _titled(COMPONENTS, "Calls that succeed (")
    assert _last(busy[stat, "A"], "component") == pytest.approx({"lightrag": 0.6})
    others = _last(busy[stat, "B"], "component")
    assert others == pytest.approx(
        {"cache_l1": 1, "cache_l2": 1, "cache_l3": 0.5, "perplexity": 1, "llm": 1, "embedding": 1}
    )
    assert colour_of(0.6, _steps_of(COMPONENTS)[stat]) == FAIL
    failing = _last(busy["Share of calls that fail, by component", "A"], "component")
    assert {name: share for name, share in failing.items() if share} == pytest.approx(
        {"lightrag": 0.4, "cache_l3": 0.5}
    )


def test_the_time_of_a_query_adds_up_to_its_mean(watched: Watched) -> None:
    busy = watched.busy(COMPONENTS)
    passed = _last(busy["Where the time of a query goes", "A"], "component")
    assert passed == pytest.approx(
        {"cache_l1": 0, "cache_l2": 0, "cache_l3": 0, "lightrag": 1.0, "perplexity": 0.4}, rel=1e-3
    )
    [(_, rest)] = busy["Where the time of a query goes", "B"]
    assert sum(passed.values()) + rest[-1] == pytest.approx(truth.MEAN_SECONDS, rel=1e-3)
    inside = "Where the time of a call of LightRAG goes"
    waiting, working = (_last(busy[inside, ref_id], "component") for ref_id in "AB")
    assert waiting == pytest.approx({"llm": 0.8, "embedding": 0.0, "lightrag": 0.0}, rel=1e-3)
    assert working == pytest.approx({"llm": 1.6, "embedding": 0.2}, rel=1e-3)
    [(_, rest)] = busy[inside, "C"]
    whole = sum(waiting.values()) + sum(working.values()) + rest[-1]
    assert whole == pytest.approx(truth.CALL_SECONDS["lightrag"], rel=1e-3)


def test_the_first_byte_of_http_comes_before_the_last(watched: Watched) -> None:
    busy = watched.busy(RESOURCES)
    title = _titled(RESOURCES, "Time to the first and to the last byte")
    for ref_id, metric, seconds in (
        ("A", catalogue.HTTP_SERVER_REQUEST_DURATION, truth.HTTP_SECONDS),
        ("B", catalogue.HTTP_SERVER_TIME_TO_FIRST_BYTE, truth.FIRST_BYTE_SECONDS),
    ):
        below = metric.buckets[metric.buckets.index(seconds) - 1]
        estimated = {"/query": pytest.approx(below + 0.95 * (seconds - below))}
        assert _last(busy[title, ref_id], "http_route") == estimated


def test_tiers_and_queries_hit_each_at_their_own_rate(watched: Watched) -> None:
    busy = watched.busy(COMPONENTS)
    by_tier = _last(busy["Look-ups that hit, by tier", "A"], "tier")
    assert by_tier == pytest.approx({"l1": 0.8, "l2": 0.25, "l3": 0.2}, rel=1e-3)
    by_query = _last(busy[_titled(COMPONENTS, "Queries answered by a cache ("), "A"], "scenario")
    assert set(by_query.values()) == {0.8}
    failed = _last(busy["Look-ups that fail, by tier", "A"], "tier")
    assert [tier for tier, rate in failed.items() if rate] == ["l3"]


def test_a_breaker_says_in_words_which_state_it_was_in(watched: Watched) -> None:
    busy = watched.busy(COMPONENTS)
    [(labels, values)] = busy["State of each circuit breaker", "A"]
    assert labels["component"] == "lightrag"
    [panel] = [one for one in panels(COMPONENTS.document) if one["title"] == "State of each circuit breaker"]
    [shown] = [one["options"] for one in defaults_of(panel)["mappings"] if one["type"] == "value"]
    seen = list(dict.fromkeys(shown[f"{value:g}"]["text"] for value in values))
    assert seen == ["open", "closed"]
    assert shown[f"{values[0]:g}"]["color"] == FAIL
    assert {state["text"] for state in shown.values()} == set(catalogue.BREAKER_STATES)
    [(labels, _)] = busy["Changes of state", "A"]
    assert labels == {"component": "lightrag", "state": "open"}


def test_fallbacks_and_answers_are_told_apart(watched: Watched) -> None:
    busy = watched.busy(COMPONENTS)
    answers = _last(busy["Answers a second, by source", "A"], "source")
    shares = {source: rate / sum(answers.values()) for source, rate in answers.items()}
    assert shares == pytest.approx({"stale": 0.0} | {k: n / 100 for k, n in truth.ANSWERS.items()}, rel=1e-3)
    ways = _last(busy["Fallbacks a second, by way and reason", "A"], "source", "target", "reason")
    assert ways.keys() == truth.FALLBACKS.keys()
    per_event = {ways[way] / count for way, count in truth.FALLBACKS.items()}
    assert max(per_event) == pytest.approx(min(per_event), rel=1e-3)


def test_a_row_shows_its_own_component_alone(watched: Watched) -> None:
    lightrag = watched.busy(COMPONENTS, component="lightrag")
    outcomes = _last(lightrag["Calls of $component a second, by outcome", "A"], "outcome")
    shares = {outcome: rate / sum(outcomes.values()) for outcome, rate in outcomes.items()}
    expected = {"success": 0.48, "timeout": 0.16, "rejected": 0.16, "cancelled": 0.2, "error": 0.0}
    assert shares == pytest.approx(expected, rel=1e-3)
    by_scenario = _last(lightrag["Share of calls of $component that fail, by scenario", "A"], "scenario")
    assert list(by_scenario.values()) == pytest.approx([0.4] * len(SCENARIOS))
    duration = "Duration of calls of $component (estimated)"
    quantiles = [lightrag[duration, ref_id][0][1][-1] for ref_id in "ABC"]
    assert quantiles == pytest.approx([3.0, 3.9, 3.98])
    assert lightrag["Wait of calls of $component for their turn (estimated)", "A"] == []
    llm = watched.busy(COMPONENTS, component="llm")
    [(_, waits)] = llm["Wait of calls of $component for their turn (estimated)", "A"]
    assert waits[-1] == pytest.approx(0.3)


def test_resources_are_what_they_are(watched: Watched) -> None:
    busy = watched.busy(RESOURCES)
    growth = _last(busy[_titled(RESOURCES, "Growth of memory ("), "A"], "job")
    assert growth == {"cmo": RSS_LOADED - RSS_LOADING}
    assert _last(busy["Open files, of those allowed", "A"], "worker") == {"0": 0.25}
    processor = _last(busy["Processors in use, by mode", "A"], "mode")
    assert processor["user"] / processor["system"] == pytest.approx(2.0, rel=1e-3)
    assert _last(busy["Restarts of workers in the range", "A"], "worker") == {"0": truth.RESTARTS}
    assert set(_last(busy["Workers", "A"], "instance").values()) == {1}
    [(_, [cost])] = busy["Cost of a query in the range", "A"]
    assert cost == pytest.approx(0.005, rel=1e-3)
    tokens = _last(busy["Tokens a second, by model and type", "A"], "component", "token_type")
    assert tokens["lightrag", "input"] / tokens["lightrag", "output"] == pytest.approx(9.0, rel=1e-3)


def test_growth_within_a_range_after_loading_is_none(watched: Watched) -> None:
    since_loading = _range(watched.quiet, watched.moment)
    values = watched.values(RESOURCES, moment=watched.moment, range_=since_loading)
    [(_, growth)] = values[_titled(RESOURCES, "Growth of memory ("), "A"]
    assert set(growth) == {0.0}


def test_growth_of_a_run_is_not_that_of_the_run_before_it(watched: Watched) -> None:
    """The peak of the first is still exposed when the range begins."""
    range_ = watched.range_of_second
    values = watched.values(COMPLIANCE, moment=watched.moment, range_=range_, scenario=".*")
    growth = _last(values[_titled(COMPLIANCE, "Memory growth ("), "A"], "scenario")
    assert growth == dict.fromkeys(
        (one for one in SCENARIOS if one != catalogue.LIVE), truth.AFTER.growth_bytes
    )
    both = watched.values(COMPLIANCE, moment=watched.moment, scenario=".*")
    highest = _last(both[_titled(COMPLIANCE, "Memory growth ("), "A"], "scenario")
    assert set(highest.values()) == {truth.BEFORE.growth_bytes}


def test_runs_are_offered_by_their_release(watched: Watched) -> None:
    fixed = {text: str(seconds + int(NOT_MOVED)) for text, seconds in AGAINST.fixed}
    assert watched.compared_with(moment=watched.quiet) == fixed
    offered = watched.compared_with()
    name = f"last run of {truth.BEFORE.version} {truth.REVISION}"
    assert offered == fixed | {name: offered[name]}
    last_of_first = BEGIN + (LOADING_STEPS + QUIET_SCRAPES + FIRST_STEPS - 1) * STEP_SECONDS
    last_of_second = last_of_first + (PAUSE_SCRAPES + FORGOTTEN_SCRAPES + SECOND_STEPS) * STEP_SECONDS
    assert int(offered[name]) == pytest.approx(last_of_second - last_of_first, abs=STEP_SECONDS)


def test_a_compared_run_is_not_cut_before_its_end(watched: Watched) -> None:
    """Distances are whole seconds, and ends of runs are not, where a panel asks more often than that."""
    fractions = set()
    for interval in ("400ms", "700ms", "1300ms"):
        macros = watched.macros(watched.moment, interval=interval)
        offered, exact = (
            float(watched.watcher.instant(macros.replace(question), watched.moment)[0]["value"][1])
            for question in (AGAINST.found, AGAINST.found.replace("floor(", "("))
        )
        assert offered <= exact < offered + 1
        fractions.add(exact - offered)
    assert max(fractions) > 0.5, "they are whole, or nearer to the second before: this showed nothing"


def test_a_run_is_picked_without_moving_the_range(watched: Watched) -> None:
    """The first one is looked at, at the end of a range that holds the second."""
    runs = watched.runs()
    of_first, of_second = (
        f"last run of {one.version} {truth.REVISION}" for one in (truth.BEFORE, truth.AFTER)
    )
    assert runs.keys() == {"in the range", of_first, of_second}
    assert int(runs[of_first]) > int(runs[of_second]) >= int(runs["in the range"]) == int(NOT_MOVED)
    range_ = f"{(FIRST_STEPS * STEP_SECONDS + TAIL_SECONDS + STEP_SECONDS) * 1000}ms"
    shown = watched.values(LOAD_TEST, moment=watched.moment, range_=range_, run=runs[of_first])
    [(release, _)] = shown["Release looked at", "A"]
    assert release["version"] == truth.BEFORE.version
    success = _last(shown[_titled(LOAD_TEST, "Success rate ("), "A"], "scenario")
    assert success[PASSING] == pytest.approx(0.90)
    users = _last(shown[_titled(LOAD_TEST, "Users held ("), "A"], "scenario")
    assert users[PASSING] == truth.BEFORE.users
    before_it = [text for text in watched.compared_with(runs[of_first]) if "last run of" in text]
    assert before_it == [], "nothing ran before the first run"


def test_two_releases_stand_side_by_side(watched: Watched) -> None:
    compared = watched.compared()
    for panel, release in (
        ("Release looked at", truth.AFTER),
        ("Release compared with", truth.BEFORE),
    ):
        assert [labels["version"] for labels, _ in compared[panel, "A"]] == [release.version]
    _stand(compared, "Success rate", {PASSING: (0.97, 0.90), FAILING: (0.80, 0.80)})
    _stand(compared, "Answered within 2 s", {PASSING: (0.95, 0.72)})
    _stand(compared, "Users held", {PASSING: (50, 40)})
    _stand(compared, "Memory growth", {PASSING: (45 * MEGABYTE, 60 * MEGABYTE)})
    _stand(compared, "Cache hit rate", {PASSING: (0.8, 0.8)})
    _stand(compared, "P95 of real answers (estimated)", {PASSING: (1.9925, 2.4375)}, within=0.02)
    pooled = (3 * 0.97 + 0.8) / 4, (3 * 0.90 + 0.8) / 4
    _stand(compared, "Success rate", {"": pooled}, ref_id="C", ref_id_of_difference="B")
    _stand(compared, "Cost of a query (estimated)", {"": (0.005, 0.005)}, within=1e-3)


def test_both_sides_are_coloured_and_their_difference_is_not(watched: Watched) -> None:
    compared, steps = watched.compared(), _steps_of(LOAD_TEST)

    def colour(panel: str) -> str:
        return colour_of(_last(compared[panel, "A"], "scenario")[PASSING], steps[panel])

    assert colour(_titled(LOAD_TEST, "Success rate (")) == PASS
    assert colour("Success rate, compared run") == FAIL
    assert colour("Success rate, difference") == NEUTRAL
    assert colour(_titled(LOAD_TEST, "Memory growth (")) == PASS


def test_lines_of_the_other_run_end_with_this_one(watched: Watched) -> None:
    compared = watched.compared()
    now, earlier = (_last(compared["Success rate over time", ref_id], "scenario")[PASSING] for ref_id in "AB")
    assert (now, earlier) == pytest.approx((0.97, 0.90))
    users = _last(compared["Users over time", "A"], "scenario")[PASSING]
    assert users == truth.AFTER.users


def _stand(
    compared: Values,
    figure: str,
    expected: Mapping[str, tuple[float, float]],
    *,
    ref_id: str = "A",
    ref_id_of_difference: str = "A",
    within: float = 1e-6,
) -> None:
    """Hold a figure of both runs, and the difference, against what is known."""
    now_title = _titled(LOAD_TEST, figure, besides=(", compared run", ", difference", "over time"))
    sides = [
        _last(compared[title, ref], "scenario")
        for title, ref in (
            (now_title, ref_id),
            (f"{figure}, compared run", ref_id),
            (f"{figure}, difference", ref_id_of_difference),
        )
    ]
    for scenario, (now, earlier) in expected.items():
        found = [side[scenario] for side in sides]
        most = max(abs(now), abs(earlier))
        assert found == pytest.approx([now, earlier, now - earlier], rel=within, abs=within * most), figure


def _last(series: Series, *names: str) -> dict[Any, float]:
    """The last value of each series, by one label or by several."""
    return {
        values_of[0] if len(names) == 1 else values_of: values[-1]
        for labels, values in series
        for values_of in [tuple(labels.get(name, "") for name in names)]
    }


def _missing(board: Dashboard, values: Values) -> list[str]:
    return [
        f"{query.panel} {query.ref_id}"
        for query in queries(board)
        if not query.may_be_empty and not values[query.panel, query.ref_id]
    ]


def _titled(board: Dashboard, start: str, *, besides: tuple[str, ...] = ()) -> str:
    found = {
        panel["title"]
        for panel in panels(board.document)
        if panel["title"].startswith(start) and not panel["title"].endswith(besides or ("\n",))
    }
    [title] = {title for title in found if "over time" not in title}
    return str(title)


def _steps_of(board: Dashboard) -> dict[str, tuple[Step, ...]]:
    steps = {
        panel["title"]: tuple(
            Step(step["value"], step["color"]) for step in defaults_of(panel)["thresholds"]["steps"]
        )
        for panel in panels(board.document)
        if panel["type"] == "stat"
    }
    return defaultdict(lambda: (Step(None, NEUTRAL),), steps)


def _units_of(board: Dashboard) -> dict[str, str]:
    return {panel["title"]: defaults_of(panel)["unit"] for panel in panels(board.document)}


def _range(start: float, end: float) -> str:
    return f"{round((end - start) * 1000)}ms"


def _seconds(range_: str) -> float:
    return int(range_.removesuffix("ms")) / 1000
