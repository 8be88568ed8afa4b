"""The pager keeps and shows what a real Alertmanager sends it."""

from __future__ import annotations

import http.client
import json
import re
import resource
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
from cmo_stack import configuration, health, servers
from cmo_stack.free_ports import free_port
from cmo_stack.pager import phone_lines
from cmo_stack.ports import Ports
from cmo_stack.process import ManagedProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ALERT = {
    "labels": {"alertname": "CMOLiveQueriesFailing", "severity": "page"},
    "annotations": {"summary": "Live queries are failing", "runbook_url": "docs/runbooks/x.md"},
}


@pytest.fixture
def pager_port() -> int:
    return free_port()


@pytest.fixture
def pager(pager_process: ManagedProcess, pager_port: int) -> int:
    """The port of a pager that listens."""
    assert pager_process.pid
    return pager_port


@pytest.fixture
def pager_process(pager_port: int, tmp_path: Path) -> Iterator[ManagedProcess]:
    command = [
        sys.executable,
        "-m",
        "cmo_stack.pager",
        "--port",
        str(pager_port),
        "--log",
        str(tmp_path / "pages.jsonl"),
    ]
    with ManagedProcess(
        "pager",
        command,
        log_path=tmp_path / "pager.log",
        ready=partial(health.answers, pager_port, "/healthz"),
    ) as process:
        yield process


def _post(port: int, path: str, content: object) -> int:
    connection = http.client.HTTPConnection(health.LOOPBACK, port, timeout=30)
    connection.request("POST", path, json.dumps(content), {"Content-Type": "application/json"})
    return connection.getresponse().status


def _pages(port: int) -> list[dict[str, object]]:
    pages: list[dict[str, object]] = json.loads(health.get(port, "/pages")[1])["pages"]
    return pages


def test_a_page_from_a_real_alertmanager_is_kept_and_shown(
    alertmanager_server: servers.Server,
    pager: int,
    tmp_path: Path,
    wait_until: Callable[[Callable[[], bool], str], None],
) -> None:
    ports = Ports(pager=pager, alertmanager=free_port())
    committed = configuration.committed("alertmanager", "alertmanager.yml")
    rendered = tmp_path / "alertmanager.yml"
    rendered.write_text(
        configuration.alertmanager_configuration(
            committed.read_text(), ports=ports, directory=committed.parent
        )
    )
    command = [
        str(alertmanager_server.path),
        f"--config.file={rendered}",
        f"--storage.path={tmp_path / 'storage'}",
        f"--web.listen-address={health.LOOPBACK}:{ports.alertmanager}",
        "--cluster.listen-address=",
    ]
    with ManagedProcess(
        "alertmanager",
        command,
        log_path=tmp_path / "alertmanager.log",
        ready=partial(health.answers, ports.alertmanager, "/-/ready"),
        environment=alertmanager_server.environment,
    ):
        assert _post(ports.alertmanager, "/api/v2/alerts", [ALERT]) == http.client.OK
        wait_until(lambda: bool(_pages(pager)), "the page has come")
    page = _pages(pager)[0]
    assert page["status"] == "firing"
    assert json.loads((tmp_path / "pages.jsonl").read_text().splitlines()[0]) == page
    shown = (tmp_path / "pager.log").read_text()
    assert "FIRING CMOLiveQueriesFailing [page]: Live queries are failing - docs/runbooks/x.md" in shown


@pytest.mark.parametrize("content", ["text", {"alerts": "none"}, {"alerts": [1]}, []])
def test_what_is_no_notification_is_refused(pager: int, content: object) -> None:
    assert _post(pager, "/page", content) == http.client.BAD_REQUEST
    assert _pages(pager) == []


def _raw(port: int, request: bytes) -> bytes:
    with socket.create_connection((health.LOOPBACK, port), timeout=30) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(10_000):
            answer += part
    return answer


