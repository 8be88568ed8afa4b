"""Run one server process: start it, wait until it is ready, stop it, and never leave it behind.

A process started here dies with the one that started it, even when that one is killed: the kernel is asked
to kill it too (``prctl``), because no ``finally`` runs after SIGKILL. The kernel does so when the *thread*
that started it ends, so start servers from a thread that lives as long as they should. What the process
starts in turn is not covered: the servers here start nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

_PR_SET_PDEATHSIG: Final = 1
_POLL_SECONDS: Final = 0.05
_LOG_TAIL_LINES: Final = 15


class ProcessFailedError(Exception):
    """A server did not become ready, or ended by itself; the message holds the end of its log."""


class ManagedProcess:
    """One server process; a context manager that starts it, waits for ``ready`` and stops it.

    Args:
        name: what people call it, for messages.
        command: the program and its arguments.
        log_path: where its output goes.
        ready: true as soon as it serves; asked again and again until then.
        environment: variables beside our own environment.
        ready_timeout_seconds: how long it may take on the slowest machine.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log_path: Path,
        ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
        ready_timeout_seconds: float = 90.0,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log_path = log_path
        self._ready = ready
        self._environment = dict(environment or {})
        self._ready_timeout_seconds = ready_timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running server.

        Raises:
            ProcessFailedError: it has not been started.
        """
        if self._process is None:
            raise ProcessFailedError(f"{self.name} has not been started.")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the process and wait until it is ready.

        Raises:
            ProcessFailedError: it ended, or was not ready in time.
        """
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment},
                start_new_session=True,
                # Between fork and exec only two system calls run, in a function made before.
                preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509
            )
        self._wait_until_ready()
        return self

    def stop(self, grace_seconds: float = 10.0) -> None:
        """Ask the process to end, wait, and kill its whole process group if it does not."""
        if self._process is None:
            return
        self._signal_group(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_seconds)
        self._signal_group(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        if self._process is not None:
            self._signal_group(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self._ready_timeout_seconds
        try:
            while not self._ready():
                self._check_still_starting(deadline)
                time.sleep(_POLL_SECONDS)
        except BaseException:
            self.stop()
            raise

    def _check_still_starting(self, deadline: float) -> None:
        if not self.running:
            raise ProcessFailedError(f"{self.name} ended before it was ready.\n{self._log_tail()}")
        if time.monotonic() > deadline:
            waited = f"{self._ready_timeout_seconds:g} s"
            raise ProcessFailedError(f"{self.name} was not ready after {waited}.\n{self._log_tail()}")

    def _signal_group(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return

    def _log_tail(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        return f"The end of {self.log_path}:\n" + "\n".join(f"  {line}" for line in lines)


def _die_with(parent: int) -> Callable[[], None]:
    """What a child does before it becomes the server: ask to be killed when its parent ends."""
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the kernel was asked
            os._exit(1)

    return ask
