"""Tests of the compiled alerts, generated from the same objectives, for ``promtool test rules``.

For every alert: it fires on total failure and just above its limit, is silent at its limit, recovers, and
is silent for absent data, idleness, a counter reset and a restart of the service. Cases of shares are in
`shares`, those of days in `roll_ups`, and of what is no share in `pages`, `causes` and `monitoring`.
``promtool`` ignores the intervals of groups, so how hours are rolled up is tested on a real server instead.
"""

from cmo_slo.rule_tests.generate import RuleTestFile, generate_rule_tests

__all__ = ["RuleTestFile", "generate_rule_tests"]
