"""Points on the panels of latency: single queries, each with the trace that explains it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import requests
from cmo_dashboards import Macros, queries, shipped_dashboards
from cmo_stack import health

from .conftest import running_stack, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from cmo_dashboards import PanelQuery

NOBODY = "http://127.0.0.1:9"
"""Spans need not arrive anywhere to be sampled."""
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_each_panel_of_latency_leads_to_the_trace_of_a_query(
    tmp_path: Path, index_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", NOBODY)
    asked = _with_exemplars()
    assert {query.dashboard for query in asked} >= {"cmo-overview", "cmo-components"}
    with running_stack(tmp_path / "stack", index_directory, "healthy") as stack:
        ports = stack.settings.ports
        answer = requests.post(
            f"http://{health.LOOPBACK}:{ports.service}/query",
            json={"question": "What does citrulline tell about gut mass?"},
            headers={"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01"},
            timeout=60,
        )
        assert answer.json()["trail"]["outcome"] == "success"
        for query in asked:
            url = f"http://{health.LOOPBACK}:{ports.prometheus}/api/v1/query_exemplars"
            wait_until(f"{query.place}: an exemplar", lambda: TRACE_ID in _traces(url, query))  # noqa: B023 - called at once


def _with_exemplars() -> list[PanelQuery]:
    """What panels ask that want exemplars, but of tokens: the reference service does not stream its answers.

    Of repeated rows, that of the model, which queues.
    """
    macros = Macros(chosen={"component": "llm", "scenario": ".*"})
    asked = [one for board in shipped_dashboards() for one in queries(board, macros) if one.exemplars]
    return [one for one in asked if "first_token" not in one.expression]


def _traces(url: str, query: PanelQuery) -> set[str]:
    asked: dict[str, str | float] = {"query": query.expression, "start": 0, "end": 4e9}
    found = requests.get(url, params=asked, timeout=30)
    assert found.ok, found.text
    series = found.json()["data"]
    return {exemplar["labels"]["trace_id"] for one in series for exemplar in one["exemplars"]}
