"""Dashboards as code: built from the objectives and the metric catalogue, compiled to JSON.

`shipped_dashboards` are those of this project; `queries` are what a dashboard asks Prometheus.
"""

from cmo_dashboards.dashboard import Dashboard
from cmo_dashboards.queries import Macros, PanelQuery, queries
from cmo_dashboards.shipped import shipped_dashboards

__all__ = ["Dashboard", "Macros", "PanelQuery", "queries", "shipped_dashboards"]
