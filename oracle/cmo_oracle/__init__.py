"""The reference service: a clinical question-answering service with real caches, engine and breaker."""
