"""Series of the monitor itself that compiled rules read: Prometheus', Alertmanager's, vmalert's, not ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

UP: Final = "up"
"""1 for a target whose last scrape succeeded, else 0."""

RULE_GROUP: Final = "rule_group"
"""Prometheus' label of a group of rules: the path of its file, a semicolon, and the group's name."""
VMALERT_GROUP: Final = ("file", "group")
"""The labels that vmalert has for the same; joined by a semicolon they are what Prometheus writes."""

MONITOR_COUNTERS: Final[Mapping[str, tuple[str, ...]]] = {
    "prometheus_rule_evaluation_failures_total": (RULE_GROUP,),
    "prometheus_rule_group_iterations_missed_total": (RULE_GROUP,),
    "prometheus_notifications_dropped_total": (),
    "prometheus_notifications_errors_total": ("alertmanager",),
    "alertmanager_notifications_failed_total": ("integration",),
    "vmalert_recording_rules_errors_total": VMALERT_GROUP,
    "vmalert_alerting_rules_errors_total": VMALERT_GROUP,
    "vmalert_iteration_missed_total": VMALERT_GROUP,
    "vmalert_alerts_send_errors_total": ("addr",),
}
"""Counters of Prometheus 2.42 and later, Alertmanager 0.25 and later and vmalert 1.145, with their labels."""
