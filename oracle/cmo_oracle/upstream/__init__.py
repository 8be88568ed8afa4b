"""A stand-in for the model providers: OpenAI-compatible, repeatable, and as unreliable as told.

The reference service's own parts are real; only the models behind its base URLs are not, unless a real
provider is configured. What it answers comes from the question and the context it is sent, so retrieval
is put to the test; when it answers, late or with an error, comes from a seeded calibration.
"""
