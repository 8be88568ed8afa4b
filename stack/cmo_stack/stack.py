"""Run the stack: start every part in order, wait until each serves, stop all of them in reverse."""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING, Final, Literal, Self

from cmo_stack import health
from cmo_stack.process import ManagedProcess, ProcessFailedError
from cmo_stack.topology import JOB, Part, Settings, parts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

SCRAPES_BEFORE_LOAD: Final = 2
"""A count begins at a scrape that agrees with the one before it."""

_LONG_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.1
_SCRAPE_PATIENCE_SECONDS: Final = 120.0


class Stack:
    """All parts of one stack; a context manager. What it has started is stopped however the block ends.

    Args:
        settings: what to run; logs go below its directory.
        tell: called with a line for people whenever a part serves, or takes long.
        chosen: run these parts, in this order, instead of all that ``settings`` describe.

    Raises:
        ServerMissingError: a server is not on this machine.
    """

    def __init__(
        self,
        settings: Settings,
        tell: Callable[[str], None] = lambda _: None,
        chosen: Sequence[Part] | None = None,
    ) -> None:
        self.settings = settings
        self.parts = parts(settings) if chosen is None else tuple(chosen)
        self._tell = tell
        self._running: dict[str, ManagedProcess] = {}

    def start(self) -> Self:
        """Start every part, each when the one before it serves.

        Raises:
            ProcessFailedError: a part ended or did not serve in time; those before it are stopped.
        """
        try:
            for part in self.parts:
                self._start_part(part)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop every running part, the last first."""
        while self._running:
            name = next(reversed(self._running))
            self._running[name].stop()
            del self._running[name]

    def has(self, name: str) -> bool:
        """Whether a part has been started and not stopped."""
        return name in self._running

    def process(self, name: str) -> ManagedProcess:
        """The process of a running part.

        Raises:
            KeyError: no such part is running.
        """
        return self._running[name]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start_part(self, part: Part) -> None:
        began = time.monotonic()
        patience = _Patience(lambda: self._say(f"{part.name:<13} is starting ..."))
        process = ManagedProcess(
            part.name,
            part.command,
            log_path=self.settings.directory / "logs" / f"{part.name}.log",
            ready=lambda: (part.serves() and _listens(process, part.port)) or patience.wears(),
            environment=part.environment,
        )
        self._running[part.name] = process
        process.start()
        self._say(f"{part.name:<13} {part.address}  ({part.version}; {time.monotonic() - began:.1f} s)")

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # a closed terminal must not stop the stack half-way
            self._tell(line)


def wait_until_scraped(
    settings: Settings, since: float, *, running: Callable[[], bool] = lambda: True
) -> None:
    """Wait until Prometheus has scraped the service twice, which a count needs before a load begins.

    Args:
        settings: those of a stack that has been started.
        since: when it was started, in Unix seconds: Prometheus may remember the one before it.
        running: asked again and again whether it still runs.

    Raises:
        ProcessFailedError: it has not been scraped in minutes, or has ended.
    """
    port = settings.ports.prometheus
    patience_seconds = _SCRAPE_PATIENCE_SECONDS + SCRAPES_BEFORE_LOAD * settings.scrape_interval_seconds
    deadline = time.monotonic() + patience_seconds
    while health.scrapes(port, JOB, since) < SCRAPES_BEFORE_LOAD:
        if not running():
            raise ProcessFailedError("The stack was stopped before Prometheus had scraped the service twice.")
        if time.monotonic() > deadline:
            raise ProcessFailedError(
                f"Prometheus has not scraped the service twice in {patience_seconds:g} s: "
                f"http://{health.LOOPBACK}:{port}/targets says why."
            )
        time.sleep(_POLL_SECONDS)


def _listens(process: ManagedProcess, port: int | None) -> bool:
    # Another stack that took the port first answers there too, while our process is about to find it busy.
    return port is None or health.listens(process.pid, port)


class _Patience:
    """Says once that something takes long."""

    def __init__(self, say: Callable[[], None]) -> None:
        self._say = say
        self._ends = time.monotonic() + _LONG_SECONDS

    def wears(self) -> Literal[False]:
        """Speak if it has been long; always false, because nothing is ready by it."""
        if time.monotonic() > self._ends:
            self._ends = math.inf
            self._say()
        return False
