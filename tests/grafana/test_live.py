"""Every query of every panel on a real Prometheus: busy, it says what is true; idle, nothing looks well."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

import pytest
import requests
import yaml
from cmo_dashboards import Macros, PanelQuery, queries, shipped_dashboards
from cmo_dashboards.colours import FAIL, NEUTRAL, PASS, WARN, Step, colour_of
from cmo_dashboards.document import defaults_of, panels
from cmo_slo.compile import compile_rules
from cmo_slo.objectives import load_objectives, shipped_directory
from cmo_slo.rule import as_document
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cmo_stack.servers import Server

    from tests.grafana.conftest import Exposition

DEADLINE_SECONDS: Final = 120.0
SCRAPE: Final = "500ms"
MACROS: Final = Macros(range="5m", rate_interval="3s", interval="500ms")
QUIET_SCRAPES: Final = 8
"""Scrapes before the load begins: more than a rate interval, so that start-up is over when it does."""
BUSY_SCRAPES: Final = 10
"""Scrapes under load before anything is asked: a whole rate interval of load."""
RECORDED_BY_NOW_SECONDS: Final = 1.0
"""Rules record one series after the other; at a moment this long ago none of a ratio's is missing."""

Series = list[tuple[dict[str, str], list[float]]]
Values = dict[tuple[str, str], Series]
DASHBOARD: Final = shipped_dashboards()[0]
QUERIES: Final = queries(DASHBOARD, MACROS)


