"""The settings of an exporter: the closed lists of its labels, where it serves, how often it samples."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Final

from cmo_exporter.catalogue import LIVE, OTHER
from cmo_exporter.errors import SettingsError

_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_HIGHEST_PORT: Final = 65535
_HIGHEST_NUMBER: Final = 1e9  # of seconds, of sessions, or of dollars
_SHORTEST_INTERVAL_SECONDS: Final = 0.005
_PARTS_OF_A_MODEL: Final = 3
_LIST: Final = ((tuple, list), "a tuple of names (of one, with a comma behind it)")
# By the type of the setting, the types of its values (True is a number to Python, but not here), in words.
_KINDS: Final[dict[str, tuple[tuple[type, ...], str]]] = {
    "str": ((str,), "text"),
    "str | None": ((str,), "text"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "True or False"),
    "tuple[str, ...]": _LIST,
    "tuple[tuple[str, str, str], ...]": _LIST,
}
_REQUEST_SPANS: Final = ("exporter", "opentelemetry")
_PATHS: Final = (
    "metrics_token_file",
    "metrics_tls_certificate",
    "metrics_tls_key",
    "metrics_tls_client_ca",
    "shared_directory",
)


@dataclass(frozen=True)
class Price:
    """Price of a model in US dollars per million tokens.

    Attributes:
        input: price of a million tokens that the model reads.
        output: price of a million tokens that it writes.
    """

    input: float
    output: float

    def __post_init__(self) -> None:
        """Refuse a price that would make the cost fall or vanish.

        Raises:
            SettingsError: a price is negative or beyond sense.
        """
        for name, value in (("input", self.input), ("output", self.output)):
            if not isinstance(value, (int, float)) or not 0 <= value <= _HIGHEST_NUMBER:
                raise SettingsError(
                    f"The {name} price is {value!r}; it must be 0 US dollars or more, and at most "
                    f"{_HIGHEST_NUMBER:.0f}."
                )

    def cost(self, input_tokens: float, output_tokens: float) -> float:
        """Cost in US dollars of one model call."""
        return (input_tokens * self.input + output_tokens * self.output) / 1_000_000


@dataclass(frozen=True)
class ExporterSettings:
    """How an exporter names, serves and samples what it measures.

    Attributes:
        scenarios: the load-test scenarios that a client may name; ``live`` always exists.
        honour_scenario_header: whether `X-CMO-Scenario` is believed. Off by default, because a client that
            may choose its scenario may hide its failures from the live figures.
        components: what the service calls to answer a question.
        models: (component, provider, model) of every model whose tokens are counted.
        prices: US dollars per million tokens, by model. A model without a price has no cost series: an
            unknown price is not a price of 0.
        host: address that ``/metrics`` listens on.
        port: its port; 0 takes a free one, which ``Exporter.metrics_url`` then tells.
        metrics_token_file: file with the bearer token that a scrape must show; read again for each. Without
            it, the variable CMO_METRICS_TOKEN is the token; without both none is asked for.
        metrics_tls_certificate: certificate chain (PEM) with which ``/metrics`` is served over TLS.
        metrics_tls_key: its private key (PEM), unless that is in the same file.
        metrics_tls_client_ca: authorities (PEM) one of which must have signed the scraper's certificate.
        session_idle_timeout_seconds: a session without a query for so long is closed.
        memory_sample_interval_seconds: how often resident memory is read for its peaks.
        loop_lag_interval_seconds: how often the event loop is asked to run a callback.
        loop_blocked_after_seconds: an event loop that has not answered for so long is called blocked.
        version: version of the service, for ``cmo_build_info``.
        revision: its revision, for ``cmo_build_info``.
        worker: value of the label ``worker``. With a shared directory it is the worker's place in it instead.
        shared_directory: where the worker processes of one service find each other, so that whichever is
            scraped serves the sum of all. Made if it is not there; for this service alone. Without it, each
            process serves its own numbers.
        maximum_sessions: sessions beyond so many are not followed, and counted as dropped.
        maximum_http_series: combinations of method, route and status beyond so many become ``_other``.
        otlp_endpoint: base URL of an OpenTelemetry collector. Without it, the variable
            OTEL_EXPORTER_OTLP_ENDPOINT decides; without both there are no traces.
        service_name: ``service.name`` of the traces; OTEL_SERVICE_NAME goes before it.
        request_spans: who makes the spans of requests: ``exporter``, or ``opentelemetry`` for
            opentelemetry-instrumentation-fastapi, at three times the cost.
        query_log: whether each query is a line of JSON on the logger ``cmo_exporter.queries``.
        record_question_text: whether spans and log lines may hold what a service passes to
            ``Query.question``. Off by default, because the questions are clinical.
    """

    scenarios: tuple[str, ...] = ()
    honour_scenario_header: bool = False
    components: tuple[str, ...] = ()
    models: tuple[tuple[str, str, str], ...] = ()
    prices: Mapping[str, Price] = field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = 0
    metrics_token_file: Path | None = None
    metrics_tls_certificate: Path | None = None
    metrics_tls_key: Path | None = None
    metrics_tls_client_ca: Path | None = None
    session_idle_timeout_seconds: float = 60.0
    memory_sample_interval_seconds: float = 0.25
    loop_lag_interval_seconds: float = 0.25
    loop_blocked_after_seconds: float = 0.5
    version: str = "unknown"
    revision: str = "unknown"
    worker: str = "0"
    shared_directory: Path | None = None
    maximum_sessions: int = 10_000
    maximum_http_series: int = 100
    otlp_endpoint: str | None = None
    service_name: str = "cmo"
    request_spans: str = "exporter"
    query_log: bool = False
    record_question_text: bool = False

    def __post_init__(self) -> None:
        """Hold every setting against what can work.

        Raises:
            SettingsError: a value cannot work; the message names the setting and what is expected.
        """
        self._check_types()
        _check_names("scenarios", self.scenarios, reserved=(LIVE,))
        _check_names("components", self.components)
        self._check_models()
        self._check_tls()
        if not 0 <= self.port <= _HIGHEST_PORT:
            raise SettingsError(f"port is {self.port}; it must be 0 (any free port) to {_HIGHEST_PORT}.")
        if self.request_spans not in _REQUEST_SPANS:
            raise SettingsError(
                f"request_spans is {self.request_spans!r}; it must be one of: {', '.join(_REQUEST_SPANS)}."
            )
        if self.otlp_endpoint is not None and not self.otlp_endpoint.startswith(("http://", "https://")):
            raise SettingsError(
                # Not quoted: it may hold a password.
                "otlp_endpoint has no scheme; it must be the http:// or https:// URL of a collector that "
                "takes OTLP over HTTP, usually at port 4318."
            )
        for name in (
            "session_idle_timeout_seconds",
            "memory_sample_interval_seconds",
            "loop_lag_interval_seconds",
            "loop_blocked_after_seconds",
            "maximum_sessions",
            "maximum_http_series",
        ):
            value = getattr(self, name)
            if not 0 < value <= _HIGHEST_NUMBER:
                raise SettingsError(
                    f"{name} is {value!r}; it must be above 0, and at most {_HIGHEST_NUMBER:.0f}."
                )
            if name.endswith("_interval_seconds") and value < _SHORTEST_INTERVAL_SECONDS:
                raise SettingsError(
                    f"{name} is {value!r}; below {_SHORTEST_INTERVAL_SECONDS} s it would take the processor."
                )
        object.__setattr__(self, "prices", MappingProxyType(dict(self.prices)))
        for name in _PATHS:
            object.__setattr__(self, name, _path(name, getattr(self, name)))

    @property
    def all_scenarios(self) -> tuple[str, ...]:
        """``live`` and the scenarios of the list."""
        return (LIVE, *self.scenarios)

    def _check_types(self) -> None:
        for setting in fields(self):
            kind, value = str(setting.type), getattr(self, setting.name)
            types, words = _KINDS.get(kind, ((type(value),), ""))
            may_be_missing = value is None and "None" in kind
            if type(value) not in types and not may_be_missing:
                raise SettingsError(f"{setting.name} is {value!r}; it must be {words}.")
            if isinstance(value, str) and not value.isprintable():
                raise SettingsError(f"{setting.name} is {value!r}; it must be text that can be printed.")

    def _check_tls(self) -> None:
        for name in ("metrics_tls_key", "metrics_tls_client_ca"):
            if getattr(self, name) is not None and self.metrics_tls_certificate is None:
                raise SettingsError(
                    f"{name} is set without metrics_tls_certificate: /metrics would be served without TLS. "
                    f"Set metrics_tls_certificate, or take {name} away."
                )

    def _check_models(self) -> None:
        for named in self.models:
            if (
                not isinstance(named, (tuple, list))
                or len(named) != _PARTS_OF_A_MODEL
                or not all(isinstance(part, str) and part.isprintable() for part in named)
            ):
                raise SettingsError(
                    f"models holds {named!r}; expected the names of a component, a provider and a model."
                )
        if not isinstance(self.prices, Mapping):
            raise SettingsError(f"prices is {self.prices!r}; it must be a Price by the name of its model.")
        for model, price in self.prices.items():
            if not isinstance(price, Price) or not isinstance(model, str):
                raise SettingsError(f"prices holds {price!r} for {model!r}; expected a Price(input, output).")
        for component, _, model in self.models:
            if component not in self.components:
                raise SettingsError(
                    f"models names component {component!r} for {model!r}; "
                    f"components are: {', '.join(self.components) or 'none'}."
                )
        known = {model for _, _, model in self.models}
        unknown = sorted(set(self.prices) - known)
        if unknown:
            raise SettingsError(
                f"prices names {', '.join(unknown)}; models are: {', '.join(sorted(known)) or 'none'}."
            )


def _path(setting: str, value: Path | str | None) -> Path | None:
    """The path, which may be given as text, too."""
    try:
        return None if value is None else Path(value)
    except TypeError:
        raise SettingsError(f"{setting} is {value!r}; it must be a path: a pathlib.Path, or text.") from None


def _check_names(setting: str, names: tuple[str, ...], reserved: tuple[str, ...] = ()) -> None:
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in (*reserved, OTHER):
            raise SettingsError(
                f"{setting} holds {name!r}; a name is lower-case letters, digits and underscores, begins "
                f"with a letter, and is not {' or '.join((*reserved, OTHER))}."
            )
    if len(set(names)) != len(names):
        raise SettingsError(f"{setting} holds a name twice: {', '.join(names)}.")
