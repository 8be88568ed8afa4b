"""The exposition: everything that is measured, as text for Prometheus.

prometheus-client's renderer makes an object of every sample and takes 7 ms for a thousand series, in which
the service stands still. Here the text of a series up to its number is made once. What comes out is the
same, byte for byte, and the same metrics are there as a prometheus-client collector, for services that
serve them with others.
"""

from __future__ import annotations

import threading
from itertools import accumulate, compress, count
from operator import is_not
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Exposed
from prometheus_client.samples import Exemplar as ClientExemplar
from prometheus_client.utils import floatToGoString

from cmo_exporter.catalogue import Kind
from cmo_exporter.postponed_ends import catch_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from prometheus_client import CollectorRegistry
    from prometheus_client.registry import Collector

    from cmo_exporter.catalogue import Metric
    from cmo_exporter.totals import Exemplar, Total, Totals

_OPENMETRICS: Final = "application/openmetrics-text"
# So long at a time a scrape keeps Python's lock. Rests cost as much as some 0.1 ms of work each.
_WORK_SECONDS: Final = 0.001
_REST_SECONDS: Final = 0.0001
# Go writes them otherwise than Python from here on.
_LARGE: Final = 1e6


class Exposition:
    """Everything that is measured, as text or as a prometheus-client collector.

    Args:
        totals: where the numbers come from.
        publish: called before each reading, to have the latest of this process among them.
    """

    def __init__(self, totals: Totals, publish: Callable[[], None]) -> None:
        self._totals = totals
        self._publish = publish
        self._lock = threading.RLock()
        self._plain: dict[str, _Family] = {}
        self._open: dict[str, _Family] = {}

    def after_fork(self) -> None:
        """In a forked child: a thread of the parent may have held the lock."""
        self._lock = threading.RLock()

    def held(self) -> AbstractContextManager[object]:
        """Meanwhile other threads wait with their readings."""
        return self._lock

    def describe(self) -> list[Exposed]:
        """Nothing: the registry holds this collector alone, so names cannot clash."""
        return []

    def collect(self) -> Iterator[Exposed]:
        """Every metric, as of one instant."""
        with self._lock:
            yield from [_exposed(metric, totals) for metric, totals in self._read(with_exemplars=True)]

    def render(self, accept: str) -> tuple[bytes, str]:
        """The text of every metric, as of one instant, and its content type.

        Args:
            accept: what the scraper would like, as in the HTTP header; what cannot be understood is answered
                as nothing at all.
        """
        _, content_type = _encoder(accept)
        is_open = content_type.startswith(_OPENMETRICS)
        families = self._open if is_open else self._plain
        with self._lock:
            parts: list[bytes] = []
            rest_at = monotonic() + _WORK_SECONDS
            for metric, totals in self._read(with_exemplars=is_open):
                family = families.get(metric.name)
                if family is None:
                    family = families[metric.name] = _Family(metric, is_open=is_open)
                parts.append(family.text(totals))
                if monotonic() >= rest_at:
                    # Lets go of Python's lock: whoever waits for it would otherwise do so for 5 ms.
                    sleep(_REST_SECONDS)
                    rest_at = monotonic() + _WORK_SECONDS
        if is_open:
            parts.append(b"# EOF\n")
        return b"".join(parts), content_type

    def _read(self, *, with_exemplars: bool) -> Iterator[tuple[Metric, list[Total]]]:
        catch_up()
        self._publish()
        return self._totals.read(with_exemplars=with_exemplars)


def registry_renderer(registry: CollectorRegistry) -> Callable[[str], tuple[bytes, str]]:
    """Render a prometheus-client registry, for whoever has one and serves it with our `MetricsServer`."""

    def render(accept: str) -> tuple[bytes, str]:
        encode, content_type = _encoder(accept)
        return encode(registry), content_type

    return render


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        return choose_encoder(accept)
    except Exception:  # noqa: BLE001 - prometheus-client stumbles over versions that are no numbers
        return choose_encoder("")


