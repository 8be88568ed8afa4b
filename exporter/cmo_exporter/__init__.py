"""Instrumentation that a question-answering service imports: queries in, Prometheus metrics out."""
