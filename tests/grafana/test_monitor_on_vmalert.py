"""The dashboard of the monitor where vmalert evaluates the rules, as in docker compose's profile scale.

A real Prometheus scrapes and has neither rules nor an Alertmanager; it writes to a real VictoriaMetrics, on
which a real vmalert evaluates the committed rules and notifies a real Alertmanager, and one that is away.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import requests
import yaml
from cmo_dashboards import Macros, queries, shipped_dashboards
from cmo_dashboards.asking import Asker
from cmo_dashboards.colours import FAIL, NEUTRAL
from cmo_dashboards.live import wrong_under_load
from cmo_dashboards.monitor import UID
from cmo_stack import servers
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess

from .seen_elsewhere import OF_VMALERT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmo_stack.servers import Server

ROOT: Final = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS: Final = 120.0
MACROS: Final = Macros(range="1m", rate_interval="5s", interval="1s")
[BOARD] = [board for board in shipped_dashboards() if board.uid == UID]
ROWS: Final = ("Rules", "From alert to pager", "The monitor's own load")
SHOWN: Final = ("Watchdog", *(panel.title for row in BOARD.rows if row.title in ROWS for panel in row.panels))
QUERIES: Final = [query for query in queries(BOARD, MACROS) if query.panel in SHOWN]
TILE, RELOADED = "Alertmanagers to notify", "Configuration as loaded"
TOOK, UNEVALUATED = "Evaluation time of each rule group", "Evaluations that failed or were missed"
BROKEN: Final = {"record": "broken", "expr": "up / on () up"}
"""More than one series on a side that may have one: it fails when it is evaluated."""
GROUPS: Final = yaml.safe_load((ROOT / "compose/vmalert/cmo-015-5s.yml").read_text())["groups"]
OURS: Final = {*(group["name"] for group in GROUPS), "cmo-015-broken"}


@dataclass(frozen=True)
class Scaled:
    """Where each server answers, as host and port, and where their files are."""

    folder: Path
    victoria_metrics: str
    prometheus: str
    alertmanager: str
    vmalert: str

    def asker(self) -> Asker:
        """Asks at the moment of its first question."""
        return Asker(f"http://{self.victoria_metrics}", MACROS)

    def lines(self, panel: str, ref_id: str, label: str) -> dict[str, float]:
        """The last value of each series of a query of a panel whose title begins so, by one of its labels."""
        with self.asker() as asker:
            answer = asker.ask(_query(panel, ref_id))
        return {labels.get(label, ""): values[-1] for labels, values in answer}

    def tile(self) -> dict[str, str]:
        """The colour that each evaluator has on the tile."""
        return {one: _query(TILE, "A").colour(value) for one, value in self.known().items()}

    def known(self) -> dict[str, float]:
        """How many Alertmanagers the tile says that each evaluator knows."""
        return self.lines(TILE, "A", "instance")

    def firing(self, name: str) -> list[dict[str, str]]:
        """The alerts of a name that have come to the Alertmanager."""
        found = requests.get(f"http://{self.alertmanager}/api/v2/alerts", timeout=5).json()
        return [one["labels"] for one in found if one["labels"]["alertname"] == name]


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def scaled(processes: ExitStack, victoria_metrics: Path, tmp_path: Path) -> Scaled:
    """All but vmalert, which is started with other notifiers in each test."""
    made = Scaled(tmp_path, *(f"127.0.0.1:{free_port()}" for _ in range(4)))
    (tmp_path / "local").mkdir()
    (tmp_path / "alertmanager.yml").write_text(
        yaml.safe_dump({"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]})
    )
    jobs = {
        "prometheus": made.prometheus,
        "alertmanager": made.alertmanager,
        "vmalert": made.vmalert,
        "victoria-metrics": made.victoria_metrics,
    }
    (tmp_path / "prometheus.yml").write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "1s"},
                "rule_files": ["local/*.yml"],
                "remote_write": [
                    {
                        "url": f"http://{made.victoria_metrics}/api/v1/write",
                        "queue_config": {"batch_send_deadline": "200ms"},
                    }
                ],
                "scrape_configs": [
                    {"job_name": job, "static_configs": [{"targets": [address]}]}
                    for job, address in jobs.items()
                ],
            }
        )
    )
    _start(
        processes,
        victoria_metrics,
        f"http://{made.victoria_metrics}/health",
        tmp_path,
        f"-storageDataPath={tmp_path / 'victoria-metrics'}",
        f"-httpListenAddr={made.victoria_metrics}",
        "-search.latencyOffset=1s",
    )
    _start(
        processes,
        servers.newest("alertmanager"),
        f"http://{made.alertmanager}/-/ready",
        tmp_path,
        f"--config.file={tmp_path / 'alertmanager.yml'}",
        f"--storage.path={tmp_path / 'notifications'}",
        f"--web.listen-address={made.alertmanager}",
        "--cluster.listen-address=",
    )
    return made


def test_it_is_true_of_vmalert_and_of_a_prometheus_beside_it(
    processes: ExitStack, scaled: Scaled, newest_prometheus: Server, vmalert: Path
) -> None:
    away = f"127.0.0.1:{free_port()}"
    prometheus = _prometheus(processes, scaled, newest_prometheus)
    notifiers = [f"-notifier.url=http://{one}" for one in (scaled.alertmanager, away)]
    evaluator = _vmalert(processes, scaled, vmalert, *notifiers)
    _every_answer_comes_and_is_plausible(scaled)
    _failures_of_our_rules_alone_are_told(scaled)
    assert scaled.known() == {scaled.vmalert: 2}, "the Prometheus has no rules, and needs no Alertmanager"
    assert scaled.tile() == {scaled.vmalert: NEUTRAL}
    jobs = {"A": "prometheus", "B": "alertmanager"} | {query.ref_id: "vmalert" for query in OF_VMALERT}
    accepted = {ref_id: scaled.lines(RELOADED, ref_id, "job") for ref_id in jobs}
    assert accepted == {ref_id: {job: 1} for ref_id, job in jobs.items()}

    group = {"name": "cmo-015-local", "interval": "1s", "rules": [{"record": "one", "expr": "vector(1)"}]}
    (scaled.folder / "local/rules.yml").write_text(yaml.safe_dump({"groups": [group]}))
    os.kill(prometheus.pid, signal.SIGHUP)
    red_beside = {scaled.vmalert: NEUTRAL, scaled.prometheus: FAIL}
    _wait_for(lambda: scaled.tile() == red_beside, "a Prometheus with rules and without an Alertmanager")

    (scaled.folder / "local/rules.yml").unlink()
    os.kill(prometheus.pid, signal.SIGHUP)
    evaluator.stop()
    nobody_evaluates = {scaled.prometheus: FAIL}
    _wait_for(lambda: scaled.tile() == nobody_evaluates, "that nothing evaluates the rules")


@pytest.mark.parametrize("notifier", ["-notifier.blackhole", "-notifier.config={folder}/nobody.yml"])
def test_a_vmalert_with_nobody_to_notify_is_red(
    processes: ExitStack, scaled: Scaled, newest_prometheus: Server, vmalert: Path, notifier: str
) -> None:
    (scaled.folder / "nobody.yml").write_text("static_configs: []\n")
    _prometheus(processes, scaled, newest_prometheus)
    _vmalert(processes, scaled, vmalert, notifier.format(folder=scaled.folder))
    _wait_for(lambda: scaled.tile() == {scaled.vmalert: FAIL}, "a vmalert that notifies nobody")
    assert scaled.known() == {scaled.vmalert: 0}


def _every_answer_comes_and_is_plausible(scaled: Scaled) -> None:
    def wrong() -> list[str]:
        with scaled.asker() as asker:
            return list(wrong_under_load(QUERIES, asker.ask))

    _wait_for(lambda: not wrong(), f"right answers to {len(QUERIES)} queries", wrong)
    expected = {f"{scaled.folder / 'rules.yml'};{name}" for name in OURS}
    _wait_for(lambda: scaled.lines(TOOK, "A", "rule_group").keys() == expected, "a line for each group")


def _failures_of_our_rules_alone_are_told(scaled: Scaled) -> None:
    broken = f"{scaled.folder / 'rules.yml'};cmo-015-broken"

    def failing() -> set[str]:
        return {group for group, value in scaled.lines(UNEVALUATED, "A", "rule_group").items() if value > 0}

    _wait_for(lambda: failing() == {broken}, "failures of the broken rule", failing)
    assert scaled.lines("Alerts sent to the Alertmanager", "B", "")[""] > 0, "one of the two is away"
    for alert in ("CMORulesFailing", "CMONotificationsFailing"):
        _wait_for(partial(scaled.firing, alert), f"{alert} at the Alertmanager")
    assert {labels["rule_group"] for labels in scaled.firing("CMORulesFailing")} == {broken}
    told = {labels["instance"] for labels in scaled.firing("CMONotificationsFailing")}
    assert told == {scaled.vmalert}


def _query(panel: str, ref_id: str) -> Any:
    [found] = [one for one in QUERIES if one.panel.startswith(panel) and one.ref_id == ref_id]
    return found


def _prometheus(processes: ExitStack, scaled: Scaled, server: Server) -> ManagedProcess:
    return _start(
        processes,
        server,
        f"http://{scaled.prometheus}/-/ready",
        scaled.folder,
        f"--config.file={scaled.folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={scaled.folder / 'prometheus'}",
        f"--web.listen-address={scaled.prometheus}",
    )


def _vmalert(processes: ExitStack, scaled: Scaled, program: Path, *notifiers: str) -> ManagedProcess:
    """With the committed rules, all evaluated soon and often, and one of ours and of others' that fails."""
    groups = [{**group, "interval": "5s", "eval_delay": "2s"} for group in GROUPS]
    groups += [
        {"name": name, "interval": "1s", "rules": [BROKEN]} for name in ("cmo-015-broken", "others-broken")
    ]
    (scaled.folder / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    url = f"http://{scaled.victoria_metrics}"
    return _start(
        processes,
        program,
        f"http://{scaled.vmalert}/health",
        scaled.folder,
        f"-rule={scaled.folder / 'rules.yml'}",
        *(f"-{option}.url={url}" for option in ("datasource", "remoteWrite", "remoteRead")),
        "-remoteWrite.flushInterval=500ms",
        f"-httpListenAddr={scaled.vmalert}",
        *notifiers,
    )


def _start(
    processes: ExitStack, server: Server | Path, health: str, folder: Path, *options: str
) -> ManagedProcess:
    def ready() -> bool:
        try:
            return requests.get(health, timeout=5).ok
        except requests.RequestException:
            return False

    program, environment = (server, {}) if isinstance(server, Path) else (server.path, server.environment)
    log = folder / f"{program.name}.log"
    command = [str(program), *options]
    return processes.enter_context(
        ManagedProcess(program.name, command, log_path=log, ready=ready, environment=environment)
    )


def _wait_for(condition: Callable[[], Any], what: str, found: Callable[[], Any] = str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"no sign of {what} in {DEADLINE_SECONDS:g} s: {found()}"
        time.sleep(0.3)
