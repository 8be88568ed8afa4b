"""A service that is asked forty live queries a second; half of them fail on command.

The real exporter counts them. It obeys commands, one JSON line each, on its input, and ends when its input
does.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from typing import Any, Final

from cmo_exporter import Exporter, ExporterSettings, Price

QUERIES_PER_SECOND: Final = 40
FAILING_SHARE: Final = 0.5
_HIT_SHARE: Final = 0.75
_SETTINGS: Final[dict[str, Any]] = {
    "scenarios": ("academic_research", "clinical_rush", "cache_effectiveness", "rag_intensive"),
    "honour_scenario_header": True,
    "components": ("cache_l1", "cache_l2", "cache_l3", "lightrag", "perplexity", "llm", "embedding"),
    "models": (("lightrag", "stub", "cmo-stub"), ("perplexity", "stub", "cmo-sonar")),
    "prices": {"cmo-stub": Price(0.15, 0.60), "cmo-sonar": Price(1.0, 1.0)},
}


def exporter() -> Exporter:
    """The exporter with the settings of the reference service, not yet started."""
    return Exporter(ExporterSettings(**_SETTINGS))


class Users:
    """A thread that asks, evenly over time; `fail` makes a share of all later answers fail."""

    def __init__(self, asked: Exporter) -> None:
        self._exporter = asked
        self._chance = random.Random()  # noqa: S311 - not secrets
        self._failing_share = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._ask_on, daemon=True)
        self._thread.start()

    def fail(self) -> float:
        """From now on half of the answers are none; returns the Unix time."""
        self._failing_share = FAILING_SHARE
        return time.time()

    def stop(self) -> None:
        """Ask no more."""
        self._stopped.set()
        self._thread.join()

    def _ask_on(self) -> None:
        due = time.monotonic()
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            self._ask()
            due += 1 / QUERIES_PER_SECOND

    def _ask(self) -> None:
        with self._exporter.query() as query:
            hit = self._chance.random() < _HIT_SHARE
            query.cache_result("hit" if hit else "miss")
            if self._chance.random() < self._failing_share:
                query.failed()
            else:
                query.answered("cache" if hit else "lightrag")


def main() -> int:
    """Serve metrics on a free port and obey ``url`` and ``fail``."""
    served = exporter()
    served.start()
    users = Users(served)
    for line in sys.stdin:
        command = json.loads(line)
        answer = users.fail() if command == "fail" else served.metrics_url
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    users.stop()
    served.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
