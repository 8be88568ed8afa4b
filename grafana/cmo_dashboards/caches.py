"""Of the dashboard "CMO components" the caches: whether they answer, and whether they are too small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue
from cmo_slo.indicators import RatioIndicator

from cmo_dashboards import expressions as promql
from cmo_dashboards.colours import target_line
from cmo_dashboards.panels import OR_NO_DATA, Panel, Query, Shape, Unit, to_dashboard
from cmo_dashboards.promised import find, runbook_links, target_text

if TYPE_CHECKING:
    from cmo_slo.model import Objectives

_RATE: Final = promql.RATE_INTERVAL
_MOST_CALLS: Final = 100_000
_NO_TIER: Final = f"No cache is watched, {OR_NO_DATA}"


def caches(objectives: Objectives) -> tuple[Panel, ...]:
    """Panels of the caches, hits before contents."""
    return (*_cache_hits(objectives), *_cache_contents())


def _cache_hits(objectives: Objectives) -> tuple[Panel, ...]:
    objective, _ = find(objectives, "cache_hits", RatioIndicator)
    of = promql.Recorded(objectives.name, objective.name)
    lookups = catalogue.CACHE_REQUESTS.name
    failed = promql.rate(lookups, promql.CHOSEN, 'result="error"')
    hits, answered = (
        f"sum by (tier) ({promql.rate(lookups, promql.CHOSEN, results)})"
        for results in ('result="hit"', 'result=~"hit|miss"')
    )
    return (
        Panel(
            title=f"Queries answered by a cache (target {target_text(objective)})",
            shape=Shape.TIME_SERIES,
            width=8,
            height=8,
            unit=Unit.RATIO,
            answers="How many queries do the caches answer? One count a query, whichever tier it was, so "
            "that a miss in L1 and a hit in L2 is a hit; exact. Judged is this rate over all scenarios of a "
            f"test together, which is on *{objectives.name.upper()} compliance*.",
            when_red="Below the dashed line: see beside which tier does not hit. After a deploy the caches "
            "fill first.",
            queries=(Query(promql.ratio(of, promql.EACH, _RATE), "{{scenario}}", 0.0, 1.0),),
            steps=target_line(objective),
            highest=1.0,
            links=(
                *runbook_links(objectives, "CMOCacheHitRateLow"),
                to_dashboard("As it is judged", objectives.name),
            ),
        ),
        Panel(
            title="Look-ups that hit, by tier",
            shape=Shape.TIME_SERIES,
            width=8,
            height=8,
            unit=Unit.RATIO,
            answers="Which tier answers what it is asked? Hits of hits and misses in each tier by itself. "
            "Not the rate of queries beside, and not to be added up to it: L2 is asked only for what L1 "
            "missed.",
            when_red="L1 low with many evictions: it is too small. L3 without a line: "
            "nobody reaches it, or it fails (*Look-ups that fail*).",
            queries=(Query(f"{hits} / ({answered} > 0)", "{{tier}}", 0.0, 1.0),),
            highest=1.0,
            no_value=f"No look-ups, {OR_NO_DATA}",
        ),
        Panel(
            title="Look-ups that fail, by tier",
            shape=Shape.TIME_SERIES,
            width=8,
            height=8,
            unit=Unit.PER_SECOND,
            answers="Is a cache away? Look-ups a second that ended in an error; they are neither hits nor "
            "misses.",
            when_red="It should be zero: L3 is Redis, ask whether it answers; L2 is a "
            "file, look at the disk.",
            queries=(
                Query(
                    f"sum by (tier) ({failed})",
                    "{{tier}}",
                    0.0,
                    _MOST_CALLS,
                ),
            ),
            no_value=_NO_TIER,
        ),
    )


def _cache_contents() -> tuple[Panel, ...]:
    def of_tiers(title: str, counter: str, answers: str, when_red: str) -> Panel:
        return Panel(
            title=title,
            shape=Shape.TIME_SERIES,
            width=8,
            height=7,
            unit=Unit.PER_SECOND,
            answers=answers,
            when_red=when_red,
            queries=(Query(f"sum by (tier) ({promql.rate(counter)})", "{{tier}}", 0.0, _MOST_CALLS),),
            no_value=_NO_TIER,
        )

    return (
        of_tiers(
            "Evictions, by tier",
            catalogue.CACHE_EVICTIONS.name,
            "Is a tier too small? Answers dropped each second for want of room.",
            "Evictions with a falling hit rate: give the tier more entries.",
        ),
        of_tiers(
            "Expirations, by tier",
            catalogue.CACHE_EXPIRATIONS.name,
            "Do answers live long enough? Answers dropped each second because their time was up.",
            "Expirations with a falling hit rate: answers are asked for again after their time to live.",
        ),
        Panel(
            title="Answers held, by tier",
            shape=Shape.TIME_SERIES,
            width=8,
            height=7,
            unit=Unit.COUNT,
            answers="How full are the caches? Of a tier that each worker has by itself, the fullest; the "
            "largest instance.",
            when_red="A fall to zero is a restart, or somebody who emptied it: misses follow.",
            queries=(Query(f"max by (tier) ({catalogue.CACHE_ENTRIES.name})", "{{tier}}", 0.0, 1e9),),
            no_value=_NO_TIER,
        ),
    )
