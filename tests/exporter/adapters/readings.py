"""What an exporter shows at one moment, and what has been added since."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cmo_exporter import Exporter

Reading = dict[tuple[str, ...], float]


class Readings:
    """Reads an exporter as Prometheus would; a key is the sample's name and its label values, in order."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter
        self._before = self.all()

    def all(self) -> Reading:
        """Every sample but the buckets."""
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in self._exporter.registry.collect()
            for sample in family.samples
            if not sample.name.endswith(("_bucket", "_created"))
        }

    def now(self, name: str, *labels: str) -> float:
        """One sample."""
        return self.all()[(name, *labels)]

    def added(self, *names: str) -> Reading:
        """What has been added to samples of these metrics since the last time, where it is not nothing."""
        before, self._before = self._before, self.all()
        return {
            key: value - before.get(key, 0)
            for key, value in self._before.items()
            if value != before.get(key, 0) and key[0].startswith(names)
        }
