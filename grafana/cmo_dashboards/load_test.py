"""The dashboard "Load test and release comparison": one run beside another, or one release beside another.

A run has no label to pick it by: labels are closed lists, and an id of each run would be a new series for
each. What a release manager picks instead, and why:

- **A run is a distance in time.** "Run" offers the last run of each release, found by a query for the last
  moment of load on each release that `cmo_build_info` knows of, and what the range holds: every picture marks
  where load tests ran, dragging over one makes it the range, and a pipeline can write the address itself:
  `?from=…&to=…`, the times of the run's manifest. How long a run is looked at is the length of the range.
- **So is the run beside it** ("Compare with"), found in the same way before the first. Release N+1 is held
  against N by choosing "last run of" N, and the two runs are laid over each other by their ends. Distances by
  hand stand beside, because a nightly test is best held against that of the night before.
- **No version in the queries.** What the rules record is exact and knows no instance; joining it with
  `cmo_build_info` would give the exactness up. Instead both releases are shown by name at the top.

Differences are in points and have no colour: whether one is more than chance is not to be seen from two
numbers. Whether a run is compliant, `cmo check` decides; this page shows where to look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue
from cmo_slo.indicators import GrowthIndicator, HeldLevelIndicator, LatencyIndicator, RatioIndicator
from cmo_slo.model import Scope

from cmo_dashboards import comparison
from cmo_dashboards import expressions as promql
from cmo_dashboards.colours import NEUTRAL, Step, target_line, verdict_steps
from cmo_dashboards.comparison import ALL_CHOSEN_TESTS, EARLIER, NOW
from cmo_dashboards.dashboard import Dashboard
from cmo_dashboards.expressions import TESTS, Population, Recorded
from cmo_dashboards.panels import Panel, Query, Row, Shape, Unit
from cmo_dashboards.promised import find, target_text
from cmo_dashboards.variables import AGAINST, HISTORY, RUN, SCENARIO

if TYPE_CHECKING:
    from cmo_slo.model import Objective, Objectives

_SCENARIO: Final = "{{scenario}}"
_POOLED: Final = "Chosen tests together"
"""Not "all test scenarios", which are those of a verdict, whatever is chosen."""
_NO_TEST: Final = "No load test in this run, or no data"
_NO_OTHER_TEST: Final = "No load test then, or no data"
_NO_PAIR: Final = "No load test on one of the sides, or no data"
_MOST_USERS: Final = 1_000
_MOST_EVENTS: Final = 1e9
_MOST_BYTES: Final = 4e9
_MOST_SECONDS: Final = catalogue.QUERY_DURATION.buckets[-1]
"""A quantile is estimated inside the buckets, and never beyond their last edge."""
_MOST_A_SECOND: Final = 10_000.0
_MOST: Final[Mapping[Unit, float]] = {
    Unit.RATIO: 1.0,
    Unit.SECONDS: _MOST_SECONDS,
    Unit.COUNT: _MOST_USERS,
    Unit.PER_SECOND: _MOST_A_SECOND,
}
_CHANCE: Final = (
    "Two runs of one release differ as well: repeat both before you call a small difference real."
)


_Asked = Callable[[str], str]
"""A question, by the offset of the run that it is asked of."""
_OfPeople = Callable[[Population, str], str]


@dataclass(frozen=True)
class _Question:
    """One question, to be asked at both moments.

    Attributes:
        legend: what its series are called.
        expression: the question at some moment.
        people: of whom, each scenario or all together; nobody in particular if it is of all traffic.
        judged: those of its answers that a verdict would judge; none if it has no target.
        too_few: those that rest on too little for a verdict, if such are told apart.
    """

    legend: str
    expression: _Asked
    people: Population | None
    judged: _Asked | None = None
    too_few: _Asked | None = None

    def queries(self, offset: str, lowest: float, highest: float) -> tuple[Query, ...]:
        """What asks it at a moment, with a verdict's colours for what has a verdict."""

        def grey(expression: _Asked, legend: str) -> Query:
            return Query(expression(offset), legend, lowest, highest, judged=False)

        if self.judged is None:
            return (grey(self.expression, self.legend),)
        judged = Query(self.judged(offset), self.legend, lowest, highest)
        if self.too_few is None:
            return (judged,)
        few = grey(self.too_few, f"{self.legend}, too few to judge")
        return judged, replace(few, may_be_empty=True)

    def difference(self) -> str:
        """How much more the answer is now, where there is one on both sides, of the same scenarios."""
        now, earlier = f"({self.expression(NOW)})", f"({self.expression(EARLIER)})"
        if self.people is None:
            return f"{now} - {earlier}"
        if self.people.pooled:
            return f"{now} - {earlier} unless on () ({comparison.on_one_side_alone()})"
        return f"{now} - on (scenario) {earlier}"


