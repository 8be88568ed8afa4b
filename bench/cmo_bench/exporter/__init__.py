"""What the exporter adds to a service, beside what other instrumentations add to the same service."""
