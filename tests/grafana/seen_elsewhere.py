"""Queries that `test_live.py` does not see answered: other tests ask them, and find them here.

A test that needs what `test_live.py` does not start, or more time, asks all queries of one of these lists.
"""

from __future__ import annotations

from typing import Final

from cmo_dashboards import PanelQuery, queries, shipped_dashboards


def _that_read(part: str) -> tuple[PanelQuery, ...]:
    """The queries that have something in their expressions."""
    found = [query for board in shipped_dashboards() for query in queries(board) if part in query.expression]
    assert found, f"no query of any dashboard reads {part}"
    return tuple(found)


ROLLED_UP: Final = _that_read(":hourly{")
"""Asked in `test_budgets.py`: the first roll-up comes after up to an hour."""

OF_VMALERT: Final = _that_read("min by (job) (vmalert_")
"""Asked in `test_monitor_on_vmalert.py`; what asks either evaluator of rules has Prometheus' answer here."""

SEEN_ELSEWHERE: Final = frozenset(query.place for query in (*ROLLED_UP, *OF_VMALERT))
