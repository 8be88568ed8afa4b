"""Of which scrape job a raw series is: what the rules count is of one, and so is what stands beside it.

A staging service in the same Prometheus has the same metrics under another job. Without the job in a query,
its failures would frighten, and its fast answers hide what production's users wait for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue

if TYPE_CHECKING:
    from cmo_slo.model import Service

_SUFFIXES: Final = ("", "_bucket", "_count", "_sum")
_OF_THE_PROBER: Final = frozenset(
    f"{name}{suffix}" for name in catalogue.PROBE_METRICS for suffix in _SUFFIXES
)
RAW_SERIES: Final = frozenset(
    f"{metric.name}{suffix}" for metric in catalogue.CATALOGUE for suffix in _SUFFIXES
)
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
