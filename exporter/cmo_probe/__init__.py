"""A synthetic prober: asks a service canary questions from outside, and exports what a user would have seen.

It lives beside the exporter and not in it, because a service that imports the exporter must not pay for an
HTTP client and YAML, and because a prober inside of what it watches would be down with it. It knows the
catalogue and the exporter's metrics server, and nothing of the service but its HTTP interface.
"""
