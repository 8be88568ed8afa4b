"""The set-up of a checkout, in the standard library alone; ``stack/bootstrap.py`` runs it."""