def _notification(alert: bytes) -> bytes:
    body = b'{"alerts": [' + alert + b"]}"
    return b"POST /alerts HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize(
    ("request_bytes", "said"),
    [
        (b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", "expected a Content-Length, in bytes"),
        (b"POST / HTTP/1.1\r\nContent-Length: abc\r\n\r\n", "expected a Content-Length, in bytes"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "expected a Content-Length"),
        (_notification(b'{"labels": null}'), "alert 1 with `labels` that are no mapping"),
        (_notification(b'{}, {"labels": ["a"]}'), "alert 2 with `labels` that are no mapping"),
        (_notification(b'{"labels": {"alertname": 1}}'), "alert 1 with `labels` that are no mapping"),
        (_notification(b'{"annotations": "x"}'), "alert 1 with `annotations` that are no mapping"),
        (_notification(b'{"status": 5}'), "alert 1 with a `status` that is no text"),
        (_notification(b"[" * 100_000), "nested more than 20 deep"),
        (_notification(b'{"x": ' + b"[" * 950 + b"]" * 950 + b"}"), "nested more than 20 deep"),
        (_notification(b'{"x": NaN}'), "found no JSON"),
        (_notification(b'{"x": %s}' % (b"9" * 5000)), "found no JSON"),
        (_notification(b'{"labels": {"alertname": "\\ud800"}}'), "half of a surrogate pair"),
        (_notification(b'{"\\ud800": 1}'), "half of a surrogate pair"),
    ],
    ids=range(14),
)
def test_junk_is_refused_in_words_and_not_kept(
    pager: int, tmp_path: Path, request_bytes: bytes, said: str
) -> None:
    head, _, body = _raw(pager, request_bytes).partition(b"\r\n\r\n")
    assert head.split()[1] == (b"411" if "Content-Length" in said else b"400")
    assert said in json.loads(body)["error"]
    assert _pages(pager) == []
    assert "Traceback" not in (tmp_path / "pager.log").read_text()


def test_what_is_too_long_is_refused(pager: int) -> None:
    for length in (b"1000001", b"9" * 5000):
        answer = _raw(pager, b"POST / HTTP/1.1\r\nContent-Length: " + length + b"\r\n\r\n")
        assert answer.split()[1] == b"413"


def test_what_cannot_be_kept_is_not_kept_by_half_and_said_so(
    pager: int, pager_process: ManagedProcess, tmp_path: Path
) -> None:
    assert _post(pager, "/alerts", {"alerts": [ALERT]}) == http.client.OK
    size = (tmp_path / "pages.jsonl").stat().st_size
    resource.prlimit(pager_process.pid, resource.RLIMIT_FSIZE, (size + 10, resource.RLIM_INFINITY))
    assert _post(pager, "/alerts", {"alerts": [ALERT]}) == http.client.INSUFFICIENT_STORAGE
    assert len(_pages(pager)) == 1
    resource.prlimit(
        pager_process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    )
    assert _post(pager, "/alerts", {"alerts": [ALERT]}) == http.client.OK
    assert len(_pages(pager)) == 2
    assert "Traceback" not in (tmp_path / "pager.log").read_text()


def test_a_sender_cannot_say_when_it_was_received(pager: int) -> None:
    assert _post(pager, "/alerts", {"received": 1, "alerts": []}) == http.client.OK
    received = _pages(pager)[0]["received"]
    assert isinstance(received, float)
    assert received > 1


def test_a_text_cannot_begin_a_line_of_its_own() -> None:
    labels = {"alertname": "A\u2028B\nFIRING CMOServiceDown [page]\x1b[2J"}
    (line,) = phone_lines({"alerts": [{"status": "firing", "labels": labels}]})
    assert line == r"FIRING A B FIRING CMOServiceDown [page]\x1b[2J"


def test_an_unknown_path_says_which_there_are(pager: int) -> None:
    status, body = health.get(pager, "/nothing")
    assert status == http.client.NOT_FOUND
    assert b"/pages" in body


def test_an_alert_without_labels_is_shown_too() -> None:
    assert phone_lines({"alerts": [{"status": "resolved"}]}) == ["RESOLVED unnamed alert"]


def test_pages_can_be_read_without_a_program(pager: int) -> None:
    empty = health.get(pager, "/pages.txt")
    assert empty == (http.client.OK, b"No page has come.\n")
    others = {"labels": {"alertname": "CMOCostHigh", "severity": "ticket"}, "status": "resolved"}
    _post(pager, "/page", {"receiver": "pager", "alerts": [{**ALERT, "status": "firing"}, others]})
    _post(pager, "/page", {"receiver": "two\nlines", "alerts": [others]})
    _post(pager, "/page", {"alerts": [others]})
    lines = health.get(pager, "/pages.txt")[1].decode().splitlines()
    when = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ")
    assert all(when.match(line) for line in lines)
    assert [when.sub("", line) for line in lines] == [
        "pager  FIRING CMOLiveQueriesFailing [page]: Live queries are failing - docs/runbooks/x.md",
        "pager  RESOLVED CMOCostHigh [ticket]",
        "two lines  RESOLVED CMOCostHigh [ticket]",
        "-  RESOLVED CMOCostHigh [ticket]",
    ]
