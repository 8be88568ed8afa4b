"""Dashboards as code: built from the objectives and the metric catalogue, compiled to JSON."""
