"""Restricts raw series to the service's scrape job, as the rules do.

A staging service in the same Prometheus has the same metrics under another job. Without the job in a query,
its failures would frighten, and its fast answers hide what production's users wait for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue

if TYPE_CHECKING:
    from cmo_slo.model import Service

_OF_THE_PROBER: Final = frozenset(
    name for metric in catalogue.PROBE_METRICS for name in catalogue.BY_NAME[metric].series_names
)
RAW_SERIES: Final = frozenset(name for metric in catalogue.CATALOGUE for name in metric.series_names)
"""What the service and its prober expose, by the names of their series."""
_TEXT: Final = r'"(?:[^"\\]|\\.)*"'
_TEXT_OR_SERIES: Final = re.compile(
    rf'{_TEXT}|(?<![\w:$])(?P<name>[a-z]\w*)(?![\w:(])(?P<labels>\{{(?:{_TEXT}|[^}}"])*\}})?'
)
_ASKS_FOR_A_JOB: Final = re.compile(r"[{,]\s*job\s*(?:=|!=|=~|!~)")


def of_its_job(expression: str, service: Service) -> str:
    """The expression with every raw series of the service, or of its prober, narrowed to its job.

    A selector that asks for a job already is left as it is.
    """

    def narrowed(found: re.Match[str]) -> str:
        name, labels = found["name"], found["labels"] or ""
        if name not in RAW_SERIES or _ASKS_FOR_A_JOB.search(labels):
            return found[0]
        job = service.probe_job if name in _OF_THE_PROBER else service.job
        others = labels[1:-1].strip()
        return f'{name}{{job="{job}"{", " if others else ""}{others}}}'

    return _TEXT_OR_SERIES.sub(narrowed, expression)
