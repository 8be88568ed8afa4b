"""Two loads of the pipeline as a Prometheus has them that scraped them, and what the rules recorded."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from cmo_slo.compile import DEFAULT_SCRAPE_INTERVAL, compile_rules
from cmo_slo.durations import SECOND, parse_duration
from cmo_slo.objectives import load_objectives, shipped_directory
from cmo_slo.rule import as_document

from ..slo_rules.backfill import Past
from .conftest import LOADING_STEPS
from .pipeline import AFTER, STARTED, Pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from cmo_stack import servers

    from ..slo_rules.backfill import Point
    from .conftest import Labels

SCRAPE: Final = DEFAULT_SCRAPE_INTERVAL
STEP_SECONDS: Final = parse_duration(SCRAPE) // SECOND
BEGIN: Final = STARTED + 240_000
"""When all of it begins, in Unix seconds: on a full minute, of a day that it ends on too."""
QUIET_SCRAPES: Final = 30
"""So many that no range from the end of the first load back begins while the service starts."""
FIRST_STEPS: Final = 6
SECOND_STEPS: Final = 10
"""Steps of the loads: a range that holds the second also holds the first, when it is moved there."""
PAUSE_SCRAPES: Final = 8
"""From the first load to the next release."""
FORGOTTEN_SCRAPES: Final = 24
"""Until the release before is no longer there: Prometheus looks back for 5 minutes."""


def make_past(server: servers.Server, folder: Path) -> tuple[int, int, int]:
    """Quiet, a first load, a gap and a second load; a moment of each but the first load."""
    scraped = Scraped()
    scraped.idle(LOADING_STEPS + QUIET_SCRAPES)
    quiet = scraped.moment
    scraped.loaded(FIRST_STEPS, breaker="open")
    scraped.idle(PAUSE_SCRAPES)
    scraped.service.release = AFTER
    scraped.service.breaker = "closed"
    gap = scraped.moment
    scraped.idle(FORGOTTEN_SCRAPES)
    scraped.loaded(SECOND_STEPS, breaker="closed")
    with Past(server, folder) as past:
        past.store(scraped.series)
        past.evaluate(_rules(), BEGIN, scraped.moment)
    return quiet, gap, scraped.moment


def _rules() -> dict[str, Any]:
    """What the panels read from that are looked at here: none of a long window, and no alert."""
    document = as_document(compile_rules(load_objectives(shipped_directory() / "cmo-015.yml"), SCRAPE))
    read = ("-events", "-objectives")
    return {"groups": [group for group in document["groups"] if group["name"].endswith(read)]}


class Scraped:
    """What a Prometheus has of the service, scrape by scrape."""

    def __init__(self) -> None:
        self.service = Pipeline()
        self.series: dict[str, list[Point]] = defaultdict(list)

    @property
    def moment(self) -> int:
        """Just before the next scrape."""
        return BEGIN + self.service.scrapes * STEP_SECONDS - 1

    def idle(self, scrapes: int) -> None:
        self.service.busy = False
        self._scrape(scrapes)

    def loaded(self, scrapes: int, *, breaker: str) -> None:
        self.service.busy, self.service.breaker = True, breaker
        self._scrape(scrapes)

    def _scrape(self, scrapes: int) -> None:
        for _ in range(scrapes):
            at = BEGIN + self.service.scrapes * STEP_SECONDS
            self.service.scrapes += 1
            self._add("up", {}, at, 1.0)
            for family in self.service.collect():
                for sample in family.samples:
                    self._add(sample.name, sample.labels, at, sample.value)

    def _add(self, name: str, labels: Labels, at: int, value: float) -> None:
        of_target = {"job": "cmo", "instance": "127.0.0.1:9464", **labels}
        named = ",".join(f'{label}="{text}"' for label, text in of_target.items() if text)
        self.series[f"{name}{{{named}}}"].append((at, float(value)))
