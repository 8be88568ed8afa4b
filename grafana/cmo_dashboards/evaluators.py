"""What evaluates the rules, Prometheus or vmalert, and whom it notifies: one expression for either.

Where vmalert evaluates them, Prometheus scrapes alone, and says truthfully that it has no rules and no
Alertmanager; where Prometheus does, there is no vmalert. So a panel asks both, and what is not there adds
nothing. vmalert's groups get the label that Prometheus has for them: the path of the file, ``;``, the name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cmo_dashboards.expressions import RATE_INTERVAL, rate

VMALERT: Final = "vmalert"
"""The scrape job of vmalert, where there is one."""
_OF_A_GROUP: Final = "job, instance, file, group"


@dataclass(frozen=True)
class Evaluators:
    """Expressions about the rules of one objectives file; others' rules are no business of its monitor."""

    slo: str

    def time_of_interval(self) -> str:
        """What an evaluation of each group took, of its interval: the last; of vmalert the longest lately."""
        took, every = "prometheus_rule_group_last_duration_seconds", "prometheus_rule_group_interval_seconds"
        of_prometheus = f"{took}{self._of_prometheus} / ({every}{self._of_prometheus} > 0)"
        longest = f'vmalert_iteration_duration_seconds{{{self._of_vmalert}, quantile="1"}}'
        of_vmalert = (
            f"{longest} / on ({_OF_A_GROUP}) (vmalert_iteration_interval_seconds{{{self._of_vmalert}}} > 0)"
        )
        return f"{of_prometheus} or {_as_prometheus_names_it(of_vmalert)}"

    def failed(self) -> str:
        """Evaluations of each group that failed."""
        recording, alerting = (
            _increase(f"vmalert_{kind}_rules_errors_total{{{self._of_vmalert}}}")
            for kind in ("recording", "alerting")
        )
        of_vmalert = f"sum by ({_OF_A_GROUP}) ({recording} or {alerting})"
        of_prometheus = _increase(f"prometheus_rule_evaluation_failures_total{self._of_prometheus}")
        return f"{of_prometheus} or {_as_prometheus_names_it(of_vmalert)}"

    def missed(self) -> str:
        """Evaluations of each whole group that were left out, because the one before had not ended."""
        of_vmalert = _increase(f"vmalert_iteration_missed_total{{{self._of_vmalert}}}")
        of_prometheus = _increase(f"prometheus_rule_group_iterations_missed_total{self._of_prometheus}")
        return f"{of_prometheus} or {_as_prometheus_names_it(of_vmalert)}"

    def alertmanagers(self) -> str:
        """How many Alertmanagers each evaluator sends to; 0 where there is nobody to notify.

        A Prometheus without our rules needs none where a vmalert has them. Where neither has, it counts: its
        alerts go nowhere as well. ``-notifier.blackhole`` of vmalert is nobody.
        """
        known = "prometheus_notifications_alertmanagers_discovered"
        groups = f"vmalert_iteration_interval_seconds{{{self._of_vmalert}}}"
        has_rules = f"prometheus_rule_group_interval_seconds{self._of_prometheus}"
        prometheus = f"{known} and on (job, instance) {has_rules} or {known} unless on () {groups}"
        each = f'vmalert_alerts_sent_total{{addr!="blackhole"}} and on (job, instance) {groups}'
        of_vmalert = f"count by (instance) ({each}) or max by (instance) ({groups} * 0)"
        return f"max by (instance) ({prometheus}) or {of_vmalert}"

    @property
    def _of_prometheus(self) -> str:
        return f'{{rule_group=~".*;{self.slo}-.+"}}'

    @property
    def _of_vmalert(self) -> str:
        return f'group=~"{self.slo}-.+"'


def sent() -> str:
    """Alerts a second that are sent to Alertmanagers."""
    return _of_either("prometheus_notifications_sent_total", "vmalert_alerts_sent_total")


def send_errors() -> str:
    """Alerts a second that an Alertmanager did not take."""
    return _of_either("prometheus_notifications_errors_total", "vmalert_alerts_send_errors_total")


def _of_either(of_prometheus: str, of_vmalert: str) -> str:
    return f"sum({rate(of_prometheus)} or {rate(of_vmalert)})"


def _increase(counter: str) -> str:
    return f"increase({counter}[{RATE_INTERVAL}])"


def _as_prometheus_names_it(of_vmalert: str) -> str:
    return f'label_join({of_vmalert}, "rule_group", ";", "file", "group")'
