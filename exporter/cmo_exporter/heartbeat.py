"""The thread that does what cannot wait for the next scrape of this process.

Peaks of memory would be lost between two scrapes; what only this process knows, and what waits in its
journal, is needed while another worker is scraped. A process that is alone does both when it is scraped, and
its heart beats more slowly.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue
from cmo_exporter.postponed_ends import catch_up

if TYPE_CHECKING:
    from cmo_exporter.membership import Membership
    from cmo_exporter.recorder import Recorder

_POST_SECONDS: Final = 0.1
_PUBLISH_SECONDS: Final = 0.5
_PUBLISH_SECONDS_ALONE: Final = 5.0


class Heartbeat:
    """Reads memory as often as it is told to; among workers, posts ten times a second and publishes twice.

    Args:
        recorder: whose journal is posted, and where memory is read into.
        interval_seconds: how often memory is read.
        membership: publishes what other workers have to know of this one, if there are any.
    """

    def __init__(self, recorder: Recorder, interval_seconds: float, membership: Membership) -> None:
        self._recorder = recorder
        self._membership = membership
        self._interval = interval_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cmo-heartbeat", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        read_at = publish_at = 0.0
        while not self._stop.wait(self._seconds_to_next()):
            try:
                catch_up()
                self._recorder.journal.post()
                now = time.monotonic()
                if now >= read_at:
                    read_at = now + self._interval
                    self._recorder.ledger.sample_memory()
                if now >= publish_at:
                    publish_at = now + (
                        _PUBLISH_SECONDS if self._membership.is_joined else _PUBLISH_SECONDS_ALONE
                    )
                    self._membership.publish()
            except Exception as error:  # noqa: BLE001 - the next beat may succeed
                self._recorder.errors.report(catalogue.MEMORY_PEAK, error)

    def _seconds_to_next(self) -> float:
        longest = _POST_SECONDS if self._membership.is_joined else _PUBLISH_SECONDS_ALONE
        return min(self._interval, longest)
