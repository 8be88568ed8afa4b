"""Series of the monitor itself that compiled rules read: Prometheus' and Alertmanager's, not ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

UP: Final = "up"
"""1 for a target whose last scrape succeeded, else 0."""

MONITOR_COUNTERS: Final[Mapping[str, tuple[str, ...]]] = {
    "prometheus_rule_evaluation_failures_total": ("rule_group",),
    "prometheus_rule_group_iterations_missed_total": ("rule_group",),
    "prometheus_notifications_dropped_total": (),
    "prometheus_notifications_errors_total": ("alertmanager",),
    "alertmanager_notifications_failed_total": ("integration",),
}
"""Counters of Prometheus 2.42 and later and Alertmanager 0.25 and later, with their labels."""
