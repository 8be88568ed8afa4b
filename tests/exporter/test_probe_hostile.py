"""The prober against servers that refuse, hang, cut, lie and talk nonsense: real sockets, one result each."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from cmo_exporter.catalogue import ProbeResult
from cmo_probe.asking import Service, ask, trusted
from cmo_probe.canaries import APOLOGIES, Canary, load_canaries
from cmo_probe.errors import CanariesError
from cmo_probe.judging import judge
from cmo_probe.metrics import ProbeMetrics
from cmo_stack.free_ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CMO = Path(sys.executable).with_name("cmo")
TRUSTED = trusted(None)
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
TOKEN = b'event: token\r\ndata: {"text": "It is DHCR7."}\r\n\r\n'
DONE = b'event: done\ndata: {"trail": {"outcome": "success", "source": "lightrag"}}\n\n'


def _json(answer: object, **trail: object) -> bytes:
    body = json.dumps({"answer": answer, **({"trail": trail} if trail else {})}).encode()
    return OK + b"Content-Length: %d\r\n\r\n" % len(body) + body


@contextlib.contextmanager
def _server(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """Accepts connections one after another, reads the question and lets ``answer`` do the rest."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                _read_question(connection)
                answer(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/query"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(30)
        assert not thread.is_alive()


def _read_question(connection: socket.socket) -> None:
    """Read all of it: closing with something unread would reset the connection."""
    received = b""
    while not received.startswith(b"\x16"):  # no HTTP: the client wants TLS
        received += connection.recv(65_536)
        head, end, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if end and length and len(body) >= int(length[1]):
            return


def _canary(*, streamed: bool = False, maximum_seconds: float = 60, sources: tuple[str, ...] = ()) -> Canary:
    return Canary("one", "Which?", ("DHCR7",), None, False, streamed, "", sources, maximum_seconds)


def _result(url: str, canary: Canary, timeout: float = 60) -> tuple[ProbeResult, str]:
    exchange = ask(Service(url, TRUSTED, timeout), canary)
    return judge(canary, exchange, [re.compile(text, re.IGNORECASE) for text in APOLOGIES])


GOOD = _json("It is DHCR7.", outcome="success", source="lightrag")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (GOOD, "success"),
        (_json("It is dhcr7."), "success"),
        (_json("It is water.", outcome="success", source="lightrag"), "wrong_answer"),
        (_json("", outcome="success", source="lightrag"), "wrong_answer"),
        (_json("I apologise: I cannot say. DHCR7?", outcome="success", source="lightrag"), "apology"),
        (_json("DHCR7", outcome="error", source="default"), "apology"),
        (_json("DHCR7", outcome="error", source="stale"), "degraded"),
        (_json(None, outcome="success", source="lightrag"), "invalid"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "http_error"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "http_error"),
        (b"", "truncated"),
        (GOOD[:-5], "truncated"),
        (OK + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"ans', "truncated"),
        (OK + b"Content-Length: abc\r\n\r\n{}", "invalid"),
        (b"\x00\xff garbage\r\n\r\n" * 10, "invalid"),
        (OK + b"\r\n" + b"[" * 100_000, "invalid"),
        (OK + b"\r\n" + b"x" * 1_100_000, "invalid"),
        (OK + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b", "invalid"),
        (OK.replace(b"application/json", b"text/html") + b"\r\n<p>DHCR7</p>", "invalid"),
    ],
    ids=range(19),
)
def test_each_answer_has_its_result(sent: bytes, expected: str) -> None:
    with _server(lambda connection: connection.sendall(sent)) as url:
        assert _result(url, _canary())[0] == expected


@pytest.mark.parametrize(
    ("sent", "sources", "why"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", (), "path of the url"),
        (b"HTTP/1.1 405 Not Allowed\r\nContent-Length: 0\r\n\r\n", (), "takes no POST"),
        (b"HTTP/1.1 422 No\r\nContent-Length: 0\r\n\r\n", (), "does not take"),
        (_json("It is DHCR7."), ("lightrag",), "take sources out of the canary"),
    ],
)
def test_where_the_interface_is_the_reason_the_result_says_what_to_mend(
    sent: bytes, sources: tuple[str, ...], why: str
) -> None:
    with _server(lambda connection: connection.sendall(sent)) as url:
        assert why in _result(url, _canary(sources=sources))[1]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (TOKEN + DONE, "success"),
        (b": a comment\n\n" + TOKEN + DONE + b"event: token\ndata: never read", "success"),
        (TOKEN, "truncated"),
        (TOKEN + DONE[:-1], "truncated"),
        (TOKEN + DONE.replace(b"success", b"error").replace(b'"lightrag"', b"null"), "truncated"),
        (DONE, "wrong_answer"),
        (b"event: token\ndata: {}\n\n", "invalid"),
        (b"event: token\ndata: \xff\xfe\n\n", "invalid"),
    ],
    ids=range(8),
)
def test_each_stream_has_its_result(sent: bytes, expected: str) -> None:
    with _server(lambda connection: connection.sendall(EVENTS + sent)) as url:
        assert _result(url, _canary(streamed=True))[0] == expected


