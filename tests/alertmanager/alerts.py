"""Every alert that the rules compile, with the labels that route it, and who must get it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SLO: Final = "cmo-015"


@dataclass(frozen=True)
class Routed:
    """An alert's labels, and the receiver that gets it."""

    name: str
    severity: str
    role: str
    component: str
    receiver: str

    def labels(self, slo: str = SLO) -> dict[str, str]:
        """The labels of the alert, as the rules set them."""
        return {
            "alertname": self.name,
            "slo": slo,
            "severity": self.severity,
            "role": self.role,
            "component": self.component,
        }


ALERTS: Final = (
    Routed("CMOLiveQueriesFailing", "page", "symptom", "service", "pager"),
    Routed("CMOLiveQueriesSlow", "page", "symptom", "service", "pager"),
    Routed("CMOLiveQueriesHanging", "page", "symptom", "service", "pager"),
    Routed("CMOServiceDown", "page", "symptom", "service", "pager"),
    Routed("CMONoLiveTraffic", "page", "symptom", "service", "pager"),
    Routed("CMOErrorBudgetBurning", "ticket", "symptom", "service", "tickets"),
    Routed("CMOQueriesCancelled", "ticket", "symptom", "service", "tickets"),
    Routed("CMOProbeFailing", "ticket", "symptom", "service", "tickets"),
    Routed("CMOCacheHitRateLow", "ticket", "cause", "cache", "tickets"),
    Routed("CMOMemoryGrowing", "ticket", "cause", "service", "tickets"),
    Routed("CMORestartingOften", "ticket", "cause", "service", "tickets"),
    Routed("CMOLightRAGFailing", "ticket", "cause", "lightrag", "model-tickets"),
    # Those whose component comes from the series, with each component that the service has.
    *(
        Routed(name, "ticket", "cause", component, receiver)
        for name in ("CMOComponentTimeouts", "CMOBreakerOpen", "CMOQueueSaturated", "CMOCostHigh")
        for component, receiver in (
            ("lightrag", "model-tickets"),
            ("perplexity", "model-tickets"),
            ("llm", "model-tickets"),
            ("embedding", "model-tickets"),
            ("cache_l1", "tickets"),
            ("cache_l2", "tickets"),
            ("cache_l3", "tickets"),
            ("_other", "tickets"),
        )
    ),
    Routed("CMOFallbackShareHigh", "ticket", "cause", "lightrag", "model-tickets"),
    Routed("CMOEventLoopBlocked", "ticket", "cause", "service", "tickets"),
    Routed("CMOSeriesDropped", "ticket", "monitoring", "exporter", "monitoring-tickets"),
    Routed("CMOScrapeFailing", "ticket", "monitoring", "prometheus", "monitoring-tickets"),
    Routed("CMORulesFailing", "ticket", "monitoring", "prometheus", "monitoring-tickets"),
    Routed("CMONotificationsFailing", "ticket", "monitoring", "alertmanager", "monitoring-tickets"),
    Routed("CMOLoadTestRunning", "info", "monitoring", "service", "nobody"),
    Routed("CMOWatchdog", "watchdog", "monitoring", "prometheus", "dead-man"),
)


def alert(name: str) -> Routed:
    """The first alert of this name."""
    return next(each for each in ALERTS if each.name == name)
