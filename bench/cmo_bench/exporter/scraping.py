"""A scrape as Prometheus makes it."""

from __future__ import annotations

import gzip
from http import HTTPStatus
from http.client import HTTPConnection
from typing import Final
from urllib.parse import urlsplit

from cmo_bench.exporter.children import ChildError

ACCEPT: Final = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)

_TIMEOUT_SECONDS: Final = 30.0


def scrape(url: str, accept: str = ACCEPT) -> str:
    """Scrape once, and ask for the formats that Prometheus 3 asks for, unless told otherwise.

    Raises:
        ChildError: what is scraped answers with anything but the metrics.
    """
    where = urlsplit(url)
    connection = HTTPConnection(where.netloc, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", where.path, headers={"Accept": accept, "Accept-Encoding": "gzip"})
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != HTTPStatus.OK:
        raise ChildError(f"{url} answered with status {response.status}.")
    if response.headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    return body.decode()
