"""The HTTP metrics bear OpenTelemetry's names, so that dashboards made for those find them.

Held against the constants of OpenTelemetry's own package, by the rules with which OpenTelemetry's metrics
become Prometheus's: dots are underscores, and the unit ends the name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from cmo_exporter import Exporter, ExporterSettings, catalogue, instrument_asgi
from cmo_exporter.instruments import KNOWN_HTTP_METHODS, OTHER_HTTP_METHOD
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.semconv._incubating.metrics import http_metrics as incubating
from opentelemetry.semconv.attributes import error_attributes, http_attributes
from opentelemetry.semconv.metrics import http_metrics

if TYPE_CHECKING:
    from collections.abc import Callable

# How Prometheus writes the units; what is in braces is an annotation, and no unit.
UNITS = {"s": "seconds", "{request}": ""}
DURATION_LABELS = {
    http_attributes.HTTP_REQUEST_METHOD,
    http_attributes.HTTP_ROUTE,
    http_attributes.HTTP_RESPONSE_STATUS_CODE,
    error_attributes.ERROR_TYPE,
}


def in_prometheus(name: str, unit: str = "") -> str:
    return "_".join((*name.split("."), *filter(None, [unit])))


@pytest.mark.parametrize(
    ("name", "make", "metric", "labels"),
    [
        (
            http_metrics.HTTP_SERVER_REQUEST_DURATION,
            incubating.create_http_server_request_duration,
            catalogue.HTTP_SERVER_REQUEST_DURATION,
            DURATION_LABELS,
        ),
        (
            incubating.HTTP_SERVER_ACTIVE_REQUESTS,
            incubating.create_http_server_active_requests,
            catalogue.HTTP_SERVER_ACTIVE_REQUESTS,
            {http_attributes.HTTP_REQUEST_METHOD},
        ),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_a_metric_and_its_labels_are_named_as_in_the_conventions(
    name: str, make: Callable[..., Any], metric: catalogue.Metric, labels: set[str]
) -> None:
    instrument = make(MeterProvider(shutdown_on_exit=False).get_meter("test"))
    assert instrument.name == name
    unit = UNITS[instrument.unit]
    assert metric.unit == unit
    assert metric.name == in_prometheus(name, unit)
    assert set(metric.labels) == {in_prometheus(label) for label in labels}


def test_our_own_http_metric_names_the_route_as_the_others_do() -> None:
    labels = catalogue.HTTP_SERVER_TIME_TO_FIRST_BYTE.labels
    assert list(labels) == [in_prometheus(http_attributes.HTTP_ROUTE)]


def test_methods_are_those_of_the_conventions() -> None:
    methods = {method.value for method in http_attributes.HttpRequestMethodValues}
    assert {*KNOWN_HTTP_METHODS, OTHER_HTTP_METHOD} == methods
    assert http_attributes.HttpRequestMethodValues.OTHER.value == OTHER_HTTP_METHOD


async def test_what_is_scraped_bears_these_names() -> None:
    exporter = Exporter(ExporterSettings())

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(_message: Any) -> None:
        pass

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await instrument_asgi(app, exporter)(scope, None, send)  # type: ignore[arg-type]  # nothing is received
    duration = in_prometheus(http_metrics.HTTP_SERVER_REQUEST_DURATION, "seconds")
    samples = [sample for family in exporter.registry.collect() for sample in family.samples]
    (counted,) = [sample for sample in samples if sample.name == f"{duration}_count" and sample.value]
    assert set(counted.labels) == {in_prometheus(label) for label in DURATION_LABELS}
    active = in_prometheus(incubating.HTTP_SERVER_ACTIVE_REQUESTS)
    assert {"GET"} <= {
        sample.labels[in_prometheus(http_attributes.HTTP_REQUEST_METHOD)]
        for sample in samples
        if sample.name == active
    }
