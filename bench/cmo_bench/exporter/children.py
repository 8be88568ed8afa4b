"""Processes that obey commands, one JSON line each, and that end when their input does."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

_END_SECONDS: Final = 30.0


class ChildError(Exception):
    """A process of the benchmark ended when it should have answered; the message holds what it printed."""


class Child:
    """One module run in a fresh interpreter; a context manager.

    Args:
        module: the module, below this package.
        arguments: its command line.
        log: where what it says on standard error goes.
        environment: variables beside our own environment.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._name = " ".join((module, *arguments[:1]))
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.{module}", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**_environment(), **(environment or {})},
            )

    def ask(self, command: str, *numbers: float) -> dict[str, Any]:
        """Send a command and wait for the answer.

        Raises:
            ChildError: the process has ended.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise ChildError(f"{self._name} has no input or output.")
        try:
            self._process.stdin.write(json.dumps([command, *numbers]) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            said = self._log.read_text(encoding="utf-8", errors="replace").strip()[-2000:]
            raise ChildError(f"{self._name} ended at {command!r}. Its last words:\n{said or '(none)'}")
        told: dict[str, Any] = json.loads(answer)
        return told

    def keep_on(self, core: int) -> None:
        """Keep every thread that the process has, and will have, on one core."""
        for task in Path(f"/proc/{self._process.pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # a thread that has ended since
                os.sched_setaffinity(int(task.name), {core})

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


def _environment() -> dict[str, str]:
    """Our own environment, without what would switch parts of the tools on or off."""
    prefixes = ("OTEL_", "PROMETHEUS_", "FASTAPI_", "CMO_")
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
