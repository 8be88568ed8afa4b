"""What is wrong with answers, asked of a real Prometheus: each fault is found, and what is right is not."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import pytest
import requests
from click.testing import CliRunner
from cmo_dashboards import Macros, PanelQuery
from cmo_dashboards.asking import Asker
from cmo_dashboards.cli import dashboards
from cmo_dashboards.colours import FAIL, NEUTRAL, PASS, WARN, Step
from cmo_dashboards.live import premises, wrong_under_load, wrong_when_idle
from cmo_slo.objectives import load_objectives, shipped_directory
from cmo_slo.prometheus import DataSourceError
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cmo_slo.model import Objectives
    from cmo_stack.servers import Server

MACROS: Final = Macros(range="1m", rate_interval="4s", interval="15s")
VERDICT: Final = (Step(None, NEUTRAL), Step(0.0, FAIL), Step(0.95, WARN), Step(0.955, PASS))


OBJECTIVES: Final = load_objectives(shipped_directory() / "cmo-015.yml")
DEADLINE_SECONDS: Final = 120.0
EMPTY: Final = "global: {}"
OF_THE_SERVICE: Final = """
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [rules.yml]
scrape_configs:
  - {job_name: cmo, static_configs: [{targets: ["127.0.0.1:PORT"]}]}
  - {job_name: down, static_configs: [{targets: ["127.0.0.1:1"]}]}
"""
"""Prometheus itself stands for a service that is scraped; nothing listens on the other port."""
RULES: Final = """
groups:
  - name: seeded
    rules:
      - {alert: CMOWatchdog, expr: vector(1)}
      - {alert: CMOPending, expr: vector(1), for: 1h}
