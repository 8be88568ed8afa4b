"""Run the stack: start every part in order, wait until each serves, stop all of them in reverse."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Self

from cmo_stack.process import ManagedProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from cmo_stack.topology import Part


class Stack:
    """All parts of one stack; a context manager. What it has started is stopped however the block ends.

    Args:
        parts: what to run, in the order of starting.
        directory: where their logs go.
        tell: called with a line for people whenever a part serves.
    """

    def __init__(
        self, parts: Sequence[Part], directory: Path, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        self.parts = tuple(parts)
        self.logs = directory / "logs"
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

    def dead_parts(self) -> tuple[str, ...]:
        """The parts that have ended by themselves."""
        return tuple(name for name, process in self._running.items() if not process.running)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start_part(self, part: Part) -> None:
        process = ManagedProcess(
            part.name,
            part.command,
            log_path=self.logs / f"{part.name}.log",
            ready=part.serves,
            environment=part.environment,
        )
        began = time.monotonic()
        self._running[part.name] = process
        process.start()
        with contextlib.suppress(OSError):  # a closed terminal must not stop the stack half-way
            self._tell(f"{part.name:<13} {part.address}  ({part.version}; {time.monotonic() - began:.1f} s)")
