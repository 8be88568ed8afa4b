"""Ranges of plausible values are narrow enough to find what is 100 or 1,000 times too large."""

from __future__ import annotations

import promql_parser
import pytest
from cmo_dashboards import Dashboard, queries, shipped_dashboards
from cmo_dashboards.checks.measures import Form, measure
from cmo_dashboards.checks.promql import metric_of, nodes, tree_of
from cmo_exporter import catalogue

MOST = {
    "percentunit": 100.0,
    "s": 3_600.0,
    "decbytes": 1e12,
    "Bps": 1e12,
    "reqps": 1e6,
    "short": 1e9,
    "currencyUSD": 1e6,
}
"""What a service of this kind can reach at the very most, by unit."""


@pytest.mark.parametrize("board", shipped_dashboards(), ids=lambda board: board.uid)
def test_no_range_is_wider_than_its_unit_can_mean(board: Dashboard) -> None:
    """A range that takes anything is none: what is 100 or 1,000 times too large must lie outside of it."""
    for query in queries(board):
        tree = tree_of(query.expression)
        assert tree is not None
        furthest = max(abs(query.lowest), abs(query.highest))
        edges = _largest_edges(tree)
        if edges:
            assert furthest <= max(edges), (query.place, "a quantile is estimated inside the buckets")
            continue
        measured = measure(tree)
        if measured is not None and measured.form is Form.SHARE:
            assert query.highest <= 1.0, query.place
            assert query.lowest >= -1.0 or "error_budget" in query.expression, query.place
        if "time()" not in query.expression:  # an age has no end
            assert furthest <= MOST[query.unit], query.place


def _largest_edges(tree: promql_parser.Expr) -> set[float]:
    """The last finite edge of each histogram whose quantile a whole expression is, or a difference of two."""
    return {
        catalogue.BY_NAME[metric_of(node).removesuffix("_bucket")].buckets[-1]
        for node, around in nodes(tree)
        if isinstance(node, promql_parser.VectorSelector)
        and metric_of(node).endswith("_bucket")
        and any(
            isinstance(one, promql_parser.Call) and one.func.name == "histogram_quantile" for one in around
        )
    }
