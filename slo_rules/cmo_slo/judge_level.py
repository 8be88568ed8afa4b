"""Judge levels: users held, and memory grown, as `cmo_slo.levels` measures them."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from cmo_slo.comparison import COMPARE, amount, cut_off, held_against
from cmo_slo.levels import held_level, memory_growth
from cmo_slo.verdict import Status, Unit, exact

if TYPE_CHECKING:
    from cmo_slo.count import ScenarioCount
    from cmo_slo.indicators import GrowthIndicator, HeldLevelIndicator
    from cmo_slo.model import Objective
    from cmo_slo.verdict import Options


def judge_held(
    options: Options, objective: Objective, indicator: HeldLevelIndicator, count: ScenarioCount
) -> Unit:
    """Judge whether as many users as were promised were there throughout one scenario.

    Raises:
        UncountableError: how many there were is not known.
    """
    scope, scenario = count.scenario.name, count.scenario
    held = held_level(count, indicator)
    needed = exact(objective.target) * (1 - exact(indicator.tolerance))
    compare = COMPARE[objective.operator]
    details = {
        "lowest": held.at_least,
        "lowest_at_most": held.at_most,
        "highest": held.highest,
        "intervals": float(held.intervals),
        "offered": float(scenario.users),
    }
    value, series = held.at_least, (indicator.integral, indicator.clock)
    shown = f"{cut_off(value, 2)} users in the lowest of {held.intervals} intervals"
    if scenario.users < objective.target:
        status = Status.INCONCLUSIVE
        reason = f"Only {scenario.users} users were offered, of {objective.target:g} that are to be held."
    elif not compare(Fraction(held.at_most), needed):
        status = Status.FAIL
        wanted = f"{objective.operator} {float(needed):g}"
        reason = f"{scenario.users} users were offered, but {shown} is not {wanted}."
        value = held.at_most
    elif held.highest > scenario.users * (1 + indicator.tolerance):
        status = Status.INCONCLUSIVE
        reason = (
            f"{cut_off(held.highest, 2)} users were counted and {scenario.users} offered: sessions of an "
            "earlier run are still open, or one user is counted on several instances."
        )
    elif not compare(Fraction(held.at_least), needed):
        status = Status.INCONCLUSIVE
        reason = (
            f"From {cut_off(held.at_least, 2)} to {cut_off(held.at_most, 2)} users were held: a user may be "
            f"counted on several instances, so whether {objective.target:g} were there is not known."
        )
    else:
        status, reason = _warned(options, objective, Fraction(held.at_least), shown)
    return Unit(scope, status, reason, value, details=details, series=series)


def _warned(options: Options, objective: Objective, value: Fraction, shown: str) -> tuple[Status, str]:
    """PASS or WARN of a level that is held within its tolerance."""
    wanted = f"{objective.operator} {amount(objective, exact(objective.target))}"
    if value >= exact(objective.target) + exact(objective.warning_band) or not objective.warning_band:
        return Status.PASS, f"{shown}, wanted {wanted}."
    status = Status.FAIL if options.strict else Status.WARN
    return status, f"{shown}, wanted {wanted}, and near it{' (--strict)' if options.strict else ''}."


def judge_growth(
    options: Options, objective: Objective, indicator: GrowthIndicator, count: ScenarioCount
) -> Unit:
    """Judge the instance whose memory grew most in one scenario.

    Raises:
        UncountableError: the base or the peak of some worker is not known.
    """
    growths = memory_growth(count, indicator)
    worst = growths[0]
    details = {
        f"{growth.target} worker {worker} grew": growth.peak[worker] - growth.base[worker]
        for growth in growths
        for worker in growth.base
    }
    shown = f"{cut_off(worst.bytes / 1e6, 1)} MB on {worst.target}"
    status, reason = held_against(options, objective, Fraction(worst.bytes), shown)
    series = (indicator.peak.metric, indicator.base.metric)
    return Unit(count.scenario.name, status, reason, worst.bytes, details=details, series=series)
