"""Raw samples as Prometheus stored them, sorted by the target they were scraped from.

Everything that counts works on these and not on PromQL functions: `increase` extrapolates and a sum over
targets mixes samples of different moments, so both were wrong in every other short run that was tried. Plain
data and pure functions; reading it is `cmo_slo.fetch`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Final, TypeAlias

from cmo_exporter import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

UP: Final = "up"
SCRAPE_DURATION: Final = "scrape_duration_seconds"
PROCESS_START_TIME: Final = "process_start_time_seconds"
"""What Prometheus and prometheus-client add to our own metrics; the checker reads these three too."""

LARGEST_EXACT: Final = 2.0**53
"""Up to here a float holds every whole number. Nothing measured is larger, and sums could overflow."""

START_TIMES: Final = (PROCESS_START_TIME, catalogue.WORKER_START_TIME.name)

_HISTOGRAM_SUFFIXES: Final = ("_bucket", "_count", "_sum")

LabelKey: TypeAlias = tuple[tuple[str, str], ...]
"""The labels that a metric has of itself, sorted; ``le`` as ``repr(float)``: "2" and "2.0" are one edge."""


def at_clock(time: float) -> str:
    """A moment as people read it: UTC to the millisecond, without the date."""
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%H:%M:%S.%f")[:-3] + "Z"
    except (OverflowError, ValueError, OSError):
        return f"{time:g} s"  # a start time that a service tells in other units than seconds, for example


@dataclass(frozen=True)
class Series:
    """One series: its labels without ``__name__``, and its finite samples by Unix time, oldest first.

    ``broken`` are the times at which it had a sample that is no number: NaN, or a marker of staleness.
    """

    name: str
    labels: Mapping[str, str]
    points: Mapping[float, float]
    broken: frozenset[float] = frozenset()


@dataclass(frozen=True)
class Reading:
    """What one query answered; the provenance of every number made from it."""

    query: str
    evaluation_time: float
    series: tuple[Series, ...]

    @property
    def samples(self) -> int:
        """How many finite samples were read."""
        return sum(len(series.points) for series in self.series)


@dataclass(frozen=True)
class Clock:
    """How the clock that wrote the manifest compares with the one that timed the samples.

    ``difference_seconds`` is ``None`` where the two could not be compared directly, because the manifest was
    written on another host; the data itself is then looked at.
    """

    difference_seconds: float | None
    uncertainty_seconds: float = 0.0


@dataclass(frozen=True)
class Evidence:
    """All that a verdict is made from, beside the objectives and the manifest."""

    readings: tuple[Reading, ...]
    clock: Clock
    evaluation_time: float


@dataclass(frozen=True)
class Scrape:
    """One scrape that the target answered. ``time`` is its start: values were rendered up to ``end``."""

    time: float
    duration: float

    @property
    def end(self) -> float:
        """When the last value had certainly been rendered, in Unix seconds."""
        return self.time + self.duration


@dataclass(frozen=True)
class Target:
    """One scraped instance with its scrapes and its series by name and own labels."""

    labels: Mapping[str, str]
    scrapes: tuple[Scrape, ...]
    failed_scrapes: tuple[float, ...]
    series: Mapping[str, Mapping[LabelKey, Series]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Job and instance, as people write them."""
        return f"{self.labels.get('job', '?')}/{self.labels.get('instance', '?')}"

    @property
    def interval_seconds(self) -> float | None:
        """The usual spacing of its scrapes: the median, failed ones included."""
        times = sorted([*(scrape.time for scrape in self.scrapes), *self.failed_scrapes])
        gaps = sorted(later - earlier for earlier, later in pairwise(times))
        return gaps[len(gaps) // 2] if gaps else None

    def select(self, name: str, **labels: str) -> dict[LabelKey, Series]:
        """The series of a name that have all the given own labels."""
        wanted = set(labels.items())
        return {key: series for key, series in self.series.get(name, {}).items() if wanted <= set(key)}

    def worker_starts(self, scrape: Scrape) -> dict[tuple[str, LabelKey], float]:
        """Every start time that the target told in a scrape, by metric and worker."""
        return {
            (name, key): series.points[scrape.time]
            for name in START_TIMES
            for key, series in self.series.get(name, {}).items()
            if scrape.time in series.points
        }


@dataclass(frozen=True)
class Targets:
    """The targets of a run, and what makes them unfit to be counted, in words."""

    targets: tuple[Target, ...]
    problems: tuple[str, ...]


def own_labels(name: str) -> frozenset[str]:
    """The labels that the catalogue gives a series; every other label comes from the scraping."""
    metric = catalogue.BY_NAME.get(name)
    for suffix in _HISTOGRAM_SUFFIXES:
        metric = metric or catalogue.BY_NAME.get(name.removesuffix(suffix))
    names = frozenset(metric.labels) if metric else frozenset[str]()
    return names | {"le"} if name.endswith("_bucket") else names


def label_key(name: str, labels: Mapping[str, str]) -> LabelKey:
    """The own labels of a series in a form that two spellings of one bucket edge share."""
    own = own_labels(name)
    return tuple(
        sorted((key, _edge(value) if key == "le" else value) for key, value in labels.items() if key in own)
    )


def _edge(text: str) -> str:
    try:
        return repr(float(text))
    except ValueError:
        return text


def find_targets(evidence: Evidence, since: float) -> Targets:
    """Sort the series by target, and refuse what could be counted twice or not at all.

    Args:
        evidence: the raw samples; those of `up` and `scrape_duration_seconds` say what was scraped, and when.
        since: start of the run; a target that was not scraped after it is no part of the run.
    """
    series = [one for reading in evidence.readings for one in reading.series]
    ups = [one for one in series if one.name == UP and any(time >= since for time in one.points)]
    doubled = _doubled_targets([one.labels for one in ups])
    if doubled:
        return Targets((), doubled)
    durations = {_frozen(one.labels): one for one in series if one.name == SCRAPE_DURATION}
    problems: list[str] = []
    bare = [_target(up, durations.get(_frozen(up.labels)), problems) for up in ups]
    rest = [one for one in series if one.name not in (UP, SCRAPE_DURATION)]
    targets = tuple(_with_series(target, rest, problems) for target in bare)
    problems += _orphans(rest, targets, since)
    problems += _same_process(targets)
    return Targets(targets, tuple(dict.fromkeys(problems)))


def _frozen(labels: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset(labels.items())


def _target(up: Series, duration: Series | None, problems: list[str]) -> Target:
    known = duration.points if duration else {}
    answered = [time for time, value in up.points.items() if value == 1.0]
    if any(value < 0 for value in known.values()):
        # A scrape that ended before it began could pass for one that was over before the start.
        problems.append(
            f"Some scrapes of {up.labels.get('instance', '?')} have a negative {SCRAPE_DURATION}, so it is "
            "not known when their values were measured."
        )
    if any(time not in known for time in answered):
        problems.append(
            f"Some scrapes of {up.labels.get('instance', '?')} have no {SCRAPE_DURATION}, so it is not known "
            "when their values were measured."
        )
    return Target(
        labels=dict(up.labels),
        scrapes=tuple(Scrape(time, known[time]) for time in answered if time in known),
        failed_scrapes=tuple(time for time, value in up.points.items() if value != 1.0),
    )


def _doubled_targets(label_sets: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    by_instance: dict[str, list[Mapping[str, str]]] = {}
    for labels in label_sets:
        by_instance.setdefault(labels.get("instance", ""), []).append(labels)
    return tuple(
        f"The target {instance} is stored {len(found)} times, under labels that differ in "
        f"{_differing(found)}: its events would be counted {len(found)} times. Choose one with "
        f"--selector, for example --selector '{_suggestion(found)}'."
        for instance, found in by_instance.items()
        if len(found) > 1
    )


def _differing_names(label_sets: Sequence[Mapping[str, str]]) -> list[str]:
    names = sorted({name for labels in label_sets for name in labels})
    return [name for name in names if len({labels.get(name) for labels in label_sets}) > 1]


def _differing(label_sets: Sequence[Mapping[str, str]]) -> str:
    return ", ".join(
        f"{name} ({' / '.join(sorted({labels.get(name) or 'absent' for labels in label_sets}))})"
        for name in _differing_names(label_sets)
    )


def _suggestion(label_sets: Sequence[Mapping[str, str]]) -> str:
    first = label_sets[0]
    names = ["job", *(name for name in _differing_names(label_sets) if name != "job")]
    return ",".join(f'{name}="{first.get(name, "")}"' for name in names)


def _with_series(target: Target, series: Iterable[Series], problems: list[str]) -> Target:
    labels = set(target.labels.items())
    found: dict[str, dict[LabelKey, Series]] = {}
    for one in series:
        if not labels <= set(one.labels.items()):
            continue
        key = label_key(one.name, one.labels)
        other = found.setdefault(one.name, {}).setdefault(key, one)
        if other is not one:
            problems.append(
                f"{one.name} of {target.name} is there twice, under labels that differ in "
                f"{_differing([other.labels, one.labels])}: it would be counted twice."
            )
    return Target(target.labels, target.scrapes, target.failed_scrapes, found)


def _orphans(series: Iterable[Series], targets: Sequence[Target], since: float) -> list[str]:
    """Say which series belong to no target, or to two: they would be left out, or counted twice."""
    known = [set(target.labels.items()) for target in targets]
    problems = []
    for one in series:
        owners = sum(labels <= set(one.labels.items()) for labels in known)
        if owners != 1 and any(time >= since for time in one.points):
            where = f"{one.labels.get('job', '?')}/{one.labels.get('instance', '?')}"
            what = "no target that `up` knows" if owners == 0 else f"{owners} targets"
            problems.append(f"{one.name} of {where} belongs to {what}, so it cannot be counted.")
    return list(dict.fromkeys(problems))


def _same_process(targets: Sequence[Target]) -> list[str]:
    """Notice one process that is scraped under two addresses: its start times give it away."""
    problems = []
    for one, other in combinations(targets, 2):
        starts = [_start_times(target) for target in (one, other)]
        if starts[0] and starts[0] == starts[1]:
            problems.append(
                f"{one.name} and {other.name} are the same process (equal start times), scraped under labels "
                f"that differ in {_differing([one.labels, other.labels])}: its events would be counted "
                f"twice. Choose one with --selector, for example --selector "
                f"'{_suggestion([one.labels, other.labels])}'."
            )
    return problems


def _start_times(target: Target) -> frozenset[tuple[LabelKey, float]]:
    series = target.series.get(START_TIMES[1]) or target.series.get(START_TIMES[0]) or {}
    return frozenset((key, value) for key, one in series.items() for value in one.points.values())