"""


class Started:
    """A Prometheus, which can be stopped in the middle."""

    def __init__(self, server: Server, folder: Path, configured: str = EMPTY) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        (folder / "prometheus.yml").write_text(configured.replace("PORT", str(port)))
        (folder / "rules.yml").write_text(RULES)
        command = [
            str(server.path),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        self.process = ManagedProcess(
            server.label,
            command,
            log_path=folder / "prometheus.log",
            ready=self._ready,
            environment=server.environment,
        )

    def _ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/-/ready", timeout=5).ok
        except requests.RequestException:
            return False


@pytest.fixture
def started(prometheus_server: Server, tmp_path: Path) -> Iterator[Started]:
    """One that scrapes nothing and has no rules."""
    started = Started(prometheus_server, tmp_path)
    with started.process:
        yield started


@pytest.fixture
def of_the_service(prometheus_server: Server, tmp_path: Path) -> Iterator[Started]:
    """One that scrapes the job `cmo` and evaluates rules, and whose job `down` cannot be scraped."""
    started = Started(prometheus_server, tmp_path, OF_THE_SERVICE)
    with started.process:
        yield started


def _query(
    expression: str,
    *,
    instant: bool = True,
    may_be_empty: bool = False,
    steps: tuple[Step, ...] = VERDICT,
    value_colours: tuple[tuple[float, str], ...] = (),
) -> PanelQuery:
    return PanelQuery(
        dashboard="seeded",
        panel="Success",
        ref_id="A",
        expression=expression,
        unit="percentunit",
        lowest=0.0,
        highest=1.0,
        instant=instant,
        may_be_empty=may_be_empty,
        steps=steps,
        value_colours=value_colours,
    )


RIGHT: Final = [_query("vector(0)"), _query("vector(1)"), _query("vector(0.97)", instant=False)]
RIGHT_UNDER_LOAD: Final = [*RIGHT, _query("absent_metric", may_be_empty=True)]
WRONG_UNDER_LOAD: Final = {
    "is 97; expected 0 to 1 (percentunit)": _query("vector(97)"),
    "is -0.5; expected": _query("vector(-0.5)"),
    "is NaN; expected": _query("vector(0) / 0"),
    "is +Inf; expected": _query("vector(1) / 0"),
    "is 97; expected": _query("vector(97)", instant=False),
    "is NaN; expected 0": _query("vector(0) / 0", instant=False),
    "is 2; expected": _query("absent_metric or vector(2)", may_be_empty=True),
    '{part="b"} is 2; expected': _query(
        'label_replace(vector(1), "part", "a", "", "") or label_replace(vector(2), "part", "b", "", "")'
    ),
    "returns nothing": _query("absent_metric"),
    "returns nothing, which": _query("absent_metric", instant=False),
    "fails: ": _query("sum(up"),
    "HTTP 4": _query("rate(up)"),
}
WRONG_WHEN_IDLE: Final = {
    "is 1, coloured PASS": _query("vector(1)"),
    "is 0.951, coloured WARN": _query("vector(0.951)"),
    "coloured PASS, without": _query("vector(0.96)", instant=False),
    "is 3, coloured WARN": _query("vector(3)", steps=(), value_colours=((3.0, WARN),)),
    "is NaN; guard": _query("vector(0) / 0"),
    "is NaN; guard its": _query("vector(0) / 0", instant=False, steps=()),
    "fails: ": _query("sum(up"),
}
RIGHT_WHEN_IDLE: Final = [
    _query("absent_metric"),
    _query("vector(0.5)"),
    _query("vector(97)", steps=()),
    _query("vector(1)", value_colours=((1.0, NEUTRAL),)),
]


def test_each_fault_is_found_and_nothing_else(started: Started) -> None:
    with Asker(started.url, MACROS) as asker:
        assert list(wrong_under_load(RIGHT_UNDER_LOAD, asker.ask)) == []
        assert list(wrong_when_idle(RIGHT_WHEN_IDLE, asker.ask)) == []
        for words, query in WRONG_UNDER_LOAD.items():
            [line] = wrong_under_load([*RIGHT, query], asker.ask)
            assert line.startswith("seeded: Success (A): ")
            assert words.replace("+Inf", f"{math.inf:g}").replace("NaN", f"{math.nan:g}") in line
        for words, query in WRONG_WHEN_IDLE.items():
            [line] = wrong_when_idle([*RIGHT_WHEN_IDLE, query], asker.ask)
            assert line.startswith("seeded: Success (A): ")
            assert words in line


def test_a_range_is_asked_at_every_step_of_it(started: Started) -> None:
    with Asker(started.url, MACROS) as asker:
        [(labels, values)] = asker.ask(_query("vector(1)", instant=False))
        assert (labels, set(values)) == ({}, {1.0})
        assert len(values) in (4, 5)
        [(_, moments)] = asker.ask(_query("vector(time())", instant=False))
        assert {later - earlier for earlier, later in pairwise(moments)} == {15.0}


def test_a_prometheus_that_goes_away_is_no_finding(started: Started) -> None:
    with Asker(started.url, MACROS) as asker:
        assert list(wrong_under_load(RIGHT, asker.ask)) == []
        started.process.stop()
        with pytest.raises(DataSourceError, match="No connection"):
            list(wrong_under_load(RIGHT, asker.ask))


def test_a_secret_in_the_address_is_not_shown(of_the_service: Started) -> None:
    _wait_until_it_proves_something(of_the_service)
    url = of_the_service.url.replace("http://", "http://user:sesame@") + "/?token=sesame"
    done = CliRunner().invoke(dashboards, ["check", "--prometheus-url", url])
    assert done.exit_code == 1
    assert f"findings in the answers of {of_the_service.url}/." in done.stderr
    assert "sesame" not in done.output


def test_nor_is_it_where_the_answers_prove_nothing(started: Started) -> None:
    url = started.url.replace("http://", "http://user:sesame@") + "/?token=sesame"
    with Asker(url, MACROS) as asker, pytest.raises(DataSourceError, match="prove nothing") as refused:
        asker.require(premises(OBJECTIVES, MACROS.rate_interval))
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize("options", [(), ("--idle",)])
def test_a_prometheus_that_knows_nothing_of_the_service_proves_nothing(
    started: Started, options: tuple[str, ...]
) -> None:
    command = [sys.executable, "-m", "cmo_stack.cli", "dashboards", "check", "--prometheus-url", started.url]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (4, "")
    assert "no instance of the job 'cmo' is scraped" in done.stderr
    assert "CMOWatchdog, which always fires, does not" in done.stderr
    assert "Traceback" not in done.stderr


def test_answers_prove_something_where_the_service_is_scraped_and_its_rules_are_evaluated(
    of_the_service: Started,
) -> None:
    _wait_until_it_proves_something(of_the_service)
    for job in ("down", "another"):
        service = OBJECTIVES.service.model_copy(update={"job": job})
        refused = _refused(of_the_service, OBJECTIVES.model_copy(update={"service": service}))
        assert f"no instance of the job {job!r} is scraped" in refused
        assert "CMOWatchdog" not in refused
    for name in ("CMOPending", "CMOAnother"):
        alerts = [
            alert.model_copy(update={"alert": name} if alert.kind == "watchdog" else {})
            for alert in OBJECTIVES.alerts
        ]
        refused = _refused(of_the_service, OBJECTIVES.model_copy(update={"alerts": tuple(alerts)}))
        assert f"{name}, which always fires, does not" in refused
        assert "no instance" not in refused


def _wait_until_it_proves_something(asked: Started) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while refused := _refused(asked, OBJECTIVES):
        assert time.monotonic() < deadline, refused
        time.sleep(0.2)


def _refused(asked: Started, objectives: Objectives) -> str:
    """Why the answers of a Prometheus prove nothing; no words where they do."""
    with Asker(asked.url, MACROS) as asker:
        try:
            asker.require(premises(objectives, MACROS.rate_interval))
        except DataSourceError as error:
            return str(error)
    return ""