def test_the_first_token_is_seen_when_it_comes_and_not_at_the_end() -> None:
    seen = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.sendall(EVENTS + TOKEN[:30])
        time.sleep(0.1)
        connection.sendall(TOKEN[30:])
        time.sleep(0.3)
        connection.sendall(DONE)
        seen.wait(30)  # the connection stays open: the answer has ended all the same

    with _server(answer) as url:
        exchange = ask(Service(url, TRUSTED, 60), _canary(streamed=True))
        seen.set()
    assert exchange.first_byte_seconds is not None
    assert exchange.first_token_seconds is not None
    assert exchange.first_byte_seconds + 0.09 <= exchange.first_token_seconds <= exchange.seconds - 0.29


def _drip(connection: socket.socket, head: bytes) -> None:
    connection.sendall(head)
    enough = time.monotonic() + 30  # who waits for ever gets another result then
    while time.monotonic() < enough:
        connection.sendall(b"x")
        time.sleep(0.02)


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 OK\r\nX: ", OK + b"\r\n"], ids=["status", "headers", "body"]
)
def test_a_byte_now_and_then_is_too_late_all_the_same(head: bytes) -> None:
    with _server(lambda connection: _drip(connection, head)) as url:
        assert _result(url, _canary(), timeout=0.3)[0] == "timeout"


def test_silence_is_a_time_out() -> None:
    over = threading.Event()
    with _server(lambda _: over.wait(30)) as url:
        assert _result(url, _canary(), timeout=0.2)[0] == "timeout"
        over.set()


def test_nobody_there_an_unknown_name_and_no_tls() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{held.getsockname()[1]}/query"
        assert _result(refused, _canary())[0] == "refused"
    assert _result("http://nobody.invalid/query", _canary())[0] == "unreachable"
    with _server(lambda connection: connection.sendall(GOOD)) as url:
        assert _result(url.replace("http:", "https:"), _canary())[0] == "tls_error"


def test_a_right_answer_that_is_late_or_from_elsewhere_is_a_failure() -> None:
    with _server(lambda connection: connection.sendall(GOOD)) as url:
        assert _result(url, _canary(maximum_seconds=1e-9))[0] == "too_slow"
        assert _result(url, _canary(sources=("perplexity",)))[0] == "wrong_source"


def test_what_a_service_says_gets_into_no_log_and_no_label() -> None:
    evil = 'evil"\n{}'
    with _server(lambda c: c.sendall(_json("DHCR7", outcome="success", source=evil))) as url:
        exchange = ask(Service(url, TRUSTED, 60), _canary())
    assert exchange.answer is not None
    assert exchange.answer.source == "_other"
    metrics = ProbeMetrics(("one",))
    before = sum(len(family.samples) for family in metrics.registry.collect())
    metrics.record("one", ProbeResult.WRONG_SOURCE, exchange)
    after = sum(len(family.samples) for family in metrics.registry.collect())
    assert after == before + 1  # cmo_probe_up is there once there is something to say


