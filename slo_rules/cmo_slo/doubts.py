"""What casts doubt on a run as a whole: targets, clocks, restarts.

A doubt about one scenario alone is a problem of its count (`cmo_slo.count`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue

from cmo_slo.samples import at_clock
from cmo_slo.span import CLOCK_MARGIN_SECONDS, START_TIME_RESOLUTION_SECONDS, find_falls, find_restarts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cmo_slo.count import ScenarioCount
    from cmo_slo.manifest import Run, ScenarioRun
    from cmo_slo.samples import Clock, Evidence, Target, Targets
    from cmo_slo.span import Restart

NOTHING_JUDGED: Final = "Nothing is judged on doubtful data: "
_IN_DATA_CLOCK_SECONDS: Final = 2.0
"""How much later than its manifest a run may begin, or earlier end, in the samples of another host."""


@dataclass(frozen=True)
class Doubts:
    """Why nothing of a run may pass.

    ``restarts`` are those inside the run, or inside the scenarios of it that are judged. ``problems`` are all
    other doubts, in words.
    """

    problems: tuple[str, ...]
    restarts: tuple[Restart, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """All of them; empty when all is well."""
        return (*self.problems, *restart_words(self.restarts))


def find_doubts(
    targets: Targets,
    run: Run,
    ran: Sequence[ScenarioRun],
    counts: Mapping[str, ScenarioCount],
    evidence: Evidence,
) -> Doubts:
    """Look for what makes every number of a run doubtful.

    Args:
        targets: what was scraped.
        run: the whole run.
        ran: those of its scenarios that are judged.
        counts: what was counted in them.
        evidence: the raw samples.
    """
    return Doubts(_run_problems(targets, counts, evidence), _run_restarts(targets.targets, run, ran, counts))


def _run_problems(
    targets: Targets, counts: Mapping[str, ScenarioCount], evidence: Evidence
) -> tuple[str, ...]:
    problems = list(targets.problems)
    if not targets.targets and not problems:
        selected = next((reading.query for reading in evidence.readings), "up")
        problems.append(
            f"There is not one sample from the time of the run ({selected} is empty up to "
            f"{at_clock(evidence.evaluation_time)}). Was the service scraped by this Prometheus, under this "
            "job (--job, --selector), and are the samples still stored?"
        )
    return (*problems, *_clock_problems(evidence.clock, counts))


def _clock_problems(clock: Clock, counts: Mapping[str, ScenarioCount]) -> list[str]:
    if clock.difference_seconds is not None:
        if abs(clock.difference_seconds) + clock.uncertainty_seconds <= CLOCK_MARGIN_SECONDS:
            return []
        differing = (
            f"The clock of Prometheus differs from this host's by {clock.difference_seconds:+.3f} s, give or "
            f"take {clock.uncertainty_seconds:.3f} s; at most {CLOCK_MARGIN_SECONDS} s can be allowed for. "
            "Synchronise the clocks, and run again."
        )
        return [differing]
    problems = []
    for count in counts.values():
        late, early = _shift_in_data(count)
        if max(late, early) > _IN_DATA_CLOCK_SECONDS:
            problems.append(
                f"In the samples {count.scenario.name} begins {max(late, 0.0):.1f} s late or more, or ends "
                f"at least {max(early, 0.0):.1f} s early against its manifest: the clocks of the load test "
                "and of Prometheus differ. Synchronise them, and run again."
            )
    return problems


def _shift_in_data(count: ScenarioCount) -> tuple[float, float]:
    """At least how much later the first question came, and the last ended, than the manifest says."""
    firsts, lasts = [], []
    for index, span in enumerate(count.spans):
        started = _moves(count, catalogue.QUERIES_STARTED.name, index)
        finished = _moves(count, catalogue.QUERIES.name, index)
        if started and finished:
            before = span.scrapes[started[0] - 1] if started[0] else span.base
            firsts.append(before.time if before else count.scenario.start)
            lasts.append(span.scrapes[finished[-1]].end)
    if not firsts:
        return 0.0, 0.0
    return min(firsts) - count.scenario.start, count.scenario.end - max(lasts)


def _moves(count: ScenarioCount, name: str, span: int) -> list[int]:
    """The scrape intervals of one target in which any series of that name rose."""
    blocks = [tally.blocks[span] for tally in count.rises.get(name, {}).values()]
    return [index for index, values in enumerate(zip(*blocks, strict=True)) if any(values)]


def _run_restarts(
    targets: Sequence[Target],
    run: Run,
    ran: Sequence[ScenarioRun],
    counts: Mapping[str, ScenarioCount],
) -> tuple[Restart, ...]:
    """Every restart inside the run, or inside those scenarios of it that are judged."""
    whole = len(ran) == len(run.scenarios)
    start = run.start if whole or not ran else min(one.start for one in ran)
    end = run.end if whole or not ran else max(one.end for one in ran)
    found = [restart for count in counts.values() for restart in count.restarts]
    for target in targets:
        told = find_restarts(target)
        found += [
            one
            for one in (*told, *find_falls(target, told))
            if start - START_TIME_RESOLUTION_SECONDS < one.at <= end + START_TIME_RESOLUTION_SECONDS
        ]
    return tuple(dict.fromkeys(found))


def restart_words(restarts: Sequence[Restart]) -> list[str]:
    """What restarts mean for counts, one sentence each."""
    return [
        f"{one.what} on {one.target} during the run (at {at_clock(one.at)}, seen {at_clock(one.seen)}): what "
        "was counted and not yet scraped is lost, so no count of this run is exact."
        for one in restarts
    ]
