"""Read raw samples from Prometheus, or from whatever speaks its HTTP API (VictoriaMetrics, Mimir, Thanos).

Every answer that is not a complete, well-formed one becomes a `DataSourceError` that says what is wrong and
how to mend it: an answer that is merely partial would be counted as if nothing else had happened. Redirects
are not followed, because a login page at the end of one is no data. `requests` is used, and no Prometheus
client library, because those turn a warning into nothing.
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import requests
from requests.auth import AuthBase, HTTPBasicAuth
from urllib3.exceptions import HTTPError, ReadTimeoutError

from cmo_slo.samples import Reading, Series

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

_NOW: Final = "vector(time())"
_CONNECT_SECONDS: Final = 5.0
_HTTP_OK: Final = 200
_HTTP_REDIRECTS: Final = range(300, 400)
_HTTP_NOT_FOUND: Final = 404
_HTTP_UNAUTHORIZED: Final = (401, 403)
_SHOWN_CHARACTERS: Final = 200
_CHUNK_BYTES: Final = 65_536


class DataSourceError(Exception):
    """The data source could not be read; the message says what happened and how to mend it."""


@dataclass(frozen=True)
class Credentials:
    """How the client shows who it is. A token wins over a user name."""

    username: str | None = None
    password: str | None = None
    token: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Credentials:
        """Read ``CMO_PROMETHEUS_USERNAME``, ``…_PASSWORD`` and ``…_TOKEN``, or files named by ``…_FILE``.

        Raises:
            DataSourceError: a file that is named cannot be read.
        """
        return cls(
            username=environment.get("CMO_PROMETHEUS_USERNAME"),
            password=_secret(environment, "CMO_PROMETHEUS_PASSWORD"),
            token=_secret(environment, "CMO_PROMETHEUS_TOKEN"),
        )


def _secret(environment: Mapping[str, str], variable: str) -> str | None:
    path = environment.get(f"{variable}_FILE")
    if path is None:
        return environment.get(variable)
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataSourceError(f"{variable}_FILE names {path}, which cannot be read: {error}.") from error


class Prometheus:
    """A client of one Prometheus; a context manager.

    Args:
        url: base address, for example ``http://127.0.0.1:9090``; it may hold a path and basic credentials.
        credentials: who we are, where the server asks.
        timeout_seconds: how long one answer may take.
    """

    def __init__(
        self, url: str, *, credentials: Credentials | None = None, timeout_seconds: float = 30.0
    ) -> None:
        self.url, self._session = _open(url, credentials or Credentials())
        self._timeout_seconds = timeout_seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def raw(self, selector: str, *, since: float, until: float) -> Reading:
        """Every raw sample of a selector from ``since`` to ``until``, in Unix seconds.

        An instant query for a range vector, evaluated at ``until``: the one form that Prometheus 2, 3 and
        VictoriaMetrics answer with the samples as they were stored.

        Raises:
            DataSourceError: the answer is not complete, or there is none.
        """
        # One millisecond more: ranges are open on the left from Prometheus 3 on.
        milliseconds = round((until - since) * 1000) + 1
        query = f"{selector}[{milliseconds}ms]"
        result = self._query(query, "matrix", time=f"{until:.3f}")
        # A second either way, for rounding: a server or proxy that ignored the time is not believed.
        series = tuple(self._series(entry, since - 1.0, until + 1.0) for entry in result)
        return Reading(query, until, series)

    def now(self) -> float:
        """The time by the clock of Prometheus, in Unix seconds.

        Raises:
            DataSourceError: the answer is not complete, or there is none.
        """
        # VictoriaMetrics knows no scalars, and answers any with a vector: it is asked for one.
        result = self._query(_NOW, "vector")
        try:
            (sample,) = result
            now = float(sample["value"][1])
        except (IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise self._malformed(_NOW) from error
        if not math.isfinite(now):
            raise self._malformed(_NOW)
        return now

    def _query(self, query: str, result_type: str, **parameters: str) -> list[Any]:
        document = self._get(query, {"query": query, "nocache": "1", **parameters})
        warnings = document.get("warnings")
        if warnings or document.get("isPartial"):
            shown = "; ".join(map(str, warnings)) if isinstance(warnings, list) else "the result is partial"
            raise DataSourceError(
                f"{self.url} answered, but not with everything: {shown}. A verdict on part of the data could "
                "be wrong. Query: " + query
            )
        data = document.get("data")
        if not isinstance(data, dict) or data.get("resultType") != result_type:
            raise self._malformed(query)
        result = data.get("result")
        if not isinstance(result, list):
            raise self._malformed(query)
        return result

    def _get(self, query: str, parameters: dict[str, str]) -> dict[str, Any]:
        address = f"{self.url}/api/v1/query"
        try:
            with self._session.get(
                address,
                params={**parameters, "timeout": f"{self._timeout_seconds:g}s"},
                timeout=(_CONNECT_SECONDS, self._timeout_seconds + 1.0),
                allow_redirects=False,
                stream=True,
            ) as response:
                body = self._body(response)
        except (requests.Timeout, ReadTimeoutError) as error:
            raise DataSourceError(
                f"{self.url} did not answer within {self._timeout_seconds:g} s. Is it overloaded? "
                f"Query: {query}"
            ) from error
        except requests.ConnectionError as error:
            raise DataSourceError(
                f"No connection to {self.url}: {_cause(error)}. Is Prometheus running there? Set the address "
                "with --prometheus-url or CMO_PROMETHEUS_URL."
            ) from error
        except (requests.RequestException, HTTPError, UnicodeError) as error:
            # Some of urllib3's own errors pass through requests as they are.
            raise DataSourceError(f"{self.url} could not be asked: {error}.") from error
        return self._document(response, body, query)

    def _body(self, response: requests.Response) -> bytes:
        """The whole answer; `requests` limits the wait for each part of it, and not for all of them."""
        deadline = time.monotonic() + self._timeout_seconds + 1.0
        # What has come so far, where urllib3 can say (from 2.1 on): `read` waits until a part is full.
        read = getattr(response.raw, "read1", response.raw.read)
        parts = []
        while part := read(_CHUNK_BYTES, decode_content=True):
            parts.append(part)
            if time.monotonic() > deadline:
                raise requests.Timeout
        return b"".join(parts)

    def _document(self, response: requests.Response, body: bytes, query: str) -> dict[str, Any]:
        try:
            document = json.loads(body)
        except (RecursionError, ValueError):
            document = None
        is_api = isinstance(document, dict) and document.get("status") in ("success", "error")
        if response.status_code in _HTTP_REDIRECTS:
            raise DataSourceError(
                f"{self.url} redirects to {response.headers.get('Location', 'another address')}, which is "
                "not followed: it may be a login page. Give the address of Prometheus itself."
            )
        if response.status_code in _HTTP_UNAUTHORIZED:
            raise DataSourceError(
                f"{self.url} refuses access (HTTP {response.status_code}). Set CMO_PROMETHEUS_TOKEN, or "
                "CMO_PROMETHEUS_USERNAME and CMO_PROMETHEUS_PASSWORD."
            )
        if not is_api and response.status_code in (_HTTP_OK, _HTTP_NOT_FOUND):
            kind = response.headers.get("Content-Type", "no content type").partition(";")[0]
            raise DataSourceError(
                f"{self.url} is not Prometheus: it answers HTTP {response.status_code} with {kind} where the "
                "query API should be. Is it the wrong port, or is a path missing from the address?"
            )
        if response.status_code != _HTTP_OK or document.get("status") != "success":
            what = str(document.get("error", "")) if is_api else body.decode(errors="replace")
            raise DataSourceError(
                f"{self.url} answered HTTP {response.status_code}: {what.strip()[:_SHOWN_CHARACTERS]} "
                f"Query: {query}"
            )
        return dict(document)

    def _series(self, entry: Any, earliest: float, latest: float) -> Series:
        try:
            labels = {str(key): str(value) for key, value in entry["metric"].items()}
            samples = [(float(time), float(value)) for time, value in entry["values"]]
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise self._malformed("a series of raw samples") from error
        times = {time for time, _ in samples}
        if len(times) < len(samples) or not all(earliest <= time <= latest for time in times):
            # Of two values at one time only one is true, and which is not known.
            raise self._malformed("a series of raw samples")
        name = labels.pop("__name__", "")
        return Series(
            name=name,
            labels=labels,
            points={time: value for time, value in sorted(samples) if math.isfinite(value)},
            broken=frozenset(time for time, value in samples if not math.isfinite(value)),
        )

    def _malformed(self, query: str) -> DataSourceError:
        return DataSourceError(
            f"{self.url} answered {query} in a form that is not Prometheus's. Is it a proxy that changes "
            "answers, or another product?"
        )


def split_address(url: str) -> tuple[SplitResult, str, int | None]:
    """The parts of Prometheus's address, its host and its port.

    Raises:
        ValueError: it is none. The message does not repeat it, because a password may be in it.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, parts, port = None, SplitResult("", "", "", "", ""), None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("this is no address of Prometheus; expected http://host:port or https://host:port")
    return parts, host, port


