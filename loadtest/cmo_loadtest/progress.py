"""Show how far a run is: bars that are redrawn on a terminal, a plain line now and then elsewhere.

Progress is read from the operations that Locust has recorded, so what is shown has happened.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from pathlib import Path

    from cmo_loadtest.plan import Plan

_BAR_WIDTH: Final = 24
_PLAIN_INTERVAL_SECONDS: Final = 5.0


class Progress:
    """Operations done and failed, by scenario, of one run under way.

    Args:
        plan: what there is to do.
        stream: where to show it; ``None`` shows nothing.
    """

    def __init__(self, plan: Plan, stream: TextIO | None) -> None:
        self._stream = stream
        self._redraw = stream is not None and stream.isatty()
        self._planned = {scenario.name: scenario.operations for scenario in plan.scenarios}
        self._done = dict.fromkeys(self._planned, 0)
        self._failed = dict.fromkeys(self._planned, 0)
        self._results: Path | None = None
        self._offset = 0
        self._drawn_lines = 0
        self._shown: dict[str, int] = {}
        self._shown_at = time.monotonic()

    def follow(self, results: Path) -> None:
        """Read what has been recorded since the last call, and show it."""
        if self._stream is None:
            return
        with results.open("rb") as file:
            file.seek(self._offset)
            chunk = file.read()
        complete = chunk[: chunk.rfind(b"\n") + 1]
        self._offset += len(complete)
        for line in complete.splitlines():
            record = json.loads(line)
            self._done[record["scenario"]] += 1
            self._failed[record["scenario"]] += record["outcome"] != "success"
        if self._redraw:
            self._draw(self._stream)
        else:
            self._report(self._stream)

    def _draw(self, stream: TextIO) -> None:
        up = f"\x1b[{self._drawn_lines}A" if self._drawn_lines else ""
        lines = [f"\x1b[2K{self._bar(name)}\n" for name in self._planned]
        self._drawn_lines = len(lines)
        stream.write(up + "".join(lines))
        stream.flush()

    def _report(self, stream: TextIO) -> None:
        """A line for a scenario when it has moved: when it is finished, else every few seconds."""
        due = time.monotonic() - self._shown_at >= _PLAIN_INTERVAL_SECONDS
        for name, planned in self._planned.items():
            done = self._done[name]
            if done != self._shown.get(name, 0) and (due or done == planned):
                stream.write(f"{self._count(name)}\n")
                self._shown[name] = done
                self._shown_at = time.monotonic()
        stream.flush()

    def _bar(self, name: str) -> str:
        filled = _BAR_WIDTH * self._done[name] // self._planned[name]
        return f"[{'#' * filled}{'-' * (_BAR_WIDTH - filled)}] {self._count(name)}"

    def _count(self, name: str) -> str:
        width = max(map(len, self._planned))
        done = f"{self._done[name]:>4}/{self._planned[name]} operations"
        return f"{name:<{width}}  {done}, {self._failed[name]} failed"