class _Family:
    """The text of one metric: what does not change is made once."""

    def __init__(self, metric: Metric, *, is_open: bool) -> None:
        self._metric = metric
        name = metric.name.removesuffix("_total") if is_open else metric.name
        text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
        if is_open:
            text = text.replace('"', r"\"")
        self._head = f"# HELP {name} {text}\n# TYPE {name} {metric.kind.value}\n".encode()
        self._prefixes: dict[tuple[str, ...], list[str]] = {}
        self._totals: list[Total] = []
        self._texts: list[bytes] = []
        self._all = b""

    def text(self, totals: list[Total]) -> bytes:
        """The text of these series, which are all that the metric has."""
        if totals is not self._totals or not self._all:
            changed: Iterable[int] = compress(count(), map(is_not, totals, self._totals))
            if len(totals) != len(self._totals):
                changed, self._texts = range(len(totals)), [b""] * len(totals)
            for index in changed:
                self._texts[index] = self._text(totals[index]).encode()
            self._totals, self._all = totals, b"".join((self._head, *self._texts))
        return self._all

    def _text(self, total: Total) -> str:
        prefixes = self._prefixes.get(total.labels)
        if prefixes is None:
            prefixes = self._prefixes[total.labels] = list(_prefixes(self._metric, total.labels))
        if self._metric.kind is not Kind.HISTOGRAM:
            return f"{prefixes[0]}{_text(total.numbers[0])}\n"
        numbers = samples(total.numbers)
        if any(total.exemplars):
            endings = [_exemplar(exemplar) for exemplar in total.exemplars] + ["", ""]
        else:
            endings = [""] * len(prefixes)
        lines = zip(prefixes, numbers, endings, strict=True)
        return "".join(f"{prefix}{_text(number)}{ending}\n" for prefix, number, ending in lines)


def samples(histogram: Sequence[float]) -> list[float]:
    """The values of a histogram's samples: its buckets, made cumulative, the count and the sum."""
    buckets = list(accumulate(histogram[:-1]))
    return [*buckets, buckets[-1], histogram[-1]]


def _prefixes(metric: Metric, labels: tuple[str, ...]) -> Iterator[str]:
    for suffix, named in _names(metric, labels):
        text = ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(named.items()))
        yield f"{metric.name}{suffix}{{{text}}} " if text else f"{metric.name}{suffix} "


def _names(metric: Metric, labels: tuple[str, ...]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """What comes after the metric's name in each of its samples, and their labels."""
    named = dict(zip(metric.labels, labels, strict=True))
    if metric.kind is not Kind.HISTOGRAM:
        yield "", named
        return
    for edge in (*metric.buckets, float("inf")):
        yield "_bucket", {**named, "le": _number(edge)}
    yield "_count", named
    yield "_sum", named


def _number(number: float) -> str:
    text: str = floatToGoString(number)  # type: ignore[no-untyped-call]  # it has no types
    return text


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _text(number: float) -> str:
    return repr(number) if 0.0 <= number < _LARGE else _number(number)


def _exemplar(exemplar: Exemplar | None) -> str:
    if exemplar is None:
        return ""
    ids, value, at = exemplar
    labels = ",".join(f'{name}="{text}"' for name, text in sorted(ids.items()))
    return f" # {{{labels}}} {_number(value)} {at}"


def _exposed(metric: Metric, totals: Iterable[Total]) -> Exposed:
    family = Exposed(metric.name.removesuffix("_total"), metric.help, metric.kind.value)
    for total in totals:
        is_histogram = metric.kind is Kind.HISTOGRAM
        numbers = samples(total.numbers) if is_histogram else total.numbers
        exemplars = [*total.exemplars] or [None] * len(numbers)
        for position, (suffix, labels) in enumerate(_names(metric, total.labels)):
            known = exemplars[position] if position < len(exemplars) else None
            family.add_sample(
                metric.name + suffix,
                dict(labels),
                numbers[position],
                exemplar=ClientExemplar(*known) if known else None,
            )
    return family
