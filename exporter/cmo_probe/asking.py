"""Ask one question over a new connection, and say what came of it and when; judging it is done elsewhere."""

from __future__ import annotations

import http.client
import secrets
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import requests
import urllib3
from cmo_exporter.catalogue import SCENARIO_HEADER, ProbeResult

from cmo_probe.answers import MAXIMUM_BYTES, Answer, EventReader, UnreadableError, read_json
from cmo_probe.errors import ProbeError
from cmo_probe.transport import TimedAdapter
from cmo_probe.watch import ANSWER, CONNECT, DNS, TLS, Watch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cmo_probe.canaries import Canary

_READ_BYTES: Final = 65_536
_USER_AGENT: Final = "cmo-probe"
_FRESH_BYTES: Final = 4


# Where the interface is the likely reason.
_STATUS_CAUSES: Final = {
    401: "it asks for another token",
    404: "nothing is there: check the path of the url",
    405: "it takes no POST: check the path of the url",
    422: 'it does not take {"question": "…", "stream": …}',
}


@dataclass(frozen=True)
class Service:
    """The service that is asked.

    Attributes:
        url: where questions are posted.
        tls: the certificates that are trusted.
        timeout_seconds: after so long without a complete answer, nobody waits any more.
        scenario: what the service is asked to count the questions under; empty for nothing.
        token: bearer token; empty for none.
    """

    url: str
    tls: ssl.SSLContext
    timeout_seconds: float
    scenario: str = ""
    token: str = field(default="", repr=False)


@dataclass(frozen=True)
class Exchange:
    """What came of one question.

    Attributes:
        seconds: from the beginning to the end of the answer, or to the failure.
        reached: whether there was a connection to send the question over.
        failure: how it failed, when it did so before there was an answer to judge.
        cause: the type of the error, or what was wrong with the answer's form; never a text of the service's.
        connection_seconds: how long ``dns``, ``connect`` and ``tls`` took, as far as they came.
    """

    seconds: float
    reached: bool
    failure: ProbeResult | None = None
    cause: str = ""
    http_status: int | None = None
    answer: Answer | None = None
    first_byte_seconds: float | None = None
    first_token_seconds: float | None = None
    connection_seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass
class _Received:
    """What has come so far, which stays known when the rest fails."""

    http_status: int | None = None
    answer: Answer | None = None
    first_byte_seconds: float | None = None
    first_token_seconds: float | None = None
    failure: ProbeResult | None = None
    cause: str = ""


def trusted(ca_file: Path | None) -> ssl.SSLContext:
    """The certificates to trust: those of the system, or those in a file.

    Raises:
        ProbeError: the file holds none.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ProbeError(
            f"{ca_file} holds no certificates: {error.strerror or error}. Expected a file in PEM format."
        ) from error


def ask(service: Service, canary: Canary) -> Exchange:
    """Ask a canary's question. Whatever the service does is in the value; nothing of it is raised."""
    received = _Received()
    with Watch(service.timeout_seconds) as watch:
        try:
            _receive(service, canary, watch, received)
        except UnreadableError as error:
            received.failure, received.cause = ProbeResult.INVALID, str(error)
        except (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError,
                ValueError) as error:  # fmt: skip
            received.failure, received.cause = _failure(watch, error)
        # A connection that was shut down at the end of its time may look like a complete answer.
        if watch.expired:
            received.failure, received.cause = ProbeResult.TIMEOUT, f"after {service.timeout_seconds:g} s"
        return Exchange(
            seconds=watch.elapsed(),
            reached=watch.step == ANSWER,
            connection_seconds=dict(watch.seconds),
            **vars(received),
        )


def wording(canary: Canary) -> str:
    """The question as it is asked; a fresh one in words that no cache has seen."""
    if not canary.fresh:
        return canary.question
    return f"{canary.question} (check {secrets.token_hex(_FRESH_BYTES)})"


