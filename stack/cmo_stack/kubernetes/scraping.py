"""``ServiceMonitor``s under the job names that rules, dashboards and ``cmo check`` know.

The Operator names a job after the Service that it finds, so each endpoint is given its job by a relabelling.
Prometheus and Alertmanager are scraped once more under the names ``prometheus`` and ``alertmanager``: an
alert on missing targets must find them, whatever a chart calls them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cmo_slo.alerts.scrape import ScrapeAlert

if TYPE_CHECKING:
    from cmo_slo.model import Objectives

    from cmo_stack.kubernetes.cluster import Cluster

METRICS_TOKEN_SECRET: Final = "cmo-metrics"  # noqa: S105 - the name of the Secret, and nothing secret
"""The ``Secret`` whose key ``token`` a scrape shows to the service."""

_NAME_LABEL: Final = "app.kubernetes.io/name"


@dataclass(frozen=True)
class ScrapedService:
    """A Service to scrape: under which job, where, the label that finds it, and its port by name."""

    job: str
    namespace: str
    label: tuple[str, str]
    port: str
    shows_token: bool = False


def scraped_services(objectives: Objectives, cluster: Cluster) -> tuple[ScrapedService, ...]:
    """Whatever the objectives ask to be scraped, as far as it is known here where that is."""
    service, prober = objectives.service.job, objectives.service.probe_job
    known = {
        service: ScrapedService(
            service, cluster.service_namespace, (_NAME_LABEL, "cmo"), "metrics", shows_token=True
        ),
        prober: ScrapedService(prober, cluster.service_namespace, (_NAME_LABEL, "cmo-probe"), "metrics"),
        # The Operator makes these two Services itself, labelled so, with a port of this name.
        "prometheus": ScrapedService(
            "prometheus", cluster.monitoring_namespace, ("operated-prometheus", "true"), "web"
        ),
        "alertmanager": ScrapedService(
            "alertmanager", cluster.monitoring_namespace, ("operated-alertmanager", "true"), "web"
        ),
    }
    watched = [job for alert in objectives.alerts if isinstance(alert, ScrapeAlert) for job in alert.jobs]
    return tuple(known[job] for job in dict.fromkeys([service, *watched]) if job in known)


def service_monitor(scraped: ScrapedService, scrape_interval: str) -> dict[str, Any]:
    """The manifest that makes Prometheus scrape one Service."""
    endpoint: dict[str, Any] = {
        "port": scraped.port,
        "path": "/metrics",
        "interval": scrape_interval,
        "relabelings": [{"action": "replace", "targetLabel": "job", "replacement": scraped.job}],
    }
    if scraped.shows_token:
        credentials = {"name": METRICS_TOKEN_SECRET, "key": "token"}
        endpoint["authorization"] = {"type": "Bearer", "credentials": credentials}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {
            "name": "cmo" if scraped.job == "cmo" else f"cmo-{scraped.job}",
            "labels": {_NAME_LABEL: "cmo-observability"},
        },
        "spec": {
            # Named, and never any: a staging service under the same job would count as production.
            "namespaceSelector": {"matchNames": [scraped.namespace]},
            "selector": {"matchLabels": dict([scraped.label])},
            "endpoints": [endpoint],
        },
    }