def _of_each(expression: _OfPeople) -> _Question:
    """A question about each scenario that has no target."""
    return _Question(_SCENARIO, partial(expression, TESTS), TESTS)


def _of_each_judged(expression: _OfPeople) -> _Question:
    """A question about each scenario whose every answer has a target."""
    asked = partial(expression, TESTS)
    return _Question(_SCENARIO, asked, TESTS, judged=asked)


def _of_all(expression: _OfPeople) -> _Question:
    """A question about all scenarios together, whose events can be pooled."""
    return _Question(_POOLED, partial(expression, ALL_CHOSEN_TESTS), ALL_CHOSEN_TESTS)


def _of_events(question: _Question, of: Recorded, people: Population, objective: Objective) -> _Question:
    """The same question about a share of events, which is judged where there are enough of them."""

    def guarded(guard: str) -> _Asked:
        return partial(comparison.ratio, of, people, guard=guard)

    return replace(
        question,
        judged=guarded(promql.enough(objective.minimum_events)),
        too_few=guarded(promql.too_few(objective.minimum_events)),
    )


def _share(slo: str, objective: Objective) -> tuple[_Question, ...]:
    """A share of events in each scenario and in all, with a target where the objective is judged."""
    of = Recorded(slo, objective.name)
    each, of_all = _of_each(partial(comparison.ratio, of)), _of_all(partial(comparison.ratio, of))
    if Scope.SCENARIO in objective.judged:
        each = _of_events(each, of, TESTS, objective)
    return each, _of_events(of_all, of, ALL_CHOSEN_TESTS, objective)


@dataclass(frozen=True)
class _Figure:
    """One figure of a run: what it is, what is asked for it, and how it is drawn on both sides."""

    title: str
    unit: Unit
    asked: tuple[_Question, ...]
    answers: str
    when_red: str
    highest: float
    lowest: float = 0.0
    steps: tuple[Step, ...] = (Step(None, NEUTRAL),)
    goal: str = ""
    decimals: int | None = None

    @property
    def panels(self) -> tuple[Panel, ...]:
        """Now, then, and the difference."""
        return (
            self._side(f"{self.title}{self.goal}", NOW, self.answers, self.when_red, _NO_TEST),
            self._side(
                f"{self.title}, compared run",
                EARLIER,
                f"{self.answers} Here of the run that is compared with.",
                "Choose another run under `Compare with` if this one was no good.",
                _NO_OTHER_TEST,
            ),
            self._difference(),
        )

    @property
    def _of_whom(self) -> str:
        people = [asked.people for asked in self.asked if asked.people]
        together = (
            "; of all together only where both sides ran the same"
            if any(one.pooled for one in people)
            else ""
        )
        return f" Of scenarios that ran on both sides{together}." if people else ""

    def _side(self, title: str, offset: str, answers: str, when_red: str, no_value: str) -> Panel:
        return Panel(
            title=title,
            shape=Shape.STAT,
            width=8,
            height=5,
            unit=self.unit,
            answers=answers,
            when_red=when_red,
            queries=tuple(
                query for asked in self.asked for query in asked.queries(offset, self.lowest, self.highest)
            ),
            steps=self.steps,
            decimals=self.decimals,
            no_value=no_value,
            lowest=self.lowest,
        )

    def _difference(self) -> Panel:
        points = " 1 % is one point." if self.unit is Unit.RATIO else ""
        most = self.highest - self.lowest
        return Panel(
            title=f"{self.title}, difference",
            shape=Shape.STAT,
            width=8,
            height=5,
            unit=self.unit,
            answers=f"How much more is it than in the compared run?{points}{self._of_whom}",
            when_red=_CHANCE,
            queries=tuple(Query(asked.difference(), asked.legend, -most, most) for asked in self.asked),
            decimals=self.decimals,
            no_value=_NO_PAIR,
            lowest=-most,
        )


def load_test(objectives: Objectives) -> Dashboard:
    """The dashboard that lays two runs beside each other; targets are those of an objectives file.

    Raises:
        ValueError: the file lacks one of the objectives that the dashboard shows.
    """
    return Dashboard(
        uid="cmo-load-test",
        title="Load test and release comparison",
        description="Did this run, or this release, do better than that one? `Run` chooses the one, "
        "`Compare with` the other; the range is as long as what is seen of each. It shows, it does not "
        "decide: `cmo check` says whether a run is compliant (docs/check.md), and two runs of one release "
        "differ as well.",
        scenarios=objectives.scenarios,
        service=objectives.service,
        variables=(SCENARIO, HISTORY, RUN, AGAINST),
        opens_at="now-15m",
        rows=(
            Row("What is compared?", _releases()),
            Row("Were both asked the same?", (*_queries(objectives).panels, *_users(objectives).panels)),
            Row(
                "Did users get answers, in time?",
                tuple(
                    panel
                    for figure in (_success(objectives), _within(objectives), _quantile(objectives))
                    for panel in figure.panels
                ),
            ),
            Row(
                "What did it take?",
                tuple(
                    panel
                    for figure in (_throughput(), _cache(objectives), _memory(objectives), _cost())
                    for panel in figure.panels
                ),
            ),
            Row("Both runs over time, laid over each other by their ends", _over_time(objectives)),
        ),
    )