class Asker:
    """The HTTP interface of one Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/-/ready", timeout=5).ok
        except requests.RequestException:
            return False

    def ask(self, query: PanelQuery) -> Series:
        now = time.time() - RECORDED_BY_NOW_SECONDS
        if query.instant:
            result = self._get("query", {"query": query.expression, "time": now})
            return [(item["metric"], [float(item["value"][1])]) for item in result]
        asked: dict[str, str | float] = {
            "query": query.expression,
            "start": now - 30,
            "end": now,
            "step": 0.5,
        }
        result = self._get("query_range", asked)
        return [(item["metric"], [float(value) for _, value in item["values"]]) for item in result]

    def everything(self) -> Values:
        return {(query.panel, query.ref_id): self.ask(query) for query in QUERIES}

    def _get(self, path: str, arguments: dict[str, str | float]) -> list[dict[str, Any]]:
        answer = requests.post(f"{self.url}/api/v1/{path}", data=arguments, timeout=30)
        assert answer.ok, f"{arguments['query']}: {answer.text}"
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found


def test_every_query_is_right_when_busy_and_claims_nothing_when_idle(
    prometheus_server: Server, exposition: Exposition, tmp_path: Path
) -> None:
    quiet = exposition.loading_steps + QUIET_SCRAPES
    with _prometheus(prometheus_server, exposition.address, tmp_path) as asker:
        _wait_for(lambda: exposition.scrapes >= quiet, "the quiet scrapes")
        idle = asker.everything()
        exposition.busy = True
        _wait_for(lambda: exposition.steps >= BUSY_SCRAPES, "the scrapes under load")
        _wait_for(lambda: not _missing(asker.everything()), "a series of every query")
        busy = asker.everything()
    _claims_nothing(idle)
    _is_plausible(busy)
    _is_true(busy, exposition)
    _is_coloured(busy, exposition)


def _claims_nothing(idle: Values) -> None:
    coloured = set()
    for (panel, _), series in idle.items():
        for _, values in series:
            coloured |= {(panel, colour_of(value, _steps(panel))) for value in values if _is_stat(panel)}
    assert not {(panel, colour) for panel, colour in coloured if colour in (PASS, WARN)}
    for (panel, ref_id), series in idle.items():
        if "(target" in panel and "users" not in panel:
            assert series == [], f"{panel} {ref_id} has values without traffic"
    assert idle["Targets up", "A"], "the idle target was not scraped at all, so this test showed nothing"


def _is_plausible(busy: Values) -> None:
    assert not _missing(busy)
    for query in QUERIES:
        for labels, values in busy[query.panel, query.ref_id]:
            where = f"{query.panel} {query.ref_id} {labels}"
            assert all(math.isfinite(value) for value in values), where
            assert all(query.lowest <= value <= query.highest for value in values), (where, values)


def _is_true(busy: Values, truth: Exposition) -> None:
    passing, failing, barely = truth.passing, truth.failing, truth.barely
    _expect(busy, "Highest users held", "A", {name: truth.users[name] for name in truth.scenarios[1:]})
    _expect(busy, "Success rate (", "A", {passing: 0.97, failing: 0.80, barely: 0.95})
    _expect(busy, "Success rate (", "B", {"live": 0.98})
    _expect(busy, "Success rate (", "C", {"": (97 + 80 + 381 + 95) / (100 + 100 + 400 + 100)})
    _expect(busy, "Answered within 2 s (", "A", {passing: 97 / 102, failing: 0.5, barely: 0.95})
    _expect(
        busy, "Cache hit rate (", "C", {"": truth.cache["hit"] / (truth.cache["hit"] + truth.cache["miss"])}
    )
    _expect(busy, "Memory growth (", "A", dict(truth.growth))
    _expect(busy, "Memory growth over time", "A", dict(truth.growth))
    _expect(busy, "Resident memory", "A", {"": truth.rss_loaded})


def _is_coloured(busy: Values, truth: Exposition) -> None:
    colours = {
        ("Highest users held", truth.passing): PASS,
        ("Highest users held", truth.barely): NEUTRAL,
        ("Success rate (", truth.passing): PASS,
        ("Success rate (", truth.failing): FAIL,
        ("Success rate (", "cache_effectiveness"): WARN,
        ("Answered within 2 s (", truth.passing): WARN,
        ("Answered within 2 s (", truth.failing): FAIL,
        ("Memory growth (", truth.passing): PASS,
        ("Memory growth (", truth.failing): FAIL,
    }
    for (start, scenario), colour in colours.items():
        panel = _titled(start)
        [values] = [values for labels, values in busy[panel, "A"] if labels["scenario"] == scenario]
        assert colour_of(values[-1], _steps(panel)) == colour, (panel, scenario, values)


def _expect(busy: Values, start: str, ref_id: str, truth: dict[str, float]) -> None:
    panel = _titled(start)
    last = {labels.get("scenario", ""): values[-1] for labels, values in busy[panel, ref_id]}
    for scenario, expected in truth.items():
        assert last[scenario] == pytest.approx(expected, rel=1e-6), (panel, ref_id, scenario)


def _missing(found: Values) -> list[str]:
    return [f"{query.panel} {query.ref_id}" for query in QUERIES if not found[query.panel, query.ref_id]]


def _titled(start: str) -> str:
    [title] = {query.panel for query in QUERIES if query.panel.startswith(start)}
    return title


def _steps(title: str) -> tuple[Step, ...]:
    [panel] = [panel for panel in panels(DASHBOARD.document) if panel["title"] == title]
    return tuple(Step(step["value"], step["color"]) for step in defaults_of(panel)["thresholds"]["steps"])


def _is_stat(title: str) -> bool:
    return any(panel["type"] == "stat" for panel in panels(DASHBOARD.document) if panel["title"] == title)


class _prometheus:  # noqa: N801 - reads as a function where it is used
    """A Prometheus that scrapes the exposition, with the rules and an alert that fires under load."""

    def __init__(self, server: Server, target: str, folder: Path) -> None:
        port = free_port()
        (folder / "prometheus.yml").write_text(_configuration(target))
        (folder / "alert.yml").write_text(_alert())
        (folder / "recorded.yml").write_text(_recorded())
        self._asker = Asker(f"http://127.0.0.1:{port}")
        command = [
            str(server.path),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        self._process = ManagedProcess(
            server.label,
            command,
            log_path=folder / "prometheus.log",
            ready=self._asker.ready,
            environment=server.environment,
        )

    def __enter__(self) -> Asker:
        self._process.start()
        return self._asker

    def __exit__(self, *_: object) -> None:
        self._process.stop()


def _configuration(address: str) -> str:
    intervals = {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": SCRAPE}
    scrape = {"job_name": "cmo", "static_configs": [{"targets": [address]}]}
    return yaml.safe_dump(
        {"global": intervals, "rule_files": ["alert.yml", "recorded.yml"], "scrape_configs": [scrape]}
    )


def _recorded() -> str:
    """The rules that the panels read from, for this scrape interval."""
    return yaml.safe_dump(
        as_document(compile_rules(load_objectives(shipped_directory() / "cmo-015.yml"), SCRAPE))
    )


def _alert() -> str:
    alert = {
        "alert": "CMOSeeded",
        "expr": 'cmo_queries_in_progress{scenario="live"} > 0',
        "labels": {"severity": "page"},
    }
    return yaml.safe_dump({"groups": [{"name": "seeded", "rules": [alert]}]})


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"no sign of {what} within {DEADLINE_SECONDS:g} s"
        time.sleep(0.2)
