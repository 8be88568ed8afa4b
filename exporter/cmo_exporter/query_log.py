"""The query log: one line of JSON a query, from which alone a slow query can be explained.

Making and writing a line is the work of a thread: a full pipe or a slow disk must not stop the event loop.
The line goes to the logger ``cmo_exporter.queries``, and by what handlers the service has put there; where it
has put none, to standard error, bare. `docs/query-log.md` says what each field means.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmo_exporter.guard import ErrorCounter
    from cmo_exporter.instruments import Instruments
    from cmo_exporter.query_record import QueryRecord, Step

LOGGER: Final = "cmo_exporter.queries"
MOST_WAITING: Final = 10_000
"""Lines that wait to be written; beyond so many, new ones are dropped and counted."""

_CLOSE_SECONDS: Final = 2.0
_GATHER_SECONDS: Final = 0.1
_DIGITS: Final = 6


class QueryLog:
    """Writes the lines of one exporter, in a thread of its own that starts with the first of them."""

    def __init__(self, instruments: Instruments, errors: ErrorCounter) -> None:
        self._lines = instruments.query_log_lines
        self._errors = errors
        self._logger = logging.getLogger(LOGGER)
        # Reentrant: the handler of a signal may put a line in the middle of this.
        self._lock = threading.RLock()
        self._writer: _Writer | None = None

    def put(self, record: QueryRecord) -> None:
        """Have the line of a finished query written."""
        writer = self._writer
        if writer is None:
            writer = self._start()
        if len(writer.waiting) >= MOST_WAITING:
            self._lines.child("dropped").inc()
            return
        writer.put(record)

    def after_fork(self) -> None:
        """In a forked child: the thread is the parent's, and so is what waits for it."""
        self._lock, self._writer = threading.RLock(), None

    def close(self) -> None:
        """Write what waits, for a short time, and stop; another line starts it again."""
        with self._lock:
            writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _start(self) -> _Writer:
        with self._lock:
            writer = self._writer
            if writer is None:
                # Known before it starts: the handler of a signal that comes meanwhile must not wait for it.
                writer = self._writer = _Writer(self._write)
                writer.start()
            return writer

    def _write(self, record: QueryRecord) -> None:
        try:
            self._write_line(json.dumps(fields(record), allow_nan=False))
            self._lines.child("written").inc()
        except Exception as error:  # noqa: BLE001 - no line is worth a query
            self._errors.report(catalogue.QUERY_LOG_LINES, error)

    def _write_line(self, line: str) -> None:
        if self._logger.handlers:
            self._logger.handle(self._logger.makeRecord(LOGGER, logging.INFO, "", 0, line, (), None))
        else:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


class _Writer:
    """A thread that writes what has gathered, a few times a second: to wake it for each line is dear."""

    def __init__(self, write: Callable[[QueryRecord], None]) -> None:
        self.waiting: deque[QueryRecord] = deque()
        self._write = write
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cmo-query-log", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, record: QueryRecord) -> None:
        """Have a record written soon."""
        # And no more: the handler of a signal may do so in the middle of this, where any lock would be held.
        self.waiting.append(record)

    def close(self) -> None:
        """Write what waits, and stop."""
        self._stop.set()
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stop.wait(_GATHER_SECONDS)
            while self.waiting:
                self._write(self.waiting.popleft())


def fields(record: QueryRecord) -> dict[str, object]:
    """The line of a query, as its fields."""
    trace_id, span_id = record.span.ids() if record.span is not None else (None, None)
    request = record.request
    line: dict[str, object] = {
        "time": _time(record.time),
        "trace_id": trace_id,
        "span_id": span_id,
        "process": os.getpid(),
        "scenario": record.scenario,
        "outcome": record.outcome,
        "source": record.source,
        "cache": record.cache,
        "duration_seconds": _seconds(record.seconds),
        "time_to_first_token_seconds": _seconds(record.first_token_seconds),
        "queue_wait_seconds": {name: _seconds(waited) for name, waited in record.queue_wait_seconds.items()},
        "components": [_component(step, record.began) for step in record.steps],
        "components_omitted": {
            name: {"calls": calls, "duration_seconds": _seconds(seconds)}
            for name, (calls, seconds) in record.omitted.items()
        },
        "cache_tiers": [{"tier": tier, "result": result} for tier, result in record.tiers],
        "fallbacks": [
            {"source": source, "target": target, "reason": reason}
            for source, target, reason in record.fallbacks
        ],
        "retries": record.retries,
        "breakers": record.breakers,
        "breaker_rejections": [
            {"component": component, "state": state} for component, state in record.refusals
        ],
        "input_tokens": int(record.tokens[0]),
        "output_tokens": int(record.tokens[1]),
        "cost_usd": record.cost,
        "http": None
        if request is None
        else {"method": request.method, "route": request.route, "status": request.status},
    }
    if record.question_text is not None:
        line["question"] = record.question_text
    return line


def _component(step: Step, began: float) -> dict[str, object]:
    """A call that the query did not wait for has no outcome yet, and no duration."""
    call: dict[str, object] = {
        "component": step.component,
        "outcome": step.outcome,
        "start_seconds": _seconds(step.began - began),
        "duration_seconds": _seconds(step.seconds) if step.outcome is not None else None,
    }
    if step.model is not None:
        call["model"] = step.model[1]
    if step.usage != (0, 0):
        call["input_tokens"], call["output_tokens"] = map(int, step.usage)
    return call


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(timespec="milliseconds")
