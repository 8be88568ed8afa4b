"""A real Prometheus on blocks that others have written, and what its queries answer and read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import requests
from cmo_stack import servers
from cmo_stack.free_ports import free_port
from cmo_stack.health import LOOPBACK, answers
from cmo_stack.process import ManagedProcess

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

_QUERY_TIMEOUT_SECONDS: Final = 600
_MOST_SAMPLES_OF_A_QUERY: Final = 500_000_000


class MeasurementError(Exception):
    """A measurement could not be made; the message says what was wrong and where to look."""


@dataclass(frozen=True)
class Answer:
    """What an instant query has found.

    Attributes:
        result: the series of the result, as the API writes them.
        samples_read: samples that the engine has loaded for it (``totalQueryableSamples``).
    """

    result: list[dict[str, Any]]
    samples_read: int

    @property
    def value(self) -> float:
        """The value of the only series.

        Raises:
            MeasurementError: there are none, or several.
        """
        if len(self.result) != 1:
            raise MeasurementError(f"Expected one series, got {len(self.result)}: {self.result[:3]}")
        return float(self.result[0]["value"][1])


class Store:
    """A Prometheus that scrapes nothing and serves a folder of blocks; a context manager.

    Blocks that are put there are seen after `reopen`.
    """

    def __init__(self, directory: Path) -> None:
        self.blocks = directory / "data"
        self.blocks.mkdir(parents=True)
        self._configuration = directory / "store.yml"
        self._configuration.write_text("global: {scrape_interval: 15s}\n")
        self._log = directory / "store.log"
        self.server = servers.newest("prometheus")
        self._session = requests.Session()
        self._session.trust_env = False
        self._process: ManagedProcess | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self._session.close()

    def reopen(self) -> None:
        """Start the server anew, so that it serves the blocks that have been written since."""
        self._close()
        self._open()

    def query(self, expression: str, moment: float) -> Answer:
        """Ask an instant query at a moment (Unix time).

        Raises:
            MeasurementError: Prometheus refuses the query.
        """
        answer = self._session.post(
            f"{self.url}/api/v1/query",
            data={"query": expression, "time": f"{moment:.3f}", "stats": "all"},
            timeout=_QUERY_TIMEOUT_SECONDS,
        ).json()
        if answer["status"] != "success":
            raise MeasurementError(f"Prometheus refuses {expression}: {answer.get('error')}")
        data = answer["data"]
        result = data["result"] if data["resultType"] in ("vector", "matrix") else [{"value": data["result"]}]
        return Answer(result, int(data["stats"]["samples"]["totalQueryableSamples"]))

    def _open(self) -> None:
        port = free_port()
        self.url = f"http://{LOOPBACK}:{port}"
        self._process = ManagedProcess(
            self.server.label,
            [
                str(self.server.path),
                f"--config.file={self._configuration}",
                f"--storage.tsdb.path={self.blocks}",
                "--storage.tsdb.retention.time=10y",
                # Blocks stay as they are: merging them would only take the processor from what is measured.
                "--no-storage.tsdb.allow-overlapping-compaction",
                "--storage.tsdb.min-block-duration=2h",
                "--storage.tsdb.max-block-duration=2h",
                f"--query.max-samples={_MOST_SAMPLES_OF_A_QUERY}",
                f"--query.timeout={_QUERY_TIMEOUT_SECONDS}s",
                f"--web.listen-address={LOOPBACK}:{port}",
            ],
            log_path=self._log,
            ready=lambda: answers(port, "/-/ready"),
            environment=self.server.environment,
        ).start()

    def _close(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None
