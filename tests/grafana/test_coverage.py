"""Every metric that the exporter counts is looked at somewhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest
import yaml
from cmo_dashboards import shipped_dashboards
from cmo_dashboards.document import panels
from cmo_exporter import catalogue
from cmo_slo.rulefile import shipped_rules_directory

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
ON_NO_DASHBOARD: Final = {
    catalogue.PROBE_TIME_TO_FIRST_BYTE.name: "its time to the first token is what a user sees",
    catalogue.PROBE_RESULTS.name: "CMOProbeFailing counts them",
}
"""Why nobody has to see it: a word on each."""


def _names(expressions: Iterable[str]) -> set[str]:
    """Names of series, and some words that are none."""
    return {name for expression in expressions for name in NAME.findall(expression)}


def _read() -> set[str]:
    """What dashboards read, directly or from a rule that has read it."""
    document = yaml.safe_load((shipped_rules_directory() / "cmo-015.yml").read_text(encoding="utf-8"))
    recorded: dict[str, set[str]] = {}
    for rule in (rule for group in document["groups"] for rule in group["rules"] if "record" in rule):
        recorded.setdefault(rule["record"], set()).update(_names([rule["expr"]]))
    read = _names(
        target["expr"]
        for board in shipped_dashboards()
        for panel in panels(board.document)
        for target in panel["targets"]
    )
    waiting = [name for name in read if name in recorded]
    while waiting:
        new = recorded[waiting.pop()] - read
        read |= new
        waiting += [name for name in new if name in recorded]
    return read


READ: Final = _read()


@pytest.mark.parametrize("metric", catalogue.CATALOGUE, ids=lambda metric: metric.name)
def test_every_metric_is_seen_or_it_is_said_why_not(metric: catalogue.Metric) -> None:
    seen = bool(READ & {metric.name, *metric.series_names})
    if metric.name in ON_NO_DASHBOARD:
        assert not seen, "a dashboard shows it: take it off the list"
    else:
        assert seen, "no dashboard shows it: add a panel, or say why not"
