"""Several worker processes of one instance: they share its port, its index, L2 and its metrics.

uvicorn starts them, ends them together and replaces one that dies. Each has a breaker and an L1 of its own;
their exporters add up to one target, through a folder in memory that lives as long as the instance.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from uvicorn.supervisors import Multiprocess

from cmo_oracle.app import create_app, with_timer
from cmo_oracle.logs import writing_logs

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from starlette.types import ASGIApp

    from cmo_oracle.settings import Settings

# A worker that does not answer for so long is replaced, and it answers nothing while it imports the engine:
# seconds, or on a busy machine many of them.
_LONGEST_START_SECONDS: Final = 120
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it, for this user alone


@dataclass(frozen=True)
class WorkerApp:
    """Makes the application in a worker, which is handed this object and nothing that cannot be copied."""

    settings: Settings

    def __call__(self) -> ASGIApp:
        """The application of this worker, which writes its log until the worker ends."""
        logs = contextlib.ExitStack()
        atexit.register(logs.close)
        logs.enter_context(writing_logs())
        return with_timer(create_app(self.settings), self.settings)


def serve_with_workers(
    settings: Settings, listener: socket.socket, *, workers: int, server_settings: Mapping[str, Any]
) -> None:
    """Serve with several workers until SIGTERM or Ctrl-C.

    Args:
        settings: those of the instance.
        listener: the socket of the service, which the workers share.
        workers: how many, at least two.
        server_settings: uvicorn's, as a single process has them.
    """
    with (
        tempfile.TemporaryDirectory(prefix="cmo-metrics-", dir=_folder_in_memory()) as shared,
        writing_logs(),
    ):
        app = WorkerApp(replace(settings, metrics_directory=Path(shared)))
        config = uvicorn.Config(
            app,
            factory=True,
            workers=workers,
            timeout_worker_healthcheck=_LONGEST_START_SECONDS,
            **server_settings,
        )
        Multiprocess(config, [listener]).run()


def _folder_in_memory() -> Path | None:
    return _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None
