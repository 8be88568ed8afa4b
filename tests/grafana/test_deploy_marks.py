"""A deploy is marked where a version comes up that was not the last to be seen, and nowhere else.

A mark that an outage draws would send on-call to take back a release that had nothing to do with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from cmo_dashboards import Macros, shipped_dashboards
from cmo_dashboards.document import expressions

from .asked_of_promtool import ask_promtool

if TYPE_CHECKING:
    from pathlib import Path

    from cmo_stack import servers

STEP: Final = 15
STEPS: Final = 140
MACROS: Final = Macros(range="1h", rate_interval="1m", interval=f"{STEP}s")
UP, MISSED, GONE = " 1", " _", " stale"

Runs = dict[tuple[str, str], tuple[tuple[int, str], ...]]
"""Of each instance and version: what was scraped in each step from a second on."""

CASES: Final[dict[str, tuple[Runs, dict[str, tuple[int, ...]]]]] = {
    "one version": ({("a", "1"): ((0, UP),)}, {"1": (0,)}),
    "a deploy": ({("a", "1"): ((0, UP), (615, GONE)), ("a", "2"): ((630, UP),)}, {"1": (0,), "2": (630,)}),
    "an outage": ({("a", "1"): ((0, UP), (600, GONE), (1800, UP))}, {"1": (0,)}),
    "a missed scrape": ({("a", "1"): ((0, UP), (600, GONE), (615, UP))}, {"1": (0,)}),
    "a deploy after an outage": (
        {("a", "1"): ((0, UP), (600, GONE)), ("a", "2"): ((1515, UP),)},
        {"1": (0,), "2": (1515,)},
    ),
    "one instance after the other, with missed scrapes": (
        {
            ("a", "1"): ((0, UP), (900, GONE)),
            ("b", "1"): ((0, UP), (600, GONE)),
            ("b", "2"): ((615, UP), (720, GONE), (750, UP)),
            ("a", "2"): ((930, UP),),
        },
        {"1": (0,), "2": (615,)},
    ),
    "taken back": (
        {
            ("a", "1"): ((0, UP), (600, GONE), (1230, UP)),
            ("a", "2"): ((615, UP), (1215, GONE)),
        },
        {"1": (0, 1230), "2": (615,)},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_deploy_is_marked_where_the_version_changes(
    promtool: servers.Server, tmp_path: Path, case: str
) -> None:
    runs, marked = CASES[case]
    [asked] = {
        MACROS.replace(expression)
        for board in shipped_dashboards()
        for place, expression in expressions(board.document)
        if place == "annotation Deploys"
    }
    running = {
        (version, second)
        for (_, version), parts in runs.items()
        for second, scraped in _each_step(parts)
        if scraped == UP
    }
    test = {
        "interval": f"{STEP}s",
        "input_series": [
            {
                "series": f'cmo_build_info{{job="cmo", instance="{instance}", version="{version}"}}',
                "values": "".join(scraped for _, scraped in _each_step(parts)),
            }
            for (instance, version), parts in runs.items()
        ],
        "promql_expr_test": [
            {
                "expr": f"group by (version) ({asked})",
                "eval_time": f"{second}s",
                "exp_samples": [
                    {"labels": f'{{version="{version}"}}', "value": 1}
                    for version, begins in marked.items()
                    if (version, second) in running and any(_is_marked(second, begin) for begin in begins)
                ],
            }
            for second in _telling(runs)
        ],
    }
    assert ask_promtool(promtool, tmp_path, [test]) == ""


def _each_step(parts: tuple[tuple[int, str], ...]) -> list[tuple[int, str]]:
    seconds = range(0, STEPS * STEP, STEP)
    return [
        (second, next((scraped for begin, scraped in reversed(parts) if begin <= second), MISSED))
        for second in seconds
    ]


def _telling(runs: Runs) -> list[int]:
    """Every step from shortly before anything changes to when its mark has ended, and some between."""
    changes = {begin for parts in runs.values() for begin, _ in parts}
    return [
        second
        for second in range(0, STEPS * STEP, STEP)
        if second % 300 == 0 or any(-2 * STEP <= second - change <= 120 for change in changes)
    ]


def _is_marked(second: int, begin: int) -> bool:
    """Until a step after the whole minute at which it is first looked for."""
    return begin <= second < -(-begin // 60) * 60 + STEP
