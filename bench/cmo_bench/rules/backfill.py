"""Put samples of the past into Prometheus blocks, as text that the real promtool reads.

A month of a service is gigabytes of text, so it is written, imported and deleted some days at a time.
"""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cmo_stack import servers

from cmo_bench.rules.history import STEP_SECONDS, TARGET_LABELS
from cmo_bench.rules.server import MeasurementError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from cmo_bench.rules.history import History, Series

CHUNK_DAYS: Final = 3
"""Days of text that are written at a time."""

_CHUNK_SECONDS: Final = CHUNK_DAYS * 86_400
# Longer than any chunk, so that promtool reads each text once and not once for each block of 2 hours.
_LONGEST_BLOCK: Final = "2000h"
_SIDE_BY_SIDE: Final = 2


@dataclass(frozen=True)
class Written:
    """How much has been imported: samples, and bytes of text."""

    samples: int
    text_bytes: int

    def __add__(self, other: Written) -> Written:
        return Written(self.samples + other.samples, self.text_bytes + other.text_bytes)


def backfill(history: History, blocks: Path, scratch: Path) -> Written:
    """Import all that a history's service has exposed.

    Raises:
        MeasurementError: promtool refuses it.
    """
    series = list(history.series())
    width = _CHUNK_SECONDS // STEP_SECONDS
    spans = [range(first, min(first + width, history.steps)) for first in range(0, history.steps, width)]

    def one(span: range) -> Written:
        text = scratch / f"history-{span.start}.om"
        written = write_text(text, series, span, history.start, TARGET_LABELS)
        import_text(text, blocks)
        text.unlink()
        return written

    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        return sum(pool.map(one, spans), Written(0, 0))


def write_text(
    path: Path, series: Iterable[Series], span: range, start: int, labels: Mapping[str, str]
) -> Written:
    """Write some steps of series as OpenMetrics, one series after the other."""
    stamps = [str(start + step * STEP_SECONDS) for step in span]
    samples = 0
    with path.open("w", encoding="utf-8") as text:
        for one in series:
            head = series_text(one.key[0], {**labels, **dict(one.key[1])})
            values: Sequence[Any] = one.values[span.start : span.stop].tolist()
            text.write(
                "".join([f"{head} {value} {stamp}\n" for value, stamp in zip(values, stamps, strict=True)])
            )
            samples += len(values)
        text.write("# EOF\n")
    return Written(samples, path.stat().st_size)


def write_constants(path: Path, series: Mapping[str, float], start: int, end: int) -> Written:
    """Write series that do not change, by their name and labels as text, at every step from start to end."""
    stamps = [str(moment) for moment in range(start, end + 1, STEP_SECONDS)]
    with path.open("w", encoding="utf-8") as text:
        for head, value in series.items():
            text.write("".join([f"{head} {value!r} {stamp}\n" for stamp in stamps]))
        text.write("# EOF\n")
    return Written(len(series) * len(stamps), path.stat().st_size)


def series_text(name: str, labels: Mapping[str, str]) -> str:
    """A series as an exposition writes it."""
    inside = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{name}{{{inside}}}"


def import_text(text: Path, blocks: Path) -> None:
    """Make blocks of a text.

    Raises:
        MeasurementError: promtool refuses it.
    """
    promtool(
        ["tsdb", "create-blocks-from", f"--max-block-duration={_LONGEST_BLOCK}", "openmetrics", "--quiet"],
        [str(text), str(blocks)],
    )


def promtool(command: Sequence[str], arguments: Sequence[str], directory: Path | None = None) -> str:
    """Run the newest promtool; returns what it prints.

    Raises:
        MeasurementError: it fails.
    """
    tool = servers.newest("promtool")
    done = subprocess.run(
        [str(tool.path), *command, *arguments],
        env={**os.environ, **tool.environment},
        capture_output=True,
        text=True,
        check=False,
        cwd=directory,
    )
    if done.returncode != 0:
        raise MeasurementError(f"promtool {' '.join(command)} fails: {(done.stderr or done.stdout)[-2000:]}")
    return done.stdout
