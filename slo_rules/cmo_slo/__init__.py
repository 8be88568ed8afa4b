"""Service level objectives: compiled to Prometheus rules, and judged from Prometheus."""
