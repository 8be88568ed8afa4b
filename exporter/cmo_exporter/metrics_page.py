"""The page that documents every metric, written from the catalogue so that it cannot differ from it.

Run ``python -m cmo_exporter.metrics_page docs/metrics.md`` after a change of the catalogue; without a path
the page goes to standard output.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from cmo_exporter.catalogue import CATALOGUE, LIVE, OTHER
from cmo_exporter.page_command import write_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cmo_exporter.catalogue import Metric

_HEAD: Final = f"""# Metrics

<!-- Written by `python -m cmo_exporter.metrics_page docs/metrics.md` from the catalogue; do not edit. -->

Every metric that the exporter serves, and those that `cmo probe` serves (`cmo_probe_…`). Names and label
values are declared in `exporter/cmo_exporter/catalogue.py`, from which this page is written.

- Label values come from closed lists. Anything else is recorded as `{OTHER}` (HTTP methods: `_OTHER`) and
  counted in `cmo_series_dropped_total`.
- Label sets of the cache tiers, and of the scenarios, components and models of the settings, are there from
  the start, at 0. Those of `{OTHER}`, of HTTP routes, of unusual fallbacks and of the durations of
  cancelled component calls appear when they are first needed.
- `scenario` is `{LIVE}`, or one of the scenarios in the settings, which a load test names in a header.
- Query metrics of one scrape are read at one instant: started is finished plus in progress, and in progress
  is 0 only when everything has been counted. Of several workers, those that do not answer the scrape
  themselves are read as they were a tenth of a second before at most.
- A query without a session is counted as a query, but nobody is an active user by it.
"""

_LISTS_FROM_THE_SERVICE: Final = {
    "scenario": f"`{LIVE}` and the scenarios of the settings",
    "component": "the components of the settings",
    "provider": "the providers of the settings",
    "model": "the models of the settings",
    "worker": "the worker of the settings",
    "version": "the version of the service",
    "revision": "the revision of the service",
    "metric": "the metrics on this page, those of `cmo probe` apart",
    "canary": "the names in the file of canaries",
    "http_request_method": "the methods of HTTP",
    "http_route": "the templates of the service's routes, `unmatched`",
    "http_response_status_code": "as it was sent; 499 when the client has left, noticed from 0.1 to 0.2 s on",
    "error_type": "empty; the status from 500 on; `incomplete` when the answer failed after it had begun",
}


def page() -> str:
    """The page, in Markdown."""
    return "\n".join([_HEAD, *(_section(metric) for metric in CATALOGUE)])


def main(arguments: Sequence[str]) -> int:
    """Write the page to the path given, or to standard output; returns the exit status."""
    return write_page(page(), arguments, module="cmo_exporter.metrics_page")


def _section(metric: Metric) -> str:
    lines = [f"## `{metric.name}`", "", metric.help, "", _kind(metric)]
    if metric.labels:
        lines += ["", "| label | values |", "|---|---|"]
        lines += [f"| `{label}` | {_values(label, values)} |" for label, values in metric.labels.items()]
    if metric.buckets:
        edges = ", ".join(str(edge) for edge in metric.buckets)
        lines += ["", f"Bucket edges in seconds: {edges}."]
    return "\n".join(lines) + "\n"


def _kind(metric: Metric) -> str:
    return f"{metric.kind.value.capitalize()}{f', in {metric.unit}' if metric.unit else ''}."


def _values(label: str, values: tuple[str, ...] | None) -> str:
    if values is None:
        return _LISTS_FROM_THE_SERVICE[label]
    return ", ".join(f"`{value}`" for value in values)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
