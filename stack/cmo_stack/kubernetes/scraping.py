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

_METRICS_TOKEN_SECRET: Final = "cmo-metrics"  # noqa: S105 - the name of the Secret, and nothing secret
"""The ``Secret`` whose key ``token`` a scrape shows to the service."""

_NAME_LABEL: Final = "app.kubernetes.io/name"
_METRICS_PORT: Final = ("metrics",)
_OPERATED_PORT: Final = ("web", "http-web")
"""What the Operator calls the port of the Services that it makes, and what kube-prometheus-stack calls it."""


@dataclass(frozen=True)
class ScrapedService:
    """A Service to scrape: under which job, where it is, its label, and names that its port may have."""

    name: str
    job: str
    namespace: str
    label: tuple[str, str]
    ports: tuple[str, ...]
    shows_token: bool = False


def scraped_services(objectives: Objectives, cluster: Cluster) -> tuple[ScrapedService, ...]:
    """Whatever the objectives ask to be scraped, as far as it is known here where that is."""
    service, prober = objectives.service.job, objectives.service.probe_job
    monitoring = cluster.monitoring_namespace
    known = {
        service: ScrapedService(
            "cmo", service, cluster.service_namespace, (_NAME_LABEL, "cmo"), _METRICS_PORT, shows_token=True
        ),
        prober: ScrapedService(
            "cmo-probe", prober, cluster.service_namespace, (_NAME_LABEL, "cmo-probe"), _METRICS_PORT
        ),
        # The Operator makes these two Services itself, labelled so.
        "prometheus": ScrapedService(
            "cmo-prometheus", "prometheus", monitoring, ("operated-prometheus", "true"), _OPERATED_PORT
        ),
        "alertmanager": ScrapedService(
            "cmo-alertmanager", "alertmanager", monitoring, ("operated-alertmanager", "true"), _OPERATED_PORT
        ),
    }
    watched = [job for alert in objectives.alerts if isinstance(alert, ScrapeAlert) for job in alert.jobs]
    return tuple(known[job] for job in dict.fromkeys([service, *watched]) if job in known)


def service_monitor(scraped: ScrapedService, scrape_interval: str) -> dict[str, Any]:
    """The manifest that makes Prometheus scrape one Service."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {
            "name": scraped.name,
            "labels": {_NAME_LABEL: "cmo-observability"},
        },
        "spec": {
            # Named, and never any: a staging service under the same job would count as production.
            "namespaceSelector": {"matchNames": [scraped.namespace]},
            "selector": {"matchLabels": dict([scraped.label])},
            "endpoints": [_endpoint(scraped, port, scrape_interval) for port in scraped.ports],
        },
    }


def _endpoint(scraped: ScrapedService, port: str, scrape_interval: str) -> dict[str, Any]:
    endpoint: dict[str, Any] = {
        "port": port,
        "path": "/metrics",
        "interval": scrape_interval,
        "relabelings": [{"action": "replace", "targetLabel": "job", "replacement": scraped.job}],
    }
    if scraped.shows_token:
        credentials = {"name": _METRICS_TOKEN_SECRET, "key": "token"}
        endpoint["authorization"] = {"type": "Bearer", "credentials": credentials}
    return endpoint