def _releases() -> tuple[Panel, ...]:
    def of(title: str, offset: str, answers: str, when_red: str, no_value: str) -> Panel:
        return Panel(
            title=title,
            shape=Shape.TABLE,
            width=12,
            height=5,
            unit=Unit.COUNT,
            answers=answers,
            when_red=when_red,
            queries=(Query(comparison.releases(offset), "{{version}} {{revision}}", 0, 1),),
            no_value=no_value,
        )

    return (
        of(
            "Release looked at",
            NOW,
            "Which release is looked at? Version and revision of what was scraped during the run.",
            "Two lines are a roll-out, or a range that is too long: shorten it to one run.",
            "No instance was scraped",
        ),
        of(
            "Release compared with",
            EARLIER,
            "Which release is it compared with? Version and revision of what was scraped then.",
            "Not the one that you meant: choose another in `Compare with`; further back than "
            "`Look back for runs` no run is found.",
            "No instance was scraped then",
        ),
    )


def _queries(objectives: Objectives) -> _Figure:
    objective, _ = find(objectives, "success", RatioIndicator)
    events = partial(comparison.events, Recorded(objectives.name, objective.name))
    return _Figure(
        title="Queries finished",
        unit=Unit.COUNT,
        asked=(_of_each(events), _of_all(events)),
        answers="How many queries does the comparison rest on? Finished ones but those that the user "
        "cancelled; exact.",
        when_red=f"Few queries say little: from {objective.minimum_events} a scenario on a verdict is given "
        "at all.",
        highest=_MOST_EVENTS,
        decimals=0,
    )


def _users(objectives: Objectives) -> _Figure:
    objective, _ = find(objectives, "concurrent_users", HeldLevelIndicator)
    of = Recorded(objectives.name, objective.name)
    return _Figure(
        title="Users held",
        goal=_goal(objective),
        unit=Unit.COUNT,
        asked=(_of_each_judged(partial(promql.highest_mean_level, of)),),
        answers="How many users at once did it carry? The highest mean over any short interval; exact. Grey "
        "below the target: fewer came.",
        when_red="Fewer than the test offered: sessions were refused or ended.",
        highest=_MOST_USERS,
        steps=verdict_steps(objective, missed=NEUTRAL),
        decimals=1,
    )


def _success(objectives: Objectives) -> _Figure:
    objective, _ = find(objectives, "success", RatioIndicator)
    return _Figure(
        title="Success rate",
        goal=_goal(objective),
        unit=Unit.RATIO,
        asked=_share(objectives.name, objective),
        answers="How many queries got a real answer? Of all finished ones but the cancelled; exact. "
        f"{_coloured(objective)}",
        when_red="Users got apologies or nothing: open *CMO components* for the same range.",
        highest=1.0,
        steps=verdict_steps(objective),
        decimals=2,
    )


def _within(objectives: Objectives) -> _Figure:
    objective, indicator = find(objectives, "within_2s", LatencyIndicator)
    return _Figure(
        title=f"Answered within {indicator.threshold_seconds:g} s",
        goal=_goal(objective),
        unit=Unit.RATIO,
        asked=_share(objectives.name, objective),
        answers=f"How many got a real answer in time? This is what the P{indicator.quantile * 100:g} target "
        f"is judged by, without an estimator; exact. {_coloured(objective)}",
        when_red="Answers are late or failures: if *Success rate* is red too, mend that first; else see "
        "*CMO components* for where the time goes.",
        highest=1.0,
        steps=verdict_steps(objective),
        decimals=2,
    )


def _quantile(objectives: Objectives) -> _Figure:
    _, indicator = find(objectives, "within_2s", LatencyIndicator)
    quantile = partial(comparison.quantile, indicator)
    return _Figure(
        title=f"P{indicator.quantile * 100:g} of real answers (estimated)",
        unit=Unit.SECONDS,
        asked=(_of_each(quantile), _of_all(quantile)),
        answers="How slow are the slow ones? Estimated between the edges of the buckets, and good to about "
        "a bucket: no verdict rests on it.",
        when_red="It has no colour. A difference within a bucket (a quarter of a second around two seconds) "
        "may be the estimate's.",
        highest=_MOST_SECONDS,
        decimals=2,
    )