class _BearerToken(AuthBase):
    """A token as the session's own credentials: a mere header would give way to a ``.netrc``."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _open(url: str, credentials: Credentials) -> tuple[str, requests.Session]:
    """The address without credentials, so that no message shows them, and a session that has them."""
    try:
        parts, host, port = split_address(url)
    except ValueError as error:
        raise DataSourceError(f"{error}.") from error
    session = requests.Session()
    session.headers["User-Agent"] = "cmo-check"
    username = unquote(parts.username) if parts.username else credentials.username
    password = unquote(parts.password) if parts.password else credentials.password
    if credentials.token:
        # What a header cannot hold would be shown, secret and all, in the message of the library.
        if not (credentials.token.isascii() and credentials.token.isprintable()):
            raise DataSourceError(
                "CMO_PROMETHEUS_TOKEN holds characters that no token has, such as a line break."
            )
        session.auth = _BearerToken(credentials.token)
    elif username:
        # As bytes: requests would write text in Latin-1, and fails where that cannot hold it.
        session.auth = HTTPBasicAuth(username.encode(), (password or "").encode())
    place = f"[{host}]" if ":" in host else host
    place = f"{place}:{port}" if port else place
    return urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", "")), session


def _cause(error: requests.ConnectionError) -> str:
    text = str(error)
    for sign, words in (
        ("refused", "connection refused"),
        ("resol", "the host name is not known"),
        ("timed out", "it timed out"),
        ("CERTIFICATE", "its certificate is not trusted"),
        ("SSL", "it does not speak TLS as expected"),
    ):
        if sign in text:
            return words
    return "the connection broke"
