"""Verdicts on scripted worlds by the shipped objectives, and the parts of a verdict that tests look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmo_slo.judge import judge
from cmo_slo.objectives import find_objectives, load_objectives
from cmo_slo.verdict import Options, Unit, Verdict

if TYPE_CHECKING:
    from cmo_slo.samples import Evidence

    from .scripted import World

CMO_015 = load_objectives(find_objectives("cmo-015"))


def judged(world: World, evidence: Evidence | None = None, **options: bool) -> Verdict:
    return judge(CMO_015, world.run(), evidence or world.evidence(), options=Options(**options))


def unit(verdict: Verdict, objective: str, scope: str = "academic_research") -> Unit:
    result = next(one for one in verdict.results if one.objective.name == objective)
    return next(one for one in result.units if one.scope == scope)
