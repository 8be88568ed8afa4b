"""Where a run measures: a folder, a collector for telemetry, and one core kept for what is measured."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import click

from cmo_bench.exporter import variants
from cmo_bench.exporter.children import Child

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

# prometheus-client reads it when it is imported.
_MULTIPROCESS: Final = "PROMETHEUS_MULTIPROC_DIR"


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: rounds over the variants, in process and over sockets.
        draws: fresh processes of each variant, among which the rounds are divided.
        requests: requests of one variant in one round.
        lead_in: requests before those, which are not measured: one of each connection at least.
        warm_up: requests of one variant before the first round.
        slices: pairs of slices of time, without scrapes and with them.
        slice_seconds: how long a slice is.
        scrapes: scrapes of each kind.
        processes: fresh processes of each kind whose memory is compared.
    """

    rounds: int = 320
    draws: int = 8
    requests: int = 100
    lead_in: int = 32
    warm_up: int = 1000
    slices: int = 100
    slice_seconds: float = 1.0
    scrapes: int = 40
    processes: int = 5

    @property
    def rounds_of_a_draw(self) -> int:
        """Rounds that each draw is measured in."""
        return self.rounds // self.draws

    @property
    def requests_of_a_draw(self) -> int:
        """Requests that each process is sent, measured or not."""
        return self.warm_up + self.rounds_of_a_draw * (self.lead_in + self.requests)


QUICK = Effort(
    rounds=2,
    draws=1,
    requests=40,
    lead_in=32,
    warm_up=80,
    slices=2,
    slice_seconds=0.5,
    scrapes=2,
    processes=2,
)


class Laboratory:
    """A context manager that holds what the measurements share."""

    def __init__(self, effort: Effort) -> None:
        self.effort = effort
        cores = sorted(os.sched_getaffinity(0))
        self.measured_core = cores[-1] if len(cores) > 1 else None
        self.other_core = cores[0] if len(cores) > 1 else None
        self._stack = contextlib.ExitStack()
        self._otlp_paths: dict[Child, str] = {}

    def __enter__(self) -> Self:
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="cmo-bench-")))
        self._collector = self.helper("collector")
        self.otlp_endpoint = f"http://127.0.0.1:{self._collector.ask('port')['port']}"
        self.load = self.helper("load")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def helper(self, module: str) -> Child:
        """A process that is not measured, kept off the core of those that are; it ends with the run."""
        log = self.directory / f"{module}.log"
        child = self._stack.enter_context(Child(module, log=log))
        if self.other_core is not None:
            child.keep_on(self.other_core)
        return child

    def subject(self, variant: str, *, directory: Path | None = None, worker: str = "0") -> Child:
        """A fresh process with one variant; several may share a folder for their values."""
        own = self.directory / f"{variant}-{len(self._otlp_paths)}"
        own.mkdir()
        arguments = (variant, str(directory or own), f"{self.otlp_endpoint}/{own.name}", worker)
        variables = {_MULTIPROCESS: str(own)} if variant == variants.INSTRUMENTATOR_SHARED else {}
        child = Child("subject", *arguments, log=own / "log", environment=variables)
        self._otlp_paths[child] = f"/{own.name}/v1/"
        return child

    def settle(self, subject: Child) -> None:
        """A process is warm: from now on it stays on its core, and what it has is not collected."""
        subject.ask("settle")
        self.keep(subject)

    def keep(self, child: Child) -> None:
        """Keep a process on the core of those that are measured."""
        if self.measured_core is not None:
            child.keep_on(self.measured_core)

    def telemetry_of(self, subject: Child) -> dict[str, int]:
        """Bytes of each signal that the collector has been sent by a process with a variant."""
        received: dict[str, int] = self._collector.ask("received")["received"]
        prefix = self._otlp_paths[subject]
        return {path.removeprefix(prefix): size for path, size in received.items() if path.startswith(prefix)}


def turns(names: Sequence[str], rounds: int, label: str) -> Iterator[Sequence[str]]:
    """The names for each round, beginning with another one each time; shows progress."""
    with click.progressbar(range(rounds), label=label, file=sys.stderr) as shown:
        for turn in shown:
            first = turn % len(names)
            yield (*names[first:], *names[:first])
