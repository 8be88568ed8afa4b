"""Logging that holds no question.

Libraries quote what they are given: LightRAG logs queries, HTTP clients log URLs, exceptions carry bodies.
So only the service's own records and the server's are written out; of any other the name and the level are.
Records are written by a thread, because a full pipe must not stop the event loop.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from logging.handlers import QueueHandler, QueueListener
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRUSTED: Final = ("cmo_oracle", "cmo_exporter", "uvicorn")
_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _Withhold(logging.Filter):
    """Keeps our own records as they are, and of the others only that there was a warning or an error."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record to what may be written; False for none of it."""
        ours = record.name.split(".", maxsplit=1)[0] in _TRUSTED
        if not ours:
            if record.levelno < logging.WARNING:
                return False
            record.msg = "(text withheld: it may quote a question)"
            record.args = ()
        # A traceback ends in the exception's message, which may quote one too.
        if record.exc_info and record.exc_info[0] is not None:
            record.msg = f"{record.getMessage()} [{record.exc_info[0].__name__}]"
            record.args = ()
        record.exc_info = record.exc_text = None
        return True


@contextmanager
def writing_logs(level: int = logging.INFO) -> Iterator[None]:
    """Send all logging to stderr for the length of the block."""
    queue: SimpleQueue[logging.LogRecord] = SimpleQueue()
    entry = QueueHandler(queue)
    entry.addFilter(_Withhold())
    stderr = logging.StreamHandler()
    stderr.setFormatter(logging.Formatter(_FORMAT))
    listener = QueueListener(queue, stderr)
    root = logging.getLogger()
    before = root.handlers, root.level
    root.handlers = [entry]
    root.setLevel(level)
    # A library that brings its own handler would write past the filter.
    library = logging.getLogger("lightrag")
    library.handlers, library.propagate = [], True
    listener.start()
    try:
        yield
    finally:
        listener.stop()
        root.handlers = before[0]
        root.setLevel(before[1])
