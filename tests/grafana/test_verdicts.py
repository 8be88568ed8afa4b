"""Verdict tiles say what the checker would: on real Prometheus, at every edge of every counted objective.

promtool evaluates the tiles' own expressions over recorded series whose numbers are written here.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Final

import pytest
from cmo_dashboards import Macros, verdicts
from cmo_dashboards.perceived import prober
from cmo_dashboards.promised import counted
from cmo_dashboards.shortfalls import what_would_fail
from cmo_dashboards.verdicts import Status
from cmo_slo import verdict as checker
from cmo_slo.comparison import held_against
from cmo_slo.objectives import load_objectives, shipped_directory
from cmo_slo.recorded import (
    GOOD_EVENTS,
    GOOD_EVENTS_IN_WINDOW,
    SCRAPED,
    TARGET,
    TOTAL_EVENTS,
    TOTAL_EVENTS_IN_WINDOW,
    Window,
)

from .asked_of_promtool import ask_promtool

if TYPE_CHECKING:
    from pathlib import Path

    from cmo_slo.model import Objective
    from cmo_stack import servers

OBJECTIVES: Final = load_objectives(shipped_directory() / "cmo-015.yml")
BY_NAME: Final = {objective.name: objective for objective in OBJECTIVES.objectives}
EVENTS: Final = 2_000
STATUSES: Final = {
    checker.Status.PASS: Status.PASS,
    checker.Status.WARN: Status.WARN,
    checker.Status.FAIL: Status.FAIL,
}
SCRAPED_NOW: Final = {f'{SCRAPED}{{slo="cmo-015", job="cmo"}}': 1}


def _expect(
    promtool: servers.Server, folder: Path, tests: list[tuple[dict[str, float], str, list[float]]]
) -> None:
    """Hold expressions against the values that they are to have over some series."""
    asked = [
        {
            "interval": "15s",
            "input_series": [{"series": name, "values": f"{value:g}x20"} for name, value in series.items()],
            "promql_expr_test": [
                {
                    # Without labels, which differ between what is judged and "no data".
                    "expr": f"sum({expression})",
                    "eval_time": "1m",
                    "exp_samples": [{"labels": "{}", "value": float(value)} for value in expected],
                }
            ],
        }
        for series, expression, expected in tests
    ]
    said = ask_promtool(promtool, folder, asked)
    assert not said, said


def _recorded(objective: Objective, good: float, total: float, window: str = "15m") -> dict[str, float]:
    labels = f'{{slo="cmo-015", objective="{objective.name}", scenario="live", window="{window}"}}'
    return {f"{GOOD_EVENTS_IN_WINDOW}{labels}": good, f"{TOTAL_EVENTS_IN_WINDOW}{labels}": total}


def _tile(objective: Objective) -> str:
    return verdicts.of_live_window("cmo-015", objective, Window.QUARTER)


@pytest.mark.parametrize("objective", counted(OBJECTIVES), ids=lambda objective: objective.name)
def test_a_tile_is_the_checkers_verdict_at_every_edge(
    promtool: servers.Server, tmp_path: Path, objective: Objective
) -> None:
    target, band = Fraction(str(objective.target)), Fraction(str(objective.warning_band))
    edges = {int(edge * EVENTS) for edge in (target, target + band, Fraction(0), Fraction(1))}
    goods = {good for edge in edges for good in (edge - 1, edge, edge + 1) if 0 <= good <= EVENTS}
    tests = []
    for good in sorted(goods):
        status, _ = held_against(checker.Options(), objective, Fraction(good, EVENTS), "the value")
        series = {**_recorded(objective, good, EVENTS), **SCRAPED_NOW}
        tests.append((series, _tile(objective), [float(STATUSES[status])]))
    assert len({tuple(expected) for _, _, expected in tests}) == (3 if objective.warning_band else 2)
    _expect(promtool, tmp_path, tests)


def test_what_cannot_be_judged_says_why_and_never_passes(promtool: servers.Server, tmp_path: Path) -> None:
    success = BY_NAME["success"]
    other_window = _recorded(success, 500, 500, window="1h")
    _expect(
        promtool,
        tmp_path,
        [
            ({**_recorded(success, 100, 100), **SCRAPED_NOW}, _tile(success), [Status.PASS]),
            ({**_recorded(success, 99, 99), **SCRAPED_NOW}, _tile(success), [Status.TOO_FEW]),
            ({**_recorded(success, 96, 99), **SCRAPED_NOW}, _tile(success), [Status.TOO_FEW]),
            ({**_recorded(success, 0, 1), **SCRAPED_NOW}, _tile(success), [Status.FEW_MISS]),
            # A strict target is missed by what equals it.
            ({**_recorded(success, 19, 20), **SCRAPED_NOW}, _tile(success), [Status.FEW_MISS]),
            ({**_recorded(success, 20, 20), **SCRAPED_NOW}, _tile(success), [Status.TOO_FEW]),
            ({**_recorded(success, 95, 100), **SCRAPED_NOW}, _tile(success), [Status.FAIL]),
            ({**_recorded(success, 0, 0), **SCRAPED_NOW}, _tile(success), [Status.NO_TRAFFIC]),
            # The window is still full of the past, but nothing is scraped any more.
            (
                {**_recorded(success, 500, 500), f'{SCRAPED}{{slo="cmo-015", job="cmo"}}': 0},
                _tile(success),
                [Status.NO_DATA],
            ),
            (_recorded(success, 500, 500), _tile(success), [Status.NO_DATA]),
            ({**other_window, **SCRAPED_NOW}, _tile(success), [Status.NO_DATA]),
            ({}, _tile(success), [Status.NO_DATA]),
        ],
    )


def test_memory_and_users_have_their_own_sides(promtool: servers.Server, tmp_path: Path) -> None:
    memory, users = BY_NAME["memory_growth"], BY_NAME["concurrent_users"]
    grown = {89e6: Status.PASS, 90e6: Status.PASS, 95e6: Status.WARN, 100e6: Status.FAIL, -1e6: Status.PASS}
    held = {49.49: Status.TOO_FEW, 49.5: Status.PASS, 50: Status.PASS}
    tests: list[tuple[dict[str, float], str, list[float]]] = [
        ({}, verdicts.of_value(memory, f"vector({value})"), [status]) for value, status in grown.items()
    ]
    tests += [
        ({}, verdicts.of_held_level(users, f"vector({value})"), [status]) for value, status in held.items()
    ]
    _expect(promtool, tmp_path, tests)


def test_what_would_fail_tells_apart_what_is_not_recorded_from_what_holds(
    promtool: servers.Server, tmp_path: Path
) -> None:
    """Without the rules nothing fails either, which may not look like a pass."""
    macros = Macros(range="5m", rate_interval="1m", interval="15s")
    panel = what_would_fail(OBJECTIVES, width=24, height=6)
    named, rest = (macros.replace(query.expression) for query in panel.queries)
    raw = {'cmo_worker_start_time_seconds{job="cmo", instance="a", worker="0"}': 1_790_000_000.0}
    targets = {name: value for one in counted(OBJECTIVES) for name, value in _target(one).items()}
    unknown = f"({named}) == {Status.NO_DATA:d}"
    everything = [float(len(targets) * Status.NO_DATA)]
    held = _events(BY_NAME["success"], good=99, total=100)
    probed = _events(BY_NAME["success"], good=0, total=100, scenario="probe")
    _expect(
        promtool,
        tmp_path,
        [
            (raw, unknown, []),
            (raw, rest, []),
            ({**raw, **targets}, unknown, everything),
            ({**raw, **targets}, rest, [Status.REST_PASSES]),  # no restart: so much is known
            (targets, unknown, everything),
            (targets, rest, []),
            ({**targets, **held}, unknown, [float((len(targets) - 1) * Status.NO_DATA)]),
            ({**targets, **held}, rest, [Status.REST_PASSES]),
            ({**targets, **probed}, f"({named}) == {Status.FAIL:d}", []),
        ],
    )


@pytest.mark.parametrize("objective", counted(OBJECTIVES), ids=lambda objective: objective.name)
def test_what_would_fail_agrees_with_the_checker_at_the_target(
    promtool: servers.Server, tmp_path: Path, objective: Objective
) -> None:
    macros = Macros(range="5m", rate_interval="1m", interval="15s")
    panel = what_would_fail(OBJECTIVES, width=24, height=6)
    named, rest = (macros.replace(query.expression) for query in panel.queries)
    own = f'({named}) and on (objective, scenario) label_replace(label_replace(vector(1), "objective", '
    own += f'"{objective.name}", "", ""), "scenario", "live", "", "")'
    target = _target(objective)
    at = int(Fraction(str(objective.target)) * 100)
    tests: list[tuple[dict[str, float], str, list[float]]] = []
    for good in (at - 1, at, at + 1):
        status, _ = held_against(checker.Options(), objective, Fraction(good, 100), "the value")
        missed = [float(Status.FAIL)] if status is checker.Status.FAIL else []
        series = {**target, **_events(objective, good=good, total=100)}
        tests.append((series, own, missed))
        tests.append((series, rest, [] if missed else [float(Status.REST_PASSES)]))
    tests.append(({**target, **_events(objective, good=4, total=4)}, own, [Status.TOO_FEW]))
    tests.append(({**target, **_events(objective, good=0, total=0)}, own, [Status.NO_TRAFFIC]))
    _expect(promtool, tmp_path, tests)


def _target(objective: Objective) -> dict[str, float]:
    labels = f'slo="cmo-015", objective="{objective.name}", operator="{objective.operator}", unit="ratio"'
    return {f"{TARGET}{{{labels}}}": objective.target}


def _events(objective: Objective, *, good: int, total: int, scenario: str = "live") -> dict[str, float]:
    """Events as recorded at each of the five evaluations until a minute has passed."""
    labels = f'{{slo="cmo-015", objective="{objective.name}", scenario="{scenario}"}}'
    return {f"{GOOD_EVENTS}{labels}": good, f"{TOTAL_EVENTS}{labels}": total}


def test_every_status_has_words_and_only_what_is_known_a_colour() -> None:
    texts = dict(verdicts.VALUE_TEXTS)
    assert len(set(texts.values())) == len(Status)
    assert {value for value, _ in verdicts.VALUE_COLOURS} == set(texts)
    colours = {texts[value]: colour for value, colour in verdicts.VALUE_COLOURS}
    grey = colours["No data"]
    coloured = {text for text, colour in colours.items() if colour != grey}
    assert coloured == {"PASS", "WARN", "FAIL", "Few, target missed"}
    assert colours["Few, target missed"] == colours["WARN"], "no verdict, and nothing that is well"


def test_a_prober_that_has_stopped_answers_no_more(promtool: servers.Server, tmp_path: Path) -> None:
    """Its last word stays for as long as it is scraped. Expressions are asked a minute after time began."""

    def told(up: int, asked_seconds: int, instance: str = "a") -> dict[str, float]:
        labels = f'{{job="probe", instance="{instance}", canary="popular"}}'
        return {f"cmo_probe_up{labels}": up, f"cmo_probe_last_asked_timestamp_seconds{labels}": asked_seconds}

    [query] = prober(OBJECTIVES, width=3, height=5).queries
    _expect(
        promtool,
        tmp_path,
        [
            (told(1, 50), query.expression, [1]),
            (told(0, 50), query.expression, [0]),
            (told(1, -239), query.expression, [1]),
            (told(1, -240), query.expression, [-1]),
            (told(0, -240), query.expression, [-1]),
            # Two ask the same: one that has stopped says nothing for or against the other.
            ({**told(1, 50), **told(0, -240, "b")}, query.expression, [1]),
            ({**told(0, 50), **told(1, -240, "b")}, query.expression, [0]),
            ({}, query.expression, []),
        ],
    )
