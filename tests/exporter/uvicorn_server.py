"""uvicorn around an application, in a thread of the tests."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE_SECONDS = 60.0


@contextlib.contextmanager
def serving(app: Any, eventually: Callable[[Callable[[], object]], None], **options: Any) -> Iterator[int]:
    """Serve an ASGI application on a free port, which is the value."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=5, **options)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        eventually(lambda: server.started)
        yield int(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()
