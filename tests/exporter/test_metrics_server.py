"""The metrics port: what it answers, whom it lets in, and that nobody can stop it up."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import requests
from cmo_exporter import Exporter, ExporterSettings, SettingsError, metrics_server
from cmo_exporter.metrics_server import compresses
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess

from .certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cmo_stack.servers import Server

    Eventually = Callable[[Callable[[], object]], None]

TOKEN = "a-token-that-nobody-guesses-0123456789"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
WAIT = 60


def result(exporter: Exporter, name: str) -> float:
    found = exporter.registry.get_sample_value("cmo_metrics_requests_total", {"result": name})
    assert found is not None
    return found


def address(exporter: Exporter) -> tuple[str, int]:
    return ("127.0.0.1", int(exporter.metrics_url.rpartition(":")[2].partition("/")[0]))


def say(exporter: Exporter, request: bytes) -> bytes:
    """What the port answers to these bytes, until it closes the connection."""
    with socket.create_connection(address(exporter), WAIT) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=abc",
        "application/openmetrics-text;version=1..0",
        "application/openmetrics-text;version=",
        ";;;,;q",
        "text/plain;version;version=;q=x",
        "\xe9\xff",
        "a" * 60_000,
    ],
)
def test_a_malformed_accept_is_answered_with_metrics(exporter: Exporter, accept: str) -> None:
    headers = [(b"Accept", accept.encode("latin-1"))]
    answer = httpx.get(exporter.metrics_url, headers=headers, timeout=WAIT)
    assert answer.status_code == 200
    assert "cmo_queries_total{" in answer.text


def test_head_other_methods_and_other_paths(exporter: Exporter, eventually: Eventually) -> None:
    url = exporter.metrics_url
    head = httpx.head(url, timeout=WAIT)
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["Content-Length"]) > 1000
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"):
        wrong = httpx.request(method, url, content=b"x" * 300_000, timeout=WAIT)
        assert (wrong.status_code, wrong.headers["Allow"]) == (405, "GET, HEAD")
        assert wrong.text == "/metrics can only be read: use GET or HEAD.\n"
    # An answer that arrives, although the connection is closed while the body is still coming.
    body = b"x" * 500_000
    assert say(exporter, b"POST /metrics HTTP/1.1\r\nContent-Length: 500000\r\n\r\n" + body)[9:12] == b"405"
    assert httpx.get(f"{url}/x", timeout=WAIT).text == "The metrics are at /metrics.\n"
    assert httpx.get(f"{url}?name[]=x", timeout=WAIT).status_code == 200
    eventually(lambda: result(exporter, "wrong_method") == 7)
    eventually(lambda: result(exporter, "not_found") == 1)
    eventually(lambda: result(exporter, "ok") == 2)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n",
        b"GARBAGE\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 500 + b"\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["tls", "garbage", "version", "headers", "long"],
)
def test_what_is_no_request_is_answered_plainly(
    exporter: Exporter, request_bytes: bytes, eventually: Eventually
) -> None:
    answer = say(exporter, request_bytes)
    assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 505")), answer
    assert answer.endswith(b"\r\n\r\nThat is no HTTP request that can be answered here.\n")
    eventually(lambda: result(exporter, "bad_request") == 1)
    assert httpx.get(exporter.metrics_url, timeout=WAIT).status_code == 200


def test_a_scrape_that_fails_is_answered_and_counted(
    exporter: Exporter,
    caplog: pytest.LogCaptureFixture,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> None:
        raise ValueError("does my patient have gout")

    with caplog.at_level(logging.WARNING, logger="cmo_exporter"), monkeypatch.context() as patched:
        patched.setattr(exporter._exposition, "_publish", broken)
        for _ in range(2):
            answer = httpx.get(exporter.metrics_url, timeout=WAIT)
            assert answer.status_code == 500
            assert answer.text == "The metrics cannot be rendered: ValueError. The service itself goes on.\n"
    eventually(lambda: result(exporter, "failed") == 2)
    errors = {"metric": "cmo_metrics_requests_total"}
    assert exporter.registry.get_sample_value("cmo_instrumentation_errors_total", errors) == 2
    assert len(caplog.records) == 1
    assert "gout" not in caplog.text


def test_silent_connections_hold_up_nobody(exporter: Exporter, eventually: Eventually) -> None:
    """Many more connections than there is room for, all silent or slow, and scrapes in between."""
    with contextlib.ExitStack() as open_connections, httpx.Client(timeout=WAIT) as client:
        for number in range(5 * metrics_server._MOST_CONNECTIONS):
            connection = socket.create_connection(address(exporter), WAIT)
            open_connections.enter_context(connection)
            if number % 2:
                connection.sendall(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
            if number % 10 == 0:
                assert client.get(exporter.metrics_url).status_code == 200
        assert client.get(exporter.metrics_url).status_code == 200
        eventually(lambda: result(exporter, "cut_off") >= 4 * metrics_server._MOST_CONNECTIONS)
        server: Any = exporter._server
        assert len(server._server.connections._open) <= metrics_server._MOST_CONNECTIONS
    assert result(exporter, "refused") == 0


def test_readers_that_do_not_read_hold_up_nobody() -> None:
    """As many as there is room for ask, and leave the answer where it is."""
    most = metrics_server._MOST_CONNECTIONS
    with Exporter(ExporterSettings()) as exporter, contextlib.ExitStack() as stack:
        server: Any = exporter._server
        # The kernel would take the whole of the answer into its buffer, as it does not on a real network.
        server._server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        for _ in range(most):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            connection.connect(address(exporter))
            connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert connection.recv(1, socket.MSG_PEEK), "the answer has begun"
        assert len(server._server.connections._open) == most
        assert httpx.get(exporter.metrics_url, timeout=WAIT).status_code == 200


@pytest.mark.parametrize("protected", ["plain", "tls"])
def test_a_request_that_drips_is_cut_off(
    protected: str,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> None:
    monkeypatch.setattr(metrics_server, "_REQUEST_DEADLINE_SECONDS", 0.3)
    certificate, key = authority.sign("server")
    settings = (
        ExporterSettings()
        if protected == "plain"
        else ExporterSettings(metrics_tls_certificate=certificate, metrics_tls_key=key)
    )
    with Exporter(settings) as exporter, socket.create_connection(address(exporter), WAIT) as connection:

        def is_cut_off() -> bool:
            try:
                connection.sendall(b"G")  # never idle for as long as the deadline, and never done
            except OSError:
                return True
            return False

        eventually(is_cut_off)
        eventually(lambda: result(exporter, "cut_off") + (protected == "tls") >= 1)


def test_who_is_in_the_middle_of_an_answer_is_not_cut_off_for_others(eventually: Eventually) -> None:
    """When every place is taken by an answer, newcomers are refused, and the answers arrive."""
    most = metrics_server._MOST_CONNECTIONS
    with Exporter(ExporterSettings()) as exporter:
        server: Any = exporter._server
        rendered = server._site.render
        entered: list[str] = []
        leave: list[bool] = []

        def slow(accept: str) -> tuple[bytes, str]:
            entered.append(accept)
            eventually(lambda: leave)
            answer: tuple[bytes, str] = rendered(accept)
            return answer

        server._site.render = slow
        with contextlib.ExitStack() as stack:
            waiting = [
                stack.enter_context(socket.create_connection(address(exporter), WAIT)) for _ in range(most)
            ]
            for connection in waiting:
                connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            eventually(lambda: len(entered) == most)
            assert say(exporter, b"") == b"", "refused"
            leave.append(True)
            for connection in waiting:
                assert connection.recv(15) == b"HTTP/1.1 200 OK"
        server._site.render = rendered
        eventually(lambda: result(exporter, "refused") == 1)


def test_a_token_is_asked_for(token_file: Path, eventually: Eventually) -> None:
    with Exporter(ExporterSettings(metrics_token_file=token_file)) as exporter:
        url = exporter.metrics_url
        for headers in (
            {},
            {"Authorization": "Bearer"},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": f"Bearer {TOKEN}x"},
            {"Authorization": f"Bearer {TOKEN[:-1]}"},
            {"Authorization": TOKEN},
            {"Authorization": b"Bearer \xe9\xff"},
        ):
            sent: dict[str, Any] = headers
            for path in (url, url + "/elsewhere"):
                refused = httpx.get(path, headers=sent, timeout=WAIT)
                assert refused.status_code == 401, headers
                assert refused.headers["WWW-Authenticate"] == 'Bearer realm="metrics"'
                assert TOKEN not in refused.text
                assert "cmo_" not in refused.text
        assert httpx.head(url, timeout=WAIT).status_code == 401
        empty = say(exporter, b"GET /metrics HTTP/1.1\r\nAuthorization: Bearer \r\n\r\n")
        assert empty.startswith(b"HTTP/1.1 401 ")
        assert httpx.get(url, headers=BEARER, timeout=WAIT).status_code == 200
        assert httpx.get(url, headers={"authorization": f"bearer {TOKEN}"}, timeout=WAIT).status_code == 200
        eventually(lambda: result(exporter, "unauthorized") == 16)


def test_a_token_that_changes_counts_at_once(token_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = TOKEN[::-1]
    with (
        caplog.at_level(logging.WARNING, logger="cmo_exporter"),
        Exporter(ExporterSettings(metrics_token_file=token_file)) as exporter,
    ):

        def status(token: str) -> int:
            headers = {"Authorization": f"Bearer {token}".strip()}
            return httpx.get(exporter.metrics_url, headers=headers, timeout=WAIT).status_code

        assert (status(TOKEN), status(other)) == (200, 401)
        token_file.write_text(other)  # as long as before, and perhaps within one tick of the file's clock
        assert (status(TOKEN), status(other)) == (401, 200)
        token_file.unlink()
        assert (status(TOKEN), status(other), status("")) == (401, 401, 401)
        token_file.write_text("")
        assert (status(other), status("")) == (401, 401)
        token_file.write_text(TOKEN)
        assert (status(TOKEN), status(other)) == (200, 401)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2, "once for each thing that is wrong with it"
    assert all(line.startswith("Every scrape is refused: metrics_token_file ") for line in said)
    assert TOKEN not in caplog.text
    assert other not in caplog.text


def test_a_token_from_the_environment(monkeypatch: pytest.MonkeyPatch, token_file: Path) -> None:
    monkeypatch.setenv("CMO_METRICS_TOKEN", TOKEN)
    with Exporter(ExporterSettings()) as exporter:
        assert httpx.get(exporter.metrics_url, timeout=WAIT).status_code == 401
        assert httpx.get(exporter.metrics_url, headers=BEARER, timeout=WAIT).status_code == 200
    token_file.write_text(TOKEN[::-1])
    with Exporter(ExporterSettings(metrics_token_file=token_file)) as exporter:
        assert httpx.get(exporter.metrics_url, headers=BEARER, timeout=WAIT).status_code == 401, "file first"
    monkeypatch.setenv("CMO_METRICS_TOKEN", "")
    with pytest.raises(SettingsError, match=r"CMO_METRICS_TOKEN holds no characters.*openssl rand"):
        Exporter(ExporterSettings()).start()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not there"),
        ("", "holds no characters"),
        ("short", "holds 5 characters; a token has 16 or more"),
        ("two tokens in one file", "other than one token"),
        (f"{TOKEN}\n{TOKEN}\n", "other than one token"),
        ("x" * 5000, "fewer than 4096"),
    ],
)
def test_a_token_file_that_cannot_work_stops_the_start(
    tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    exporter = Exporter(ExporterSettings(metrics_token_file=path))
    with pytest.raises(SettingsError, match=message) as raised:
        exporter.start()
    assert str(path) in str(raised.value)
    assert TOKEN not in str(raised.value)
    assert exporter.metrics_url == ""


def test_tls_and_token_together(authority: Authority, token_file: Path) -> None:
    certificate, key = authority.sign("server")
    settings = ExporterSettings(
        metrics_tls_certificate=certificate,
        metrics_tls_key=key,
        metrics_token_file=token_file,
    )
    with Exporter(settings) as exporter:
        url = exporter.metrics_url
        assert url.startswith("https://127.0.0.1:")
        assert requests.get(url, verify=str(authority.file), timeout=WAIT).status_code == 401
        assert requests.get(url, verify=str(authority.file), headers=BEARER, timeout=WAIT).status_code == 200
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(url, timeout=WAIT)
        with pytest.raises(requests.ConnectionError):
            requests.get(url.replace("https", "http"), timeout=WAIT)


def test_a_client_that_connects_and_says_nothing_does_not_stop_tls(authority: Authority) -> None:
    certificate, key = authority.sign("server")
    settings = ExporterSettings(metrics_tls_certificate=certificate, metrics_tls_key=key)
    with Exporter(settings) as exporter, contextlib.ExitStack() as stack:
        for _ in range(metrics_server._MOST_CONNECTIONS + 3):
            silent = stack.enter_context(socket.create_connection(address(exporter), WAIT))
            silent.sendall(b"\x16\x03\x01")
        assert requests.get(exporter.metrics_url, verify=str(authority.file), timeout=WAIT).status_code == 200


def test_client_certificates(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    certificate, key = authority.sign("server")
    client, stranger = authority.sign("client"), Authority(tmp_path / "elsewhere").sign("stranger")
    settings = ExporterSettings(
        metrics_tls_certificate=certificate,
        metrics_tls_key=key,
        metrics_tls_client_ca=authority.file,
    )
    with Exporter(settings) as exporter:

        def scrape(shown: tuple[Path, Path] | None) -> int:
            cert = (str(shown[0]), str(shown[1])) if shown else None
            verify = str(authority.file)
            return requests.get(exporter.metrics_url, verify=verify, cert=cert, timeout=WAIT).status_code

        assert scrape(client) == 200
        for shown in (None, stranger):
            with pytest.raises((requests.exceptions.SSLError, requests.ConnectionError)):
                scrape(shown)
        assert scrape(client) == 200


def test_a_renewed_certificate_is_served_without_a_restart(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = authority.sign("server")
    settings = ExporterSettings(metrics_tls_certificate=certificate, metrics_tls_key=key)

    def served(exporter: Exporter) -> str:
        context = ssl.create_default_context(cafile=str(authority.file))
        with (
            socket.create_connection(address(exporter), WAIT) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as wrapped,
        ):
            shown: Any = wrapped.getpeercert()
            return str(shown["serialNumber"])

    with Exporter(settings) as exporter:
        first = served(exporter)
        new_certificate, new_key = authority.sign("renewed")
        with caplog.at_level(logging.WARNING, logger="cmo_exporter"):
            certificate.write_bytes(new_certificate.read_bytes())
            for _ in range(2):
                assert served(exporter) == first, "half a renewal changes nothing"
        assert len(caplog.records) == 1
        assert "stays as it was" in caplog.text
        key.write_bytes(new_key.read_bytes())
        assert served(exporter) != first


def test_certificates_that_cannot_work_stop_the_start(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.sign("server")
    other_key = authority.sign("other")[1]
    encrypted = authority.sign("locked", b"a passphrase")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    missing = tmp_path / "missing.pem"
    for files, message in (
        ((certificate, missing, None), "metrics_tls_key .*missing.pem cannot be read: No such file"),
        ((missing, key, None), "metrics_tls_certificate .*missing.pem cannot be read"),
        ((certificate, other_key, None), "must belong to the certificate"),
        ((nonsense, key, None), "must be PEM"),
        ((*encrypted, None), "must not be encrypted"),
        ((certificate, key, missing), "metrics_tls_client_ca .*missing.pem cannot be read"),
        ((certificate, key, nonsense), "metrics_tls_client_ca .*nonsense.pem cannot be used"),
    ):
        names = ("metrics_tls_certificate", "metrics_tls_key", "metrics_tls_client_ca")
        given: dict[str, Any] = {name: file for name, file in zip(names, files, strict=True) if file}
        with pytest.raises(SettingsError, match=message):
            Exporter(ExporterSettings(**given)).start()
    for name in ("metrics_tls_key", "metrics_tls_client_ca"):
        lonely: dict[str, Any] = {name: key}
        with pytest.raises(SettingsError, match=f"{name} is set without metrics_tls_certificate"):
            ExporterSettings(**lonely)


def test_listening_beyond_this_machine_without_protection_is_said(
    token_file: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = authority.sign("server")
    tls = {"metrics_tls_certificate": certificate, "metrics_tls_key": key}
    token = {"metrics_token_file": token_file}
    quiet: tuple[dict[str, Any], ...] = (
        {"host": "localhost"},
        {"host": "127.0.0.1"},
        {"host": "0.0.0.0", **tls},
        {"host": "0.0.0.0", **token},
    )
    with caplog.at_level(logging.WARNING, logger="cmo_exporter"):
        for given in quiet:
            with Exporter(ExporterSettings(**given)):
                assert not caplog.records, given
        with Exporter(ExporterSettings(host="0.0.0.0")) as exporter:
            port = address(exporter)[1]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == (
        f"/metrics listens at 0.0.0.0, port {port}, beyond this machine, with neither a token nor TLS: "
        "whoever reaches the port can read it. Set metrics_token_file, metrics_tls_certificate or both, or "
        "host to 127.0.0.1."
    )


def test_compression_is_for_readers_on_other_machines() -> None:
    for peer in ("127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"):
        assert not compresses(peer, "gzip", 300_000)
    for peer in ("192.0.2.2", "fd00::2", "fe80::1%eth0"):
        assert compresses(peer, "deflate, GZip;q=0.5", 300_000)
        assert not compresses(peer, "gzip", 100)
        for accept in ("", "identity", "gzip;q=0", "gzip; q=0.000", "br"):
            assert not compresses(peer, accept, 300_000), accept


def test_a_compressed_answer_is_the_same_answer(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "_is_loopback", lambda _: False)
    packed = say(exporter, b"GET /metrics HTTP/1.1\r\nAccept-Encoding: gzip\r\n\r\n")
    head, _, body = packed.partition(b"\r\n\r\n")
    assert b"Content-Encoding: gzip" in head
    assert f"Content-Length: {len(body)}".encode() in head
    text = gzip.decompress(body).decode()
    assert "cmo_queries_total{" in text
    assert text.endswith("\n")
    assert len(body) * 5 < len(text)


def test_prometheus_scrapes_with_tls_client_certificate_and_token(
    prometheus_server: Server, authority: Authority, token_file: Path, tmp_path: Path, eventually: Eventually
) -> None:
    certificate, key = authority.sign("server")
    client, client_key = authority.sign("client")
    settings = ExporterSettings(
        metrics_tls_certificate=certificate,
        metrics_tls_key=key,
        metrics_tls_client_ca=authority.file,
        metrics_token_file=token_file,
    )
    with Exporter(settings) as exporter:
        job = {
            "scheme": "https",
            "tls_config": {
                "ca_file": str(authority.file),
                "cert_file": str(client),
                "key_file": str(client_key),
            },
            "static_configs": [{"targets": ["{}:{}".format(*address(exporter))]}],
        }
        admitted = {
            "job_name": "admitted",
            "authorization": {"type": "Bearer", "credentials_file": str(token_file)},
        }
        configuration = {
            "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms"},
            "scrape_configs": [{**admitted, **job}, {"job_name": "refused", **job}],
        }
        (tmp_path / "prometheus.yml").write_text(json.dumps(configuration))
        port = free_port()
        url = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            try:
                return requests.get(f"{url}/-/ready", timeout=2).status_code == 200
            except requests.RequestException:
                return False

        def ask(query: str) -> list[float]:
            answer = requests.get(f"{url}/api/v1/query", params={"query": query}, timeout=10)
            return [float(one["value"][1]) for one in answer.json()["data"]["result"]]

        process = ManagedProcess(
            prometheus_server.label,
            [
                str(prometheus_server.path),
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            log_path=tmp_path / "prometheus.log",
            ready=ready,
            environment=prometheus_server.environment,
        )
        process.start()
        try:
            eventually(lambda: ask('up{job="admitted"}') == [1.0])
            eventually(lambda: ask('cmo_metrics_requests_total{job="admitted",result="ok"} > 0'))
            eventually(lambda: ask('cmo_metrics_requests_total{job="admitted",result="unauthorized"} > 0'))
            assert ask('up{job="refused"}') == [0.0]
        finally:
            process.stop()


def test_a_scrape_during_closing_does_not_hang(exporter: Exporter) -> None:
    with socket.create_connection(address(exporter), WAIT) as connection:
        connection.sendall(b"GET /metr")
        began = time.monotonic()
        exporter.close()
        with contextlib.suppress(ConnectionResetError):  # or so, when the half request had not been read
            assert connection.recv(1) == b""
        assert time.monotonic() - began < WAIT
