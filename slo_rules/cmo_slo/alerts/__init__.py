"""The alerts that objectives files can ask for: one kind, one file.

A kind is a model (what an author of an objectives file says) and what it compiles to. Everything that a file
can say is in `cmo_slo.alerts.kinds`; `cmo_slo.compile` puts the rules into groups.
"""
