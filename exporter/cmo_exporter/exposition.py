"""The exposition: everything that is measured, as text for Prometheus, and the thread that serves it.

prometheus-client's renderer makes an object of every sample and takes 7 ms for a thousand series, in which
the service stands still. Here the text of a series up to its number is made once. What comes out is the
same, byte for byte, and the same metrics are there as a prometheus-client collector, for services that
serve them with others.

The server is small on purpose. prometheus-client's own compresses at the highest level for a scraper on
the same machine, resolves host names when it starts, and answers on every path.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar, Final

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Exposed
from prometheus_client.samples import Exemplar as ClientExemplar
from prometheus_client.utils import floatToGoString

from cmo_exporter.catalogue import Kind
from cmo_exporter.errors import MetricsAddressError
from cmo_exporter.late import catch_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from cmo_exporter.catalogue import Metric
    from cmo_exporter.totals import Exemplar, Total, Totals

_METRICS_PATH: Final = "/metrics"
_REQUEST_TIMEOUT_SECONDS: Final = 10.0
_SHUTDOWN_POLL_SECONDS: Final = 0.1
_OPENMETRICS: Final = "application/openmetrics-text"
_USUAL_NUMBERS: Final = {float(number): f"{number}.0" for number in range(1000)}


class Exposition:
    """Everything that is measured, as text or as a prometheus-client collector.

    Args:
        totals: where the numbers come from.
        publish: called before each reading, to have the latest of this process among them.
    """

    def __init__(self, totals: Totals, publish: Callable[[], None]) -> None:
        self._totals = totals
        self._publish = publish
        self._lock = threading.Lock()
        self._plain: dict[str, _Family] = {}
        self._open: dict[str, _Family] = {}

    def after_fork(self) -> None:
        """In a forked child: a thread of the parent may have held the lock."""
        self._lock = threading.Lock()

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
            accept: what the scraper would like, as in the HTTP header.
        """
        _, content_type = choose_encoder(accept)
        is_open = content_type.startswith(_OPENMETRICS)
        families = self._open if is_open else self._plain
        with self._lock:
            parts: list[str] = []
            for metric, totals in self._read(with_exemplars=is_open):
                family = families.get(metric.name)
                if family is None:
                    family = families[metric.name] = _Family(metric, is_open=is_open)
                family.write(totals, parts)
        if is_open:
            parts.append("# EOF\n")
        return "".join(parts).encode(), content_type

    def _read(self, *, with_exemplars: bool) -> Iterator[tuple[Metric, list[Total]]]:
        catch_up()
        self._publish()
        return self._totals.read(with_exemplars=with_exemplars)


class _Family:
    """The text of one metric: what does not change is made once."""

    def __init__(self, metric: Metric, *, is_open: bool) -> None:
        self._metric = metric
        name = metric.name.removesuffix("_total") if is_open else metric.name
        text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
        if is_open:
            text = text.replace('"', r"\"")
        self._head = f"# HELP {name} {text}\n# TYPE {name} {metric.kind.value}\n"
        self._prefixes: dict[tuple[str, ...], list[str]] = {}

    def write(self, totals: list[Total], parts: list[str]) -> None:
        """Add the text of these series to the parts."""
        parts.append(self._head)
        for total in totals:
            prefixes = self._prefixes.get(total.labels)
            if prefixes is None:
                prefixes = self._prefixes[total.labels] = list(_prefixes(self._metric, total.labels))
            if self._metric.kind is not Kind.HISTOGRAM:
                parts.append(f"{prefixes[0]}{_text(total.numbers[0])}\n")
                continue
            numbers = samples(total.numbers)
            if any(total.exemplars):
                endings = [_exemplar(exemplar) for exemplar in total.exemplars] + ["", ""]
            else:
                endings = [""] * len(prefixes)
            for prefix, number, ending in zip(prefixes, numbers, endings, strict=True):
                parts.append(f"{prefix}{_text(number)}{ending}\n")


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
    return _USUAL_NUMBERS.get(number) or _number(number)


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


class _Handler(BaseHTTPRequestHandler):
    """Answers ``GET /metrics`` and nothing else, and writes no log."""

    render: ClassVar[Callable[[str], tuple[bytes, str]]]
    timeout = _REQUEST_TIMEOUT_SECONDS
    server_version = "cmo-exporter"
    sys_version = ""

    def do_GET(self) -> None:
        """Render the metrics in the format that the scraper asks for."""
        if self.path.partition("?")[0] != _METRICS_PATH:
            self._answer(404, "text/plain; charset=utf-8", b"The metrics are at /metrics.\n")
            return
        body, content_type = type(self).render(self.headers.get("Accept") or "")
        self._answer(200, content_type, body)

    def log_message(self, *_: object) -> None:
        """Say nothing: a scrape each second is no news."""

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 16

    def handle_error(self, *_: object) -> None:
        """A scraper that hangs up is no error of ours; any other failed scrape Prometheus reports itself."""


class MetricsServer:
    """Serves the metrics from its own thread, so that a blocked event loop cannot hide itself.

    Args:
        render: makes the text and its content type of the header Accept.
        host: where to listen.
        port: at which port; 0 takes a free one.
        beside_others: whether other workers of the service listen at the same port; the kernel then gives
            each connection to one of them.

    Raises:
        MetricsAddressError: nothing can listen at this host and port.
    """

    def __init__(
        self, render: Callable[[str], tuple[bytes, str]], host: str, port: int, *, beside_others: bool = False
    ) -> None:
        self._server = _listen(render, host, port, beside_others=beside_others)
        self.host = host
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_SHUTDOWN_POLL_SECONDS,), name="cmo-metrics", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where Prometheus finds the metrics."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{_METRICS_PATH}"

    def forget(self) -> None:
        """In a forked child: the thread is the parent's; let go of the port, lest scrapes come here."""
        self._server.socket.close()

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _listen(
    render: Callable[[str], tuple[bytes, str]], host: str, port: int, *, beside_others: bool
) -> _Server:
    handler = type("_BoundHandler", (_Handler,), {"render": staticmethod(render)})
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        server_type = type(
            "_BoundServer", (_Server,), {"address_family": family, "allow_reuse_port": beside_others}
        )
        server: _Server = server_type(address[:2], handler)
    except (OSError, OverflowError, UnicodeError) as error:
        raise MetricsAddressError(
            f"/metrics cannot be served at {host}, port {port}: {getattr(error, 'strerror', None) or error}. "
            "Stop what listens there, or set another port (0 takes a free one) or another host."
        ) from error
    return server
