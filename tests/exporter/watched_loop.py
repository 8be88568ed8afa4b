"""An event loop in a thread, which an exporter watches."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from cmo_exporter import Exporter

WAIT = 60
BLOCKED_AFTER = 0.3
INTERVAL = 0.02


class Loop:
    """An event loop in a thread of its own, which the exporter is told of."""

    def __init__(self, exporter: Exporter) -> None:
        self.exporter = exporter
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(self.exporter.watch_running_loop)
        self.loop.run_forever()

    def call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def __enter__(self) -> Loop:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.loop.close()

    def stop(self) -> None:
        def leave() -> None:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.call_soon(self.loop.stop)

        self.loop.call_soon_threadsafe(leave)
        self.thread.join(WAIT)
        assert not self.thread.is_alive()
