"""Reading what a dashboard asks: its expressions as trees, and what each part of one stands in."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import promql_parser

from cmo_dashboards.queries import Macros

if TYPE_CHECKING:
    from collections.abc import Iterator

RANGE: Final = timedelta(minutes=433)
RATE_INTERVAL: Final = timedelta(seconds=13)
MACROS: Final = Macros(range="433m", rate_interval="13s", interval="17s")
"""Each macro by a length of its own, by which it is known again in a tree; none is of whole hours."""

Around = tuple[promql_parser.Expr, ...]
"""What a node stands in, the outermost first."""


def tree_of(expression: str) -> promql_parser.Expr | None:
    """The tree of an expression with macros; none where it is not PromQL."""
    try:
        return promql_parser.parse(MACROS.replace(expression))
    except ValueError:
        return None


def nodes(tree: promql_parser.Expr, around: Around = ()) -> Iterator[tuple[promql_parser.Expr, Around]]:
    """Every node of a tree with what it stands in, parentheses left out."""
    if not isinstance(tree, promql_parser.ParenExpr):
        yield tree, around
        around = (*around, tree)
    for child in _children(tree):
        yield from nodes(child, around)


def metric_of(selector: promql_parser.VectorSelector) -> str:
    """The metric that a selector names; empty where it names none."""
    named = [item.value for item in selector.matchers.matchers if item.name == "__name__"]
    return selector.name or (named[0] if named else "")


def _children(tree: promql_parser.Expr) -> list[promql_parser.Expr]:
    if isinstance(tree, promql_parser.BinaryExpr):
        return [tree.lhs, tree.rhs]
    if isinstance(tree, promql_parser.Call):
        return list(tree.args)
    if isinstance(tree, promql_parser.AggregateExpr):
        return [tree.expr] if tree.param is None else [tree.param, tree.expr]
    if isinstance(tree, promql_parser.MatrixSelector):
        return [tree.vector_selector]
    if isinstance(tree, promql_parser.ParenExpr | promql_parser.UnaryExpr | promql_parser.SubqueryExpr):
        return [tree.expr]
    return []
