"""A service that is watched as it would be: exporter, Prometheus, compiled rules, Alertmanager, receiver."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final, Self

import requests
from cmo_slo import recorded
from cmo_stack import configuration, servers
from cmo_stack.free_ports import free_port
from cmo_stack.health import LOOPBACK, answers
from cmo_stack.ports import Ports
from cmo_stack.process import ManagedProcess

from cmo_bench.rules.receiver import Receiver
from cmo_bench.rules.server import MeasurementError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

OBJECTIVES: Final = "cmo-015"
_END_SECONDS: Final = 30.0
_TIMEOUT_SECONDS: Final = 30.0
_EVALUATED_SECONDS: Final = 120.0


class ServiceProcess:
    """`cmo_bench.rules.service` in a process of its own; a context manager."""

    def __init__(self, log: Path) -> None:
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cmo_bench.rules.service"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def ask(self, command: str) -> Any:
        """Send a command and wait for the answer.

        Raises:
            MeasurementError: the process has ended.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise MeasurementError("The watched service has no input or output.")
        answer = ""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        if not answer:
            said = self._log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise MeasurementError(f"The watched service ended at {command!r}. Its last words:\n{said}")
        return json.loads(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._process.communicate(timeout=_END_SECONDS)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()


class Watched:
    """One service, and all that watches it, with fresh data; a context manager.

    Args:
        directory: a folder of its own.
        interval_seconds: how often the service is scraped and the rules are evaluated.
    """

    def __init__(self, directory: Path, interval_seconds: int) -> None:
        self._directory = directory
        self._interval = interval_seconds
        self._stack = contextlib.ExitStack()
        self._session = requests.Session()
        self._session.trust_env = False

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True)
        with self._stack:
            self.service = self._stack.enter_context(ServiceProcess(self._directory / "service.log"))
            address: str = self.service.ask("url")
            metrics = int(address.removesuffix("/metrics").rpartition(":")[2])
            self._ports = Ports(
                metrics=metrics, pager=free_port(), alertmanager=free_port(), prometheus=free_port()
            )
            self.receiver = self._stack.enter_context(Receiver(self._ports.pager))
            self._stack.enter_context(self._alertmanager())
            self._stack.enter_context(self._prometheus())
            self._stack.callback(self._session.close)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def value(self, expression: str) -> float | None:
        """What an instant query has for its only series, ``None`` where it has none."""
        answer = self._session.get(
            f"http://{LOOPBACK}:{self._ports.prometheus}/api/v1/query",
            params={"query": expression},
            timeout=_TIMEOUT_SECONDS,
        ).json()
        result = answer["data"]["result"] if answer["status"] == "success" else []
        return float(result[0]["value"][1]) if result else None

    def wait_until_evaluated(self) -> None:
        """Wait until Prometheus has evaluated rules on what it has scraped.

        Raises:
            MeasurementError: it has not for long.
        """
        deadline = time.monotonic() + _EVALUATED_SECONDS
        while not self.value(f'sum_over_time({recorded.TOTAL_EVENTS}{{scenario="live"}}[1m])'):
            if time.monotonic() > deadline:
                raise MeasurementError(f"No rule has counted an event in {_EVALUATED_SECONDS:g} s.")
            time.sleep(self._interval / 2)

    def expositions(self) -> dict[str, str]:
        """What each watched server exposes, by the name of its job."""
        ports = {"cmo": self._ports.metrics, "prometheus": self._ports.prometheus}
        ports["alertmanager"] = self._ports.alertmanager
        return {
            job: self._session.get(f"http://{LOOPBACK}:{port}/metrics", timeout=_TIMEOUT_SECONDS).text
            for job, port in ports.items()
        }

    def _alertmanager(self) -> ManagedProcess:
        committed = configuration.committed("alertmanager", "alertmanager.yml")
        text = configuration.alertmanager_configuration(
            committed.read_text(encoding="utf-8"), ports=self._ports, directory=committed.parent
        )
        own = self._directory / "alertmanager.yml"
        own.write_text(text, encoding="utf-8")
        return self._server(
            "alertmanager",
            self._ports.alertmanager,
            [
                f"--config.file={own}",
                f"--storage.path={self._directory / 'alertmanager'}",
                "--cluster.listen-address=",
            ],
        )

    def _prometheus(self) -> ManagedProcess:
        committed = configuration.committed("prometheus", "prometheus.yml")
        text = configuration.prometheus_configuration(
            committed.read_text(encoding="utf-8"),
            ports=self._ports,
            scrape_interval_seconds=self._interval,
            rules=[configuration.rule_file(OBJECTIVES, self._interval, self._directory)],
        )
        own = self._directory / "prometheus.yml"
        own.write_text(text, encoding="utf-8")
        return self._server(
            "prometheus",
            self._ports.prometheus,
            [f"--config.file={own}", f"--storage.tsdb.path={self._directory / 'prometheus'}"],
        )

    def _server(self, name: servers.ServerName, port: int, options: list[str]) -> ManagedProcess:
        server = servers.newest(name)
        return ManagedProcess(
            server.label,
            [str(server.path), *options, f"--web.listen-address={LOOPBACK}:{port}"],
            log_path=self._directory / f"{name}.log",
            ready=lambda: answers(port, "/-/ready"),
            environment=server.environment,
        )
