"""What the checks have to know that no rule file says: how Prometheus is run, what is asked of an alert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cmo_slo.durations import DAY, MINUTE, SECOND

if TYPE_CHECKING:
    from cmo_slo.checks.rules import Rule

OWN_SEVERITIES: Final = ("page", "ticket", "info", "watchdog")
FOREIGN_SEVERITIES: Final = (*OWN_SEVERITIES, "critical", "warning", "none")
"""Those of the mixins as well, for files that are not ours."""

_PAGING: Final = frozenset({"page", "critical"})
_ACTIONABLE: Final = _PAGING | {"ticket", "warning"}

DEFAULT_BUDGET_SAMPLES_PER_MINUTE: Final = 10_000_000
"""Half a second of one core every minute: reading 4,147,200 samples took 198 ms (``evidence.md``)."""


@dataclass(frozen=True)
class LabelCondition:
    """One matcher of Alertmanager's, on alerts."""

    name: str
    operator: str
    value: str


@dataclass(frozen=True)
class InhibitRule:
    """One inhibition of an Alertmanager configuration, and the line it begins at."""

    line: int
    source: tuple[LabelCondition, ...]
    target: tuple[LabelCondition, ...]
    equal: tuple[str, ...]


@dataclass(frozen=True)
class Alertmanager:
    """What the checks read of an Alertmanager configuration."""

    file: str
    inhibit_rules: tuple[InhibitRule, ...]


@dataclass(frozen=True)
class Context:
    """How Prometheus is run and what is expected. Times are in milliseconds.

    Attributes:
        scrape_interval: how often targets are scraped.
        evaluation_interval: how often a group without an interval is evaluated; as often as scraped.
        retention: how long samples are kept; Prometheus' own default by default.
        time_to_page: the time that a page may take from the first failure.
        budget: samples that one group may read in a minute.
        default_series: series that a metric has of which nothing is known.
        default_label_values: values that a label has whose list is a setting.
        severities: what the label ``severity`` may be.
        runbooks: names of the files in the folder of runbooks; ``None`` where none is known.
        alertmanager: its configuration, for inhibitions; ``None`` where none is given.
    """

    scrape_interval: int = 15 * SECOND
    evaluation_interval: int | None = None
    retention: int = 15 * DAY
    time_to_page: int = 5 * MINUTE
    budget: int = DEFAULT_BUDGET_SAMPLES_PER_MINUTE
    default_series: int = 100
    default_label_values: int = 5
    severities: tuple[str, ...] = FOREIGN_SEVERITIES
    runbooks: frozenset[str] | None = None
    alertmanager: Alertmanager | None = None

    def __post_init__(self) -> None:
        """Refuse times and counts that nothing can be worked out from.

        Raises:
            ValueError: one that must be above 0 is not.
        """
        for name in ("scrape_interval", "retention", "budget", "default_series", "default_label_values"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0")

    @property
    def evaluation(self) -> int:
        """How often a group is evaluated that names no interval of its own."""
        return self.evaluation_interval or self.scrape_interval


def pages(rule: Rule) -> bool:
    """Whether an alert wakes somebody."""
    return rule.severity in _PAGING


def needs_action(rule: Rule) -> bool:
    """Whether somebody has to do something about an alert, now or later."""
    return rule.severity in _ACTIONABLE
