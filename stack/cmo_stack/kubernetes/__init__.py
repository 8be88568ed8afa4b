"""What a cluster with the Prometheus Operator needs of this project, as manifests made from what is shipped.

Objectives, Alertmanager's configuration, its templates and the dashboards are written once, elsewhere; here
they take the form that Kubernetes asks for. `manifests` gathers all of them, `cli` writes them.
"""
