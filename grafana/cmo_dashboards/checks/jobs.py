"""Every raw series of the service is asked of the objectives' job, as the rules ask for it.

A staging service beside it, in the same Prometheus, would be drawn into the same lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import promql_parser

from cmo_dashboards.checks.finding import Finding
from cmo_dashboards.checks.promql import metric_of, nodes, tree_of
from cmo_dashboards.document import expressions
from cmo_dashboards.jobs import RAW_SERIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_slo.model import Objectives

    from cmo_dashboards.document import Document


def check(document: Document, promised: Objectives) -> Iterator[Finding]:
    """Every expression of panels and annotations; one that does not parse is left to the check of that."""
    expected = (promised.service.job, promised.service.probe_job)
    for place, expression in expressions(document):
        tree = tree_of(expression)
        if tree is None:
            continue
        for node, _ in nodes(tree):
            if not isinstance(node, promql_parser.VectorSelector) or metric_of(node) not in RAW_SERIES:
                continue
            jobs = [matcher for matcher in node.matchers.matchers if matcher.name == "job"]
            if not jobs:
                yield Finding(place, f"asks for {metric_of(node)} of every job; expected a matcher of one")
            for matcher in jobs:
                if matcher.op == promql_parser.MatchOp.Equal and matcher.value not in expected:
                    yield Finding(
                        place,
                        f"asks for {metric_of(node)} of the job {matcher.value!r}; the objectives' jobs are "
                        f"{' and '.join(expected)}",
                    )