def _receive(service: Service, canary: Canary, watch: Watch, received: _Received) -> None:
    with requests.Session() as session:
        # Neither proxies nor `.netrc`: what is asked, and with whose rights, is what the settings say.
        session.trust_env = False
        session.mount("http://", TimedAdapter(watch, service.tls))
        session.mount("https://", TimedAdapter(watch, service.tls))
        with session.post(
            service.url,
            json=_body(canary),
            headers=_headers(service, canary),
            timeout=service.timeout_seconds,
            allow_redirects=False,
            stream=True,
        ) as response:
            received.first_byte_seconds = watch.elapsed()
            received.http_status = response.status_code
            if response.status_code != requests.codes.ok:
                received.failure = ProbeResult.HTTP_ERROR
                received.cause = _STATUS_CAUSES.get(response.status_code, "")
                return
            _check_type(response, "text/event-stream" if canary.streamed else "application/json")
            if canary.streamed:
                _read_events(response, watch, received)
            else:
                received.answer = read_json(b"".join(_pieces(response)))


def _body(canary: Canary) -> dict[str, Any]:
    body: dict[str, Any] = {"question": wording(canary), "stream": canary.streamed}
    return {**body, "mode": canary.mode} if canary.mode else body


def _headers(service: Service, canary: Canary) -> dict[str, str]:
    headers = {
        "Accept": "text/event-stream" if canary.streamed else "application/json",
        "Accept-Encoding": "identity",
        "Connection": "close",
        "User-Agent": _USER_AGENT,
    }
    if service.scenario:
        headers[SCENARIO_HEADER] = service.scenario
    if service.token:
        headers["Authorization"] = f"Bearer {service.token}"
    return headers


def _check_type(response: requests.Response, expected: str) -> None:
    sent = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if sent != expected:
        raise UnreadableError(f"no {expected}")
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise UnreadableError("compressed, which was not asked for")


def _read_events(response: requests.Response, watch: Watch, received: _Received) -> None:
    reader = EventReader()
    try:
        for piece in _pieces(response):
            reader.feed(piece)
            if reader.begun and received.first_token_seconds is None:
                received.first_token_seconds = watch.elapsed()
            if reader.done:
                return
    finally:
        received.answer = reader.answer()
    received.failure, received.cause = ProbeResult.TRUNCATED, "no `done` event"


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """The body, as it arrives."""
    size = 0
    while piece := response.raw.read1(_READ_BYTES, decode_content=False):
        size += len(piece)
        if size > MAXIMUM_BYTES:
            raise UnreadableError(f"longer than {MAXIMUM_BYTES} bytes")
        yield piece


def _failure(watch: Watch, error: Exception) -> tuple[ProbeResult, str]:
    """What an error of the HTTP client means to a user, from the step that it happened in."""
    cause = watch.cause or error
    if watch.step == TLS:
        return ProbeResult.TIMEOUT if _is_timeout(cause) else ProbeResult.TLS_ERROR, _kind(cause)
    if watch.step in (DNS, CONNECT):
        if isinstance(cause, ConnectionRefusedError):
            return ProbeResult.REFUSED, _kind(cause)
        return ProbeResult.TIMEOUT if _is_timeout(cause) else ProbeResult.UNREACHABLE, _kind(cause)
    causes = list(_chain(error))
    if any(_is_timeout(one) for one in causes):
        return ProbeResult.TIMEOUT, _kind(causes[-1])
    cut = (ConnectionError, http.client.IncompleteRead, urllib3.exceptions.IncompleteRead)
    if any(isinstance(one, cut) for one in causes):
        return ProbeResult.TRUNCATED, _kind(causes[-1])
    if any(isinstance(one, ssl.SSLError) for one in causes):
        return ProbeResult.TRUNCATED, _kind(causes[-1])
    return ProbeResult.INVALID, _kind(causes[-1])


def _is_timeout(error: BaseException) -> bool:
    return isinstance(error, TimeoutError | requests.Timeout | urllib3.exceptions.TimeoutError)


def _kind(error: BaseException) -> str:
    return type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those in it: the HTTP client wraps what happened several times over."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [*one.args, one.__cause__, one.__context__, getattr(one, "reason", None)]
