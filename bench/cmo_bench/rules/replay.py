"""Evaluate recording rules over the past, as the real rules and by the real promtool.

``promtool tsdb create-blocks-from rules`` asks a running Prometheus for each rule at each of its group's
evaluations. No rule sees what another has recorded in the same pass, so there is a pass for each layer of
rules that build on each other, and the server opens the new blocks in between.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cmo_bench.rules.backfill import promtool
from cmo_bench.rules.history import HOUR_SECONDS
from cmo_bench.rules.reads import rounded_up
from cmo_bench.rules.rule_groups import render_groups

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cmo_bench.rules.reads import PlacedRule, Plan
    from cmo_bench.rules.rule_groups import RuleGroup
    from cmo_bench.rules.server import Store

# A query of Prometheus returns at most 11,000 points a series, and promtool asks one for each block: 18 h
# of 15 s.
_LONGEST_BLOCK_SECONDS: Final = 18 * HOUR_SECONDS
# Evaluations are spread over the interval by a hash of the group's and the file's name: one name for all
# passes.
_FILE: Final = "rules.yml"


def replay(plan: Plan, store: Store, scratch: Path, start: int, end: int) -> int:
    """Evaluate the rules of a plan up to the end, each as far back as it is needed, but not before the start.

    Returns:
        The number of passes.

    Raises:
        MeasurementError: promtool fails.
    """
    longest = (end - start) * 1000
    passes = 0
    for layer in range(max(placed.layer for placed in plan.rules) + 1):
        mine = [placed for placed in plan.rules if placed.layer == layer]
        for back, together in _by_span(mine, longest):
            (scratch / _FILE).write_text(_document(together), encoding="utf-8")
            first = first_evaluated(max(start, end - back // 1000), end, _longest_interval_seconds(together))
            _evaluate(store, scratch, first, end)
            passes += 1
        store.reopen()
    return passes


def first_evaluated(start: int, end: int, longest_interval: int) -> int:
    """Where promtool may begin, in seconds as all of them.

    It gives a rule up that is not evaluated in the first of its blocks, however many follow. So a start
    shortly before the end of a block is moved to the next one.
    """
    next_block = (start // _LONGEST_BLOCK_SECONDS + 1) * _LONGEST_BLOCK_SECONDS
    return next_block if next_block - start <= longest_interval and next_block < end else start


def _longest_interval_seconds(rules: Sequence[PlacedRule]) -> int:
    return max(placed.group.interval_milliseconds for placed in rules) // 1000


def _by_span(rules: Sequence[PlacedRule], longest: int) -> Iterator[tuple[int, list[PlacedRule]]]:
    def span(placed: PlacedRule) -> int:
        return rounded_up(placed.milliseconds, longest)

    for back, together in itertools.groupby(sorted(rules, key=span), span):
        yield back, list(together)


def _document(rules: Sequence[PlacedRule]) -> str:
    groups: dict[str, RuleGroup] = {}
    for placed in rules:
        before = groups.get(placed.group.name, replace(placed.group, rules=()))
        groups[placed.group.name] = replace(before, rules=(*before.rules, placed.rule))
    return render_groups(list(groups.values()))


def _evaluate(store: Store, scratch: Path, start: int, end: int) -> None:
    promtool(
        ["tsdb", "create-blocks-from", f"--max-block-duration={_LONGEST_BLOCK_SECONDS}s", "rules", "--quiet"],
        [
            f"--url={store.url}",
            f"--start={start}",
            f"--end={end}",
            f"--output-dir={store.blocks}",
            _FILE,
        ],
        scratch,
    )
