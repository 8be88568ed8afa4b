"""Where a run measures: a folder, and a month in a real Prometheus with what all rules record of it."""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import click
from cmo_slo.objectives import find_objectives, load_objectives
from cmo_stack import configuration

from cmo_bench.rules import pyrra, sloth
from cmo_bench.rules.backfill import Written, backfill
from cmo_bench.rules.history import DAY_SECONDS, HOUR_SECONDS, STEP_SECONDS, History, month
from cmo_bench.rules.objective import OtherObjective, other_objectives
from cmo_bench.rules.paging import PACES, Pace
from cmo_bench.rules.reads import Plan, plan
from cmo_bench.rules.replay import replay
from cmo_bench.rules.rule_groups import SECOND, parse_groups
from cmo_bench.rules.server import Store
from cmo_bench.rules.surroundings import surround
from cmo_bench.rules.watched import OBJECTIVES, Watched

if TYPE_CHECKING:
    from types import TracebackType

    from cmo_slo.model import Objectives

    from cmo_bench.rules.rule_groups import RuleGroup

OURS: Final = "cmo-observability"
SLOTH: Final = "Sloth"
PYRRA: Final = "Pyrra"

# Hours before the 30 days: what a rule records first of all needs something before it.
_LEAD_IN_SECONDS: Final = 3 * HOUR_SECONDS
RULES_BEGIN_SECONDS: Final = 600
"""How long after the first sample rules are first evaluated."""

# What is asked for lies in the past by so much at least.
_BEFORE_NOW_SECONDS: Final = 600


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        days: how long the history is.
        repetitions: times from fault to page, of each pace.
        paces: which are measured.
    """

    days: int = 30
    repetitions: int = 20
    paces: tuple[Pace, ...] = PACES


QUICK: Final = Effort(days=2, repetitions=2, paces=PACES[:1])


@dataclass(frozen=True)
class Month:
    """A history in a running Prometheus, and what the rules of every tool have recorded of it.

    Attributes:
        history: the events.
        store: the Prometheus.
        groups: the rule groups of each tool.
        backfilled: samples of the history.
        surrounding: samples of everything else that is exposed.
        passes: how many passes of promtool have evaluated rules, all tools together.
        block_bytes: size of all blocks.
        seconds: how long it took.
    """

    history: History
    store: Store
    groups: dict[str, tuple[RuleGroup, ...]]
    backfilled: Written
    surrounding: Written
    passes: int
    block_bytes: int
    seconds: float

    @property
    def end(self) -> int:
        """The moment at which everything is asked, in Unix time."""
        return self.history.end


class Laboratory:
    """A context manager that holds what the measurements share."""

    def __init__(self, effort: Effort) -> None:
        self.effort = effort
        self.objectives: Objectives = load_objectives(find_objectives(OBJECTIVES))
        self.compared: tuple[OtherObjective, ...] = other_objectives(self.objectives)
        self.directory = Path()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="cmo-bench-")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def rule_groups(self) -> dict[str, tuple[RuleGroup, ...]]:
        """The groups of each tool for the same objectives, at the same scrape interval."""
        ours = configuration.rule_file(OBJECTIVES, STEP_SECONDS, self.directory)
        return {
            OURS: parse_groups(ours.read_text(encoding="utf-8")),
            SLOTH: sloth.groups(self.compared, STEP_SECONDS * SECOND),
            PYRRA: pyrra.groups(self.compared),
        }

    @cached_property
    def month(self) -> Month:
        """The history in Prometheus, made when it is first asked for.

        Raises:
            MeasurementError: promtool or Prometheus fails.
        """
        began = time.monotonic()
        end = int(time.time() - _BEFORE_NOW_SECONDS) // HOUR_SECONDS * HOUR_SECONDS
        history = month(end, self.effort.days * DAY_SECONDS + _LEAD_IN_SECONDS)
        store = Store(self.directory)
        _say("backfills the history")
        backfilled = backfill(history, store.blocks, self.directory)
        groups = self.rule_groups()
        longest = (history.end - history.start) * 1000
        _say("looks at what else is exposed")
        surrounding = self._surround(plan(groups[OURS], longest), history, store)
        self._stack.enter_context(store)
        _say("evaluates the rules over the history")
        everything = plan([group for of_tool in groups.values() for group in of_tool], longest)
        start = history.start + RULES_BEGIN_SECONDS
        passes = replay(everything, store, self.directory, start, history.end)
        size = sum(file.stat().st_size for file in store.blocks.rglob("*") if file.is_file())
        seconds = time.monotonic() - began
        return Month(history, store, groups, backfilled, surrounding, passes, size, seconds)

    def _surround(self, its_plan: Plan, history: History, store: Store) -> Written:
        with Watched(self.directory / "surroundings", 1) as watched:
            watched.wait_until_evaluated()
            expositions = watched.expositions()
        return surround(its_plan, history, expositions, store.blocks, self.directory)


def _say(what: str) -> None:
    click.echo(f"bench-rules {what}", err=True)
    sys.stderr.flush()