@pytest.mark.parametrize(("sent", "status"), [(GOOD, 1), (None, 4)], ids=["wrong", "refused"])
def test_how_once_ends(sent: bytes | None, status: int) -> None:
    with _server(lambda connection: connection.sendall(sent or b"")) as url:
        target = url if sent else "http://127.0.0.1:1/query"
        done = subprocess.run([CMO, "probe", "--once", "--url", target], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert done.stdout.endswith("0 of 4 canaries succeeded.\n")
    assert (f"Nothing could be reached at {target}. Start" in done.stderr) is (status == 4)


@pytest.mark.parametrize(
    "options",
    [
        ["--format", "json"],
        ["--url", "ftp://x", "--once"],
        ["--url", "http://a:b@x/", "--once"],
        ["--canaries", "nowhere.yml", "--once"],
        ["--ca-file", "/dev/null", "--once"],
        ["--token-file", "/dev/null", "--once"],
    ],
)
def test_wrong_usage_ends_with_3(options: list[str]) -> None:
    done = subprocess.run([CMO, "probe", *options], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, ""), done.stderr


def test_a_busy_metrics_port_is_wrong_usage() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run([CMO, "probe", "--metrics-port", port], capture_output=True, text=True)
    assert done.returncode == 3
    assert "--metrics-port" in done.stderr


def test_a_stuck_prober_fails_its_scrapes_instead_of_telling_old_news(
    eventually: Callable[[Callable[[], object]], None],
) -> None:
    """Nobody reads its log, so it stands still in the middle of a line once the pipe is full."""
    port = free_port()
    options = f"--url http://127.0.0.1:1/query --interval 0.001 --timeout 1 --metrics-port {port}"
    program = "import sys; from cmo_probe import cli; cli._SLACK_SECONDS = 0; cli.probe(sys.argv[1:])"
    command = [sys.executable, "-c", program, *options.split()]

    def status() -> int:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"http://127.0.0.1:{port}/metrics", timeout=60).status_code
        return 0

    with subprocess.Popen(command, stderr=subprocess.PIPE) as prober:
        try:
            eventually(lambda: status() == 200)
            eventually(lambda: status() == 500)
            said = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text
            assert re.search(r"the prober is stuck: no question .* for \d+ s\. Restart it", said)
            assert prober.stderr is not None
            os.set_blocking(prober.stderr.fileno(), False)

            def well_again() -> bool:
                prober.stderr.read()  # type: ignore[union-attr] # it was asserted above
                return status() == 200

            eventually(well_again)
        finally:
            prober.kill()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("canaries: []", "1 to 20"),
        ("canaries: [{name: a, question: q}]", "any answer would pass"),
        ("canaries: [{name: a, question: 'Is it X?', must_contain: [x]}]", "repeats the question"),
        ("canaries:\n- name: a\n  question: q\n  must_mach: x", "line 2.*must_mach is no field"),
        ("canaries: [{name: A b, question: q, must_match: x}]", "lower-case"),
        ("canaries: [{name: a, question: q, must_match: '('}]", "regular expression"),
        ("canaries: [{name: a, question: q, must_match: x, sources: [web]}]", "expected some of cache"),
        ("canaries: [{name: a, question: q, must_match: x, maximum_seconds: .nan}]", "above 0"),
        ("canaries: [{name: a, name: b}]", "twice"),
        ("canaries: [", "no YAML"),
        ("- 1", "no mapping"),
    ],
)
def test_a_file_that_would_make_blind_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "canaries.yml"
    path.write_text(text)
    with pytest.raises(CanariesError, match=said):
        load_canaries(path)