def _throughput() -> _Figure:
    return _Figure(
        title="Queries a second (estimated)",
        unit=Unit.PER_SECOND,
        asked=(_of_each(comparison.throughput), _of_all(comparison.throughput)),
        answers="How much did it carry? Mean of finished queries a second, over the moments that had any.",
        when_red="Users wait for an answer before they ask again: slower answers are fewer queries a second.",
        highest=_MOST_A_SECOND,
        decimals=1,
    )


def _cache(objectives: Objectives) -> _Figure:
    objective, _ = find(objectives, "cache_hits", RatioIndicator)
    return _Figure(
        title="Cache hit rate",
        goal=_goal(objective),
        unit=Unit.RATIO,
        asked=_share(objectives.name, objective),
        answers="How many queries did a cache answer? One count a query; exact. Judged over all scenarios "
        f"together. {_coloured(objective)}",
        when_red="See *CMO components*, row of the caches. A test that begins with cold caches is not "
        "comparable with a warm one.",
        highest=1.0,
        steps=verdict_steps(objective),
        decimals=2,
    )


def _memory(objectives: Objectives) -> _Figure:
    objective, indicator = find(objectives, "memory_growth", GrowthIndicator)
    return _Figure(
        title="Memory growth",
        goal=_goal(objective),
        unit=Unit.BYTES,
        asked=(_of_each_judged(partial(promql.growth, indicator)),),
        answers="How much did memory grow in each scenario? Peak kept by the exporter less the lowest from "
        "just before the first query on, in the instance that grew most (estimated).",
        when_red="Shorten the range to one run. If it stays red, see *Resources* for the same range.",
        lowest=-_MOST_BYTES,
        highest=_MOST_BYTES,
        steps=verdict_steps(objective),
        decimals=1,
    )


def _cost() -> _Figure:
    of_all = _Question("All queries", comparison.cost_of_a_query, people=None)
    return _Figure(
        title="Cost of a query (estimated)",
        unit=Unit.DOLLARS,
        asked=(of_all,),
        answers="What does a query cost? US dollars for model calls over finished queries, live ones "
        "included: cost is not counted by scenario.",
        when_red="More with the same hit rate: longer prompts, retries, or another model.",
        highest=100.0,
        decimals=5,
    )


def _over_time(objectives: Objectives) -> tuple[Panel, ...]:
    users, _ = find(objectives, "concurrent_users", HeldLevelIndicator)
    success, _ = find(objectives, "success", RatioIndicator)
    within, latency = find(objectives, "within_2s", LatencyIndicator)

    def of(objective: Objective) -> Recorded:
        return Recorded(objectives.name, objective.name)

    return (
        _line("Users over time", Unit.COUNT, partial(promql.mean_level, of(users)), users),
        _line("Queries a second over time (estimated)", Unit.PER_SECOND, comparison.throughput_lately),
        _line("Success rate over time", Unit.RATIO, partial(comparison.ratio_lately, of(success)), success),
        _line(
            f"Answered within {latency.threshold_seconds:g} s over time",
            Unit.RATIO,
            partial(comparison.ratio_lately, of(within)),
            within,
        ),
        _line(
            f"P{latency.quantile * 100:g} of real answers over time (estimated)",
            Unit.SECONDS,
            partial(comparison.quantile_lately, latency),
        ),
    )


def _line(title: str, unit: Unit, expression: _OfPeople, objective: Objective | None = None) -> Panel:
    """Both runs in one picture, the compared one dashed."""
    highest = _MOST[unit]
    beside = "" if objective is None else f" The even dashed line is the target ({target_text(objective)})."
    return Panel(
        title=title,
        shape=Shape.TIME_SERIES,
        width=12,
        height=8,
        unit=unit,
        answers="When in the run do the two differ? Dashed: the compared run, moved to end with this "
        f"one.{beside}",
        when_red=f"See what else differs at that moment. {_CHANCE}",
        queries=(
            Query(expression(TESTS, NOW), _SCENARIO, 0.0, highest),
            Query(expression(TESTS, EARLIER), f"{_SCENARIO}, compared run", 0.0, highest, dashed=True),
        ),
        steps=(Step(None, NEUTRAL),) if objective is None else target_line(objective),
        highest=1.0 if unit is Unit.RATIO else None,
        no_value=_NO_TEST,
    )


def _goal(objective: Objective) -> str:
    return f" (target {target_text(objective)})"


def _coloured(objective: Objective) -> str:
    return f"A colour is a verdict, from {objective.minimum_events} events on; grey is none."
