"""Two pages whose conditions hold at once: one incident wakes people once, with the page that goes first.

The order is: the service is gone, queries fail, they hang, they are slow, none come. Nor does what an
incident leaves behind page: queries that hung are slow, or have failed, when they end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest
from cmo_exporter import catalogue
from cmo_slo import recorded
from cmo_slo.alerts.page import LINGERS_SCRAPES
from cmo_slo.durations import SECOND, duration
from cmo_slo.rule_tests.case import Phase, Series, counter
from cmo_slo.rule_tests.stimulus import full_labels, up
from cmo_stack import servers

from .promtool_runs import instead_of, own_expression, read, rule_of, run
from .rule_slice import rules_of_alert

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RULES: Final = read("rules/cmo-015.yml")
PROMTOOLS: Final = servers.installed("promtool")
GONE, FAILING, HANGING, SLOW, NO_TRAFFIC = ORDER = (
    "CMOServiceDown",
    "CMOLiveQueriesFailing",
    "CMOLiveQueriesHanging",
    "CMOLiveQueriesSlow",
    "CMONoLiveTraffic",
)
STEP: Final = 15 * SECOND


# --- a service in trouble --------------------------------------------------------------------------


@dataclass(frozen=True)
class Scrapes:
    """Some scrapes, and what becomes of the live queries that have begun between two of them."""

    steps: int
    answered: int = 0
    slow: int = 0
    failed: int = 0
    left: int = 0
    """Their users have waited for longer than 2 s."""
    hang: int = 0

    @property
    def begun(self) -> int:
        return self.answered + self.slow + self.failed + self.left + self.hang


# Longer than any answer that counts for missing traffic has been ago.
WELL: Final = Scrapes(24, answered=10)


def service(*scrapes: Scrapes) -> tuple[Series, ...]:
    """Its series, from a time on at which all has been well."""

    def counted(name: str, labels: dict[str, str], events: Callable[[Scrapes], int]) -> Series:
        phases = [Phase(events(one), one.steps) for one in (WELL, *scrapes)]
        return Series(
            name,
            full_labels(name.removesuffix("_count").removesuffix("_bucket"), {}) | labels,
            counter(phases),
        )

    count, bucket = (f"{catalogue.QUERY_DURATION.name}_{part}" for part in ("count", "bucket"))
    queries, fast = catalogue.QUERIES.name, {"le": "2.0"}
    return (
        up("1x200"),
        counted(catalogue.QUERIES_STARTED.name, {}, lambda one: one.begun),
        counted(catalogue.QUERIES_IN_PROGRESS.name, {}, lambda one: one.hang),
        counted(queries, {"outcome": "success"}, lambda one: one.answered + one.slow),
        counted(queries, {"outcome": "error"}, lambda one: one.failed),
        counted(queries, {"outcome": "cancelled"}, lambda one: one.left),
        counted(count, {"outcome": "success"}, lambda one: one.answered + one.slow),
        counted(bucket, {"outcome": "success"} | fast, lambda one: one.answered),
        counted(count, {"outcome": "failure"}, lambda one: one.failed),
        counted(bucket, {"outcome": "failure"} | fast, lambda one: one.failed),
        counted(count, {"outcome": "cancelled"}, lambda one: one.left),
        Series(bucket, full_labels(catalogue.QUERY_DURATION.name, {"outcome": "cancelled"}) | fast, "0x200"),
    )


def crashing() -> tuple[Series, ...]:
    """A service that is scraped once in four times, and answers nobody in between.

    Its failures are recorded, as a Prometheus that has just restarted finds them: else they page before it is
    known that the service hardly lives.
    """
    events = {recorded.GOOD_EVENTS: "0x60", recorded.TOTAL_EVENTS: "_x44 10x16"}
    labels = {"slo": "cmo-015", "objective": "success", "scenario": catalogue.LIVE}
    return (up(" ".join(["1 0 0 0"] * 20)), *(Series(name, labels, text) for name, text in events.items()))


def remembered(objective: str, **last: int) -> tuple[Series, ...]:
    """The service is gone, and what the rules have counted at the last good scrape is still in their windows.

    As it is after a restart of Prometheus, which knows no more which alerts have fired.
    """
    names = {"good": recorded.GOOD_EVENTS, "total": recorded.TOTAL_EVENTS, "slow": recorded.SLOW_EVENTS}
    labels = {"slo": "cmo-015", "objective": objective, "scenario": catalogue.LIVE}
    return (up("0x200"), *(Series(names[what], labels, str(count)) for what, count in last.items()))


def left_behind() -> tuple[Series, ...]:
    """The service is gone, and its last gauges are not marked as stale: not by a Prometheus that restarts."""
    gauges = {catalogue.QUERIES_IN_PROGRESS.name: "10", catalogue.EVENT_LOOP_BLOCKED.name: "120"}
    return (up("0x200"), *(Series(name, full_labels(name, {}), value) for name, value in gauges.items()))


def crashing_and_unreachable() -> tuple[Series, ...]:
    """A crash loop of two and a half minutes up and one down, in which every question of the prober fails."""
    canary = {"job": "probe", "instance": "p", "canary": "c"}
    results = {"success": "0+1x45 45x200", "timeout": "0x45 0+1x200"}
    return (
        up("1x49 " + " ".join(["0x4 1x9"] * 10)),
        Series(catalogue.QUERIES.name, full_labels(catalogue.QUERIES.name, {"outcome": "success"}), "5x200"),
        Series(catalogue.PROBE_UP.name, canary, "1x45 0x200"),
        *(
            Series(catalogue.PROBE_RESULTS.name, {**canary, "result": result}, values)
            for result, values in results.items()
        ),
    )


def ended(how: str) -> tuple[Series, ...]:
    """Ten a minute are answered, then all that come in four minutes hang, and then they end somehow."""
    answered, hung = "0+3x24", 17 * 3
    begun = f"{answered} {72 + 3}+3x200"

    def counted(name: str, after: int, **labels: str) -> Series:
        plain = name.removesuffix("_count").removesuffix("_bucket")
        return Series(name, full_labels(plain, labels) | labels, f"{answered} 72x16 {72 + after}+3x180")

    def only_then(name: str, count: int, **labels: str) -> Series:
        plain = name.removesuffix("_count").removesuffix("_bucket")
        return Series(name, full_labels(plain, labels) | labels, f"0x41 {count}x180")

    count, bucket = (f"{catalogue.QUERY_DURATION.name}_{part}" for part in ("count", "bucket"))
    well = hung if how == "answered" else 0
    failed = hung - well
    return (
        up("1x220"),
        Series(catalogue.QUERIES_STARTED.name, full_labels(catalogue.QUERIES_STARTED.name, {}), begun),
        Series(
            catalogue.QUERIES_IN_PROGRESS.name,
            full_labels(catalogue.QUERIES_IN_PROGRESS.name, {}),
            "0x24 3+3x16 0x180",
        ),
        counted(catalogue.QUERIES.name, well, outcome="success"),
        only_then(catalogue.QUERIES.name, failed, outcome="error"),
        counted(count, well, outcome="success"),
        counted(bucket, 0, outcome="success", le="2.0"),
        only_then(count, failed, outcome="failure"),
    )


# --- two at once -----------------------------------------------------------------------------------

_SOON: Final = 8
"""Steps after which a service is gone for certain, and what happened before is still in every window."""
_LATER: Final = 24 + 30
"""Steps after which nobody has been answered for long enough."""

PAIRS: Final[dict[tuple[str, str], tuple[tuple[Series, ...], int]]] = {
    (GONE, FAILING): (remembered("success", good=0, total=40), _SOON),
    (GONE, HANGING): (left_behind(), _SOON),
    (GONE, SLOW): (remembered("within_2s", good=0, total=40, slow=40), _SOON),
    (FAILING, HANGING): (service(Scrapes(60, answered=3, failed=5, hang=2)), _LATER),
    (FAILING, SLOW): (service(Scrapes(60, answered=4, failed=3, slow=3)), _LATER),
    (FAILING, NO_TRAFFIC): (service(Scrapes(60, failed=10)), _LATER),
    # Had they been slow before they hang, both would have paged, one after the other.
    (HANGING, SLOW): (
        service(Scrapes(12, answered=6, hang=4), Scrapes(60, answered=3, slow=3, hang=4)),
        _LATER,
    ),
    (HANGING, NO_TRAFFIC): (service(Scrapes(60, hang=10)), _LATER),
    (SLOW, NO_TRAFFIC): (service(Scrapes(60, left=10)), _LATER),
}


def test_every_pair_that_can_be_is_here() -> None:
    every = {(first, second) for at, first in enumerate(ORDER) for second in ORDER[at + 1 :]}
    assert every - set(PAIRS) == {(GONE, NO_TRAFFIC)}, "by itself it needs a good scrape; see the crash loop"


def fired_by(series: tuple[Series, ...], steps: int, alerts: set[str]) -> dict[str, Any]:
    """A test that these alerts are firing at a step, and that no other has ever fired until then."""
    samples = [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(alerts)]
    expressions = (
        'count by (alertname) (ALERTS{alertstate="firing"})',
        'count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[1d]))',
    )
    return {
        "evaluation_interval": duration(STEP),
        "group_eval_order": [group["name"] for group in RULES["groups"]],
        "tests": [
            {
                "interval": duration(STEP),
                "input_series": [one.document() for one in series],
                "promql_expr_test": [
                    {"expr": expression, "eval_time": duration(steps * STEP), "exp_samples": samples}
                    for expression in expressions
                ],
            }
        ],
    }


each_promtool = pytest.mark.parametrize(
    "promtool", PROMTOOLS, ids=lambda server: server.label.replace(" ", "-")
)


@each_promtool
@pytest.mark.parametrize(("first", "second"), PAIRS, ids=map("-".join, PAIRS))
def test_the_first_pages_and_the_second_does_not(
    first: str, second: str, promtool: servers.Server, tmp_path: Path
) -> None:
    series, steps = PAIRS[first, second]
    assert complaint(second, fired_by(series, steps, {first, alone(second)}), promtool, tmp_path) == ""


@each_promtool
def test_a_crash_loop_is_a_service_that_is_gone(promtool: servers.Server, tmp_path: Path) -> None:
    test = fired_by(crashing(), 56, {GONE, alone(FAILING)})
    assert complaint(FAILING, test, promtool, tmp_path) == ""


@each_promtool
def test_a_crash_loop_that_lets_no_question_through_is_one_page(
    promtool: servers.Server, tmp_path: Path
) -> None:
    test = fired_by(crashing_and_unreachable(), 120, {GONE, alone(NO_TRAFFIC)})
    assert complaint(NO_TRAFFIC, test, promtool, tmp_path) == ""


@each_promtool
@pytest.mark.parametrize(("how", "second"), [("answered", SLOW), ("failed", FAILING)])
def test_what_hung_is_no_second_page_when_it_ends(
    how: str, second: str, promtool: servers.Server, tmp_path: Path
) -> None:
    test = fired_by(ended(how), 44, {HANGING, alone(second)})
    assert complaint(second, test, promtool, tmp_path) == ""


@each_promtool
def test_some_that_hang_on_do_not_hide_that_others_fail(promtool: servers.Server, tmp_path: Path) -> None:
    oldest = catalogue.OLDEST_QUERY_AGE.name
    hang_then_fail = (
        *service(Scrapes(20, hang=2), Scrapes(40, answered=3, failed=7)),
        Series(oldest, full_labels(oldest, {}), "0x24 0+15x200"),
    )
    steps = WELL.steps + 20 + 8
    samples = [{"labels": f'{{alertname="{FAILING}"}}', "value": 1}]
    test = fired_by(hang_then_fail, steps, {FAILING})
    test["tests"][0]["promql_expr_test"] = [
        {
            "expr": f'count by (alertname) (ALERTS{{alertname="{FAILING}",alertstate="firing"}})',
            "eval_time": duration(steps * STEP),
            "exp_samples": samples,
        },
        {
            "expr": f'count by (alertname) (ALERTS{{alertname="{HANGING}",alertstate="firing"}})',
            "eval_time": duration((WELL.steps + 18) * STEP),
            "exp_samples": [{"labels": f'{{alertname="{HANGING}"}}', "value": 1}],
        },
    ]
    assert complaint(FAILING, test, promtool, tmp_path) == ""


@each_promtool
def test_an_incident_that_changes_its_nature_is_one_page_at_a_time(
    promtool: servers.Server, tmp_path: Path
) -> None:
    """All fail, then all that come hang: a page fires all the while, and never two."""
    changing = service(Scrapes(20, failed=10), Scrapes(120, hang=10))
    first = fired_by(changing, WELL.steps + 20 + 60, {FAILING, alone(HANGING)})
    over = WELL.steps + 20 + 60 + LINGERS_SCRAPES
    firing = 'count by (alertname) (ALERTS{alertstate="firing"})'
    for steps, alert in {over - 2: FAILING, over + 2: HANGING}.items():
        samples = [{"labels": f'{{alertname="{one}"}}', "value": 1} for one in (alert, alone(HANGING))]
        first["tests"][0]["promql_expr_test"].append(
            {"expr": firing, "eval_time": duration(steps * STEP), "exp_samples": samples}
        )
    assert complaint(HANGING, first, promtool, tmp_path) == ""


def alone(alert: str) -> str:
    """What a page is called here that leaves nothing out."""
    return f"{alert}Alone"


def complaint(second: str, test: dict[str, Any], promtool: servers.Server, directory: Path) -> str:
    """What promtool says against a test of the rules of two pages.

    Beside them stands the second without what it leaves out: it shows that its own condition holds as well.
    """
    beside = {**rule_of(RULES, second), "alert": alone(second), "expr": own_expression(RULES, second)}
    rules = instead_of(rules_of_alert(RULES, *ORDER), second, [rule_of(RULES, second), beside])
    return run(promtool, rules, test, directory)
