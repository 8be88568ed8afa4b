"""What every recording call needs: the instruments, the books, and where errors are counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cmo_exporter.catalogue import Metric
    from cmo_exporter.guard import ErrorCounter
    from cmo_exporter.instruments import Instruments
    from cmo_exporter.journal import Journal
    from cmo_exporter.ledger import Ledger
    from cmo_exporter.query_record import Watch


@dataclass(frozen=True, slots=True)
class Recorder:
    """Handed to queries and component calls, which thereby know nothing of threads or servers."""

    instruments: Instruments
    ledger: Ledger
    journal: Journal
    errors: ErrorCounter
    watch: Watch | None = None

    def dropped(self, metric: Metric) -> None:
        """Count a label value that was replaced by ``_other``; raises nothing."""
        try:
            self.instruments.dropped(metric.name)
        except Exception as error:  # noqa: BLE001 - as everywhere in recording
            self.errors.report(metric, error)
