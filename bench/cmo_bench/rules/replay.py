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
_LONGEST_BLOCK: Final = "18h"
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
            _evaluate(store, scratch, max(start, end - back // 1000), end)
            passes += 1
        store.reopen()
    return passes


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
        ["tsdb", "create-blocks-from", f"--max-block-duration={_LONGEST_BLOCK}", "rules", "--quiet"],
        [
            f"--url={store.url}",
            f"--start={start}",
            f"--end={end}",
            f"--output-dir={store.blocks}",
            _FILE,
        ],
        scratch,
    )
