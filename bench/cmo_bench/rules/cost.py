"""What rules read: samples a minute, as Prometheus counts them, of every rule of every tool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cmo_slo import recorded

from cmo_bench.exporter.report import Section, Target, Verdict, table
from cmo_bench.rules import pyrra
from cmo_bench.rules.laboratory import OURS, PYRRA, SLOTH
from cmo_bench.rules.reads import reads
from cmo_bench.rules.rule_groups import MINUTE
from cmo_bench.rules.server import MeasurementError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cmo_bench.rules.laboratory import Laboratory, Month
    from cmo_bench.rules.rule_groups import Rule, RuleGroup
    from cmo_bench.rules.server import Store

_SHARE: Final = 0.1
_MOST: Final = 8


@dataclass(frozen=True)
class GroupCost:
    """What one group reads.

    Attributes:
        name: its name.
        interval_milliseconds: how often it is evaluated.
        rules: what one evaluation of each of its rules reads, in samples, with the series or alert it makes.
    """

    name: str
    interval_milliseconds: int
    rules: tuple[tuple[str, int], ...]

    @property
    def samples(self) -> int:
        """What one evaluation of the group reads."""
        return sum(samples for _, samples in self.rules)

    @property
    def samples_per_minute(self) -> float:
        """What it reads in a minute."""
        return self.samples * MINUTE / self.interval_milliseconds


def cost(laboratory: Laboratory) -> Section:
    """Measure every tool's rules, side by side.

    Raises:
        MeasurementError: series that must be there are not.
    """
    month = laboratory.month
    _check_recorded(laboratory, month)
    costs = {tool: group_costs(groups, month.store, month.end) for tool, groups in month.groups.items()}
    silent = {tool: silent_selectors(groups, month.store, month.end) for tool, groups in month.groups.items()}
    for tool in (SLOTH, PYRRA):
        if silent[tool]:
            raise MeasurementError(f"Selectors of {tool}'s rules find no samples: {', '.join(silent[tool])}")
    burn_rates = [group for group in costs[PYRRA] if not group.name.endswith(pyrra.INCREASE)]
    own = _per_minute(costs[OURS])
    rows = [
        (
            f"**{tool}**" if tool == OURS else tool,
            str(sum(len(group.rules) for group in its_costs)),
            f"{_per_minute(its_costs):,.0f}",
            f"{own / _per_minute(its_costs):.3f}",
        )
        for tool, its_costs in {**costs, f"{PYRRA}, burn rates and their alerts alone": burn_rates}.items()
    ]
    return Section(
        "Samples read",
        _text(laboratory, silent[OURS]),
        table(("rules of", "rules", "samples a minute", "ours, as a share"), rows),
        tuple(_targets(costs)),
    )


def cost_by_group(laboratory: Laboratory) -> Section:
    """Where ours go."""
    month = laboratory.month
    rows = [
        (
            one.name,
            f"{one.interval_milliseconds / 1000:g} s",
            str(len(one.rules)),
            f"{one.samples:,}",
            f"{one.samples_per_minute:,.0f}",
        )
        for one in group_costs(month.groups[OURS], month.store, month.end)
    ]
    return Section(
        "Samples read, by group",
        "The groups of ours: what one evaluation reads, and what that is in a minute.",
        table(("group", "every", "rules", "samples an evaluation", "samples a minute"), rows),
    )


def cost_by_rule(laboratory: Laboratory) -> Section:
    """Which of ours read most."""
    month = laboratory.month
    costs = [
        (samples * MINUTE / group.interval_milliseconds, group.name, made)
        for group in group_costs(month.groups[OURS], month.store, month.end)
        for made, samples in group.rules
    ]
    rows = [(made, name, f"{samples:,.0f}") for samples, name, made in sorted(costs, reverse=True)[:_MOST]]
    return Section(
        "Samples read, by rule",
        f"The {_MOST} rules of ours that read most.",
        table(("makes", "group", "samples a minute"), rows),
    )


def group_costs(groups: Iterable[RuleGroup], store: Store, moment: float) -> list[GroupCost]:
    """Ask each rule's expression as Prometheus would, and take what it says that it has read."""
    return [
        GroupCost(
            group.name,
            group.interval_milliseconds,
            tuple((_made(rule), store.query(rule.expression, moment).samples_read) for rule in group.rules),
        )
        for group in groups
    ]


def _made(rule: Rule) -> str:
    window = rule.labels.get("window")
    return f"{rule.record or rule.alert}{f' of {window}' if window else ''}"


def silent_selectors(groups: Iterable[RuleGroup], store: Store, moment: float) -> list[str]:
    """Selectors that find no samples at a moment: a rule that reads nothing is cheap."""
    selectors = {read.selector for group in groups for rule in group.rules for read in reads(rule.expression)}
    return sorted(selector for selector in selectors if not store.query(_count(selector), moment).result)


def _count(selector: str) -> str:
    # The range is the last that stands there: behind it comes at most an offset.
    ranged = "[" in selector.rpartition("}")[2]
    return f"count(count_over_time({selector}))" if ranged else f"count({selector})"


def _per_minute(costs: Iterable[GroupCost]) -> float:
    return sum(group.samples_per_minute for group in costs)


def _targets(costs: dict[str, list[GroupCost]]) -> Iterator[Target]:
    own = _per_minute(costs[OURS])
    for tool in (SLOTH, PYRRA):
        share = own / _per_minute(costs[tool])
        yield Target(
            f"All of our rules read at most a tenth of the samples that {tool}'s read",
            f"{share:.3f}; at most {_SHARE:.2f}",
            Verdict.HOLDS if share <= _SHARE else Verdict.FAILED,
        )


def _check_recorded(laboratory: Laboratory, month: Month) -> None:
    for objective in laboratory.compared:
        for series in (recorded.GOOD_EVENTS_IN_WINDOW, recorded.TOTAL_EVENTS_IN_WINDOW):
            selector = f'{series}{{objective="{objective.name}",window="30d"}}'
            if not month.store.query(selector, month.end).result:
                raise MeasurementError(f"No rule has recorded {selector}: what ours read cannot be told.")


def _text(laboratory: Laboratory, silent: Sequence[str]) -> str:
    names = ", ".join(f"{one.name} ({one.target:.0%})" for one in laboratory.compared)
    found = "Every selector of ours finds samples."
    if silent:
        found = f"Selectors of ours that find nothing here: {', '.join(f'`{one}`' for one in silent)}."
    return (
        f"The objectives {names}. Every expression is asked as an instant query at the end of the "
        "history, as the rule manager does it; `totalQueryableSamples` is what the engine has loaded, "
        "times the evaluations a minute. Ours are all rules of the committed file, alerts and what else "
        f"it watches included; Sloth and Pyrra have rules for the named objectives alone. {found}"
    )
