"""What the dead-man decides, without input or output: who is heard, how long nobody was, what is told.

Time comes from outside, in seconds of one monotonic clock.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    import datetime
    from collections.abc import Iterable, Mapping

ALERT_NAME: Final = "CMOMonitoringSilent"
RUNBOOK: Final = f"docs/runbooks/{ALERT_NAME}.md"

_MOST_WATCHDOGS: Final = 20
_SHOWN_CHARACTERS: Final = 100

Event = Literal["silent", "heard again"]


class Silence:
    """How long the watchdog has been silent, and whether that is an outage. Pure: it is told what time it is.

    Every time is in seconds of one monotonic clock. Between two looks at most a tenth of the time-out is
    counted: a longer gap means that nobody was here to listen. After the first such gap of a silence at least
    half of the time-out is left, in which a watchdog that lives comes (it repeats itself at least twice a
    time-out). Only after the first: a machine that stalls again and again must not put it off for ever.
    """

    def __init__(self, timeout_seconds: float, now: float) -> None:
        self.timeout_seconds = timeout_seconds
        self.outage = False
        self._longest_step_seconds = timeout_seconds / 10
        self._seconds = 0.0
        self._looked = now
        self._gap_forgiven = False

    @property
    def seconds(self) -> float:
        """How long nothing has been heard, up to the last look."""
        return self._seconds

    def look(self, now: float) -> Event | None:
        """Let time pass; ``silent`` when this look is the one at which the time-out is over."""
        elapsed = now - self._looked
        self._looked = now
        self._seconds += min(elapsed, self._longest_step_seconds)
        if elapsed > self._longest_step_seconds and not self._gap_forgiven and not self.outage:
            self._gap_forgiven = True
            self._seconds = min(self._seconds, self.timeout_seconds / 2)
        if self.outage or self._seconds < self.timeout_seconds:
            return None
        self.outage = True
        return "silent"

    def hear(self, now: float) -> Event | None:
        """The watchdog was heard; ``heard again`` when that ends an outage."""
        self._looked = now
        self._seconds = 0.0
        self._gap_forgiven = False
        ended, self.outage = self.outage, False
        return "heard again" if ended else None


@dataclass(frozen=True)
class Watchdog:
    """A watchdog, by the labels that tell those of several Prometheus apart; empty where it has none."""

    alertname: str
    slo: str


def firing_watchdogs(notification: Mapping[str, Any], slo: str | None = None) -> frozenset[Watchdog]:
    """The watchdogs that an Alertmanager notification says to fire. A resolved one says the contrary.

    Args:
        notification: with a list ``alerts`` of mappings.
        slo: the label ``slo`` of those that count; ``None`` if all do.
    """
    alerts = (alert for alert in notification["alerts"] if alert.get("status") == "firing")
    labels = [_labels(alert) for alert in alerts]
    return frozenset(
        Watchdog(_shown(each.get("alertname")), _shown(each.get("slo")))
        for each in labels
        if each.get("severity") == "watchdog" and slo in (None, each.get("slo"))
    )


def notification(since: datetime.datetime, ended: datetime.datetime | None, address: str) -> dict[str, Any]:
    """What is sent to the pager about an outage, in the format of Alertmanager's webhooks.

    Args:
        since: when the watchdog was last heard, or this process started.
        ended: when it was heard again, None while it is silent.
        address: where this process listens.
    """
    labels = {"alertname": ALERT_NAME, "severity": "page", "role": "monitoring", "component": "prometheus"}
    annotations = {
        "summary": "The monitoring is silent",
        "description": (
            f"The watchdog has not been heard since {since:%H:%M:%S} UTC, {since.day} {since:%b}. Prometheus "
            "or the Alertmanager has stopped, or they do not reach each other or this dead-man: no other "
            "page can come. Look whether both run, then at Prometheus' /alerts for the watchdog."
        ),
        "runbook_url": RUNBOOK,
    }
    status = "firing" if ended is None else "resolved"
    alert = {
        "status": status,
        "labels": labels,
        "annotations": annotations,
        "startsAt": rfc3339(since),
        "endsAt": "0001-01-01T00:00:00Z" if ended is None else rfc3339(ended),
        "generatorURL": f"{address}/status",
        "fingerprint": ALERT_NAME,
    }
    return {
        "version": "4",
        "groupKey": f"{{}}:{{alertname={json.dumps(ALERT_NAME)}}}",
        "truncatedAlerts": 0,
        "status": status,
        "receiver": "pager",
        "groupLabels": {"alertname": ALERT_NAME},
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": address,
        "alerts": [alert],
    }


class HeardWatchdogs:
    """Which watchdogs were heard, how often, and when last. The latest few, or senders could fill memory."""

    def __init__(self) -> None:
        self._heard: dict[Watchdog, tuple[int, float]] = {}

    def hear(self, watchdogs: Iterable[Watchdog], now: float) -> None:
        """Note that these were heard, at this time of the monotonic clock."""
        for watchdog in watchdogs:
            count, _ = self._heard.pop(watchdog, (0, now))
            self._heard[watchdog] = (count + 1, now)
            if len(self._heard) > _MOST_WATCHDOGS:
                del self._heard[next(iter(self._heard))]

    def status(self, now: float) -> list[dict[str, Any]]:
        """For people, the one that was heard last first."""
        return [
            {
                "alertname": watchdog.alertname,
                "slo": watchdog.slo,
                "heard": count,
                "silent_seconds": round(now - last, 3),
            }
            for watchdog, (count, last) in reversed(self._heard.items())
        ]


def _labels(alert: Mapping[str, Any]) -> Mapping[str, Any]:
    labels = alert.get("labels")
    return labels if isinstance(labels, dict) else {}


def _shown(label: object) -> str:
    return label[:_SHOWN_CHARACTERS] if isinstance(label, str) else ""


def rfc3339(moment: datetime.datetime) -> str:
    """A moment in UTC as Alertmanager writes it."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
