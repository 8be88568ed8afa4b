"""The dead-man beside a pager alone: when it pages, what it hears and answers, and how it is started."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cmo_stack import health
from cmo_stack.free_ports import free_port

from .watched_dead_man import HEARD, WATCHDOG, Watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Wait = Callable[[Callable[[], bool], str], None]


class LivingWatchdog:
    """Makes itself heard five times a second as long as the block runs, whether it is listened to or not."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.2):
            with contextlib.suppress(OSError):
                self._watched.post(HEARD, timeout_seconds=0.5)


class Drippers:
    """Connections that send a byte now and then and never end: half of them in the head, half in the body."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._count = count
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.connected: list[socket.socket] = []

    def __enter__(self) -> Drippers:
        head = b"POST /watchdog HTTP/1.1\r\nContent-Length: 900000\r\n"
        for number in range(self._count):
            connection = socket.create_connection((health.LOOPBACK, self._port), timeout=30)
            self.connected.append(connection)
            with contextlib.suppress(OSError):  # turned away
                connection.sendall(head + (b"\r\n" if number % 2 else b"X: "))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for connection in self.connected:
            connection.close()

    def _run(self) -> None:
        while not self._over.wait(0.2):
            for connection in list(self.connected):
                try:
                    connection.sendall(b"x")
                except OSError:
                    self.connected.remove(connection)
                    connection.close()


@pytest.fixture
def watched(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Watched]:
    """A dead-man with a time-out of a second, or as the test's parameter says."""
    both = Watched(tmp_path, getattr(request, "param", 1.0), {})
    with both.pager, both.dead_man:
        yield both


def test_silence_from_the_start_pages_and_being_heard_resolves(watched: Watched, wait_until: Wait) -> None:
    wait_until(lambda: bool(watched.pages()), "a page")
    with LivingWatchdog(watched):
        wait_until(lambda: watched.statuses()[-1] == "resolved", "its resolution")
    wait_until(lambda: watched.statuses()[-1] == "firing", "a page of another outage")

    told = watched.pages()
    assert watched.statuses() == ["firing", "resolved"] * (len(told) // 2) + ["firing"], "once an outage"
    first, over, second = told[0]["alerts"][0], told[1]["alerts"][0], told[-1]["alerts"][0]
    assert first["labels"]["alertname"] == told[0]["commonLabels"]["alertname"] == "CMOMonitoringSilent"
    assert first["labels"]["severity"] == "page"
    assert first["annotations"]["runbook_url"] == "docs/runbooks/CMOMonitoringSilent.md"
    assert f"since {first['startsAt'][11:19]} UTC" in first["annotations"]["description"]
    assert over["startsAt"] == first["startsAt"] < over["endsAt"]
    assert first["startsAt"] < second["startsAt"]
    shown = f"FIRING CMOMonitoringSilent [page]: {first['annotations']['summary']} - docs/runbooks/"
    assert shown in watched.pager.log_path.read_text()


@pytest.mark.parametrize("watched", [600.0], indirect=True)
def test_only_a_firing_watchdog_is_heard(watched: Watched) -> None:
    resolved = {"alerts": [{"status": "resolved", **WATCHDOG}]}
    another = {"alerts": [{"status": "firing", "labels": {"severity": "page"}}]}
    unlabelled = {"alerts": [{"status": "firing", "labels": 1}]}
    contents: list[Any] = [resolved, another, unlabelled, {"alerts": []}]
    for content in contents:
        assert watched.post(content) == (http.client.OK, {"heard": False})
    assert (watched.status()["state"], watched.status()["heard"]) == ("waiting", 0)
    assert watched.post({"alerts": [*resolved["alerts"], *HEARD["alerts"]]}) == (
        http.client.OK,
        {"heard": True},
    )
    assert (watched.status()["state"], watched.status()["heard"]) == ("hearing", 1)


@pytest.mark.parametrize("watched", [600.0], indirect=True)
def test_junk_is_refused_in_words_and_survived(watched: Watched) -> None:
    for junk in (b"", b"text", b"\xff\xfe", b"[" * 100_000, b"[]", b'{"alerts": 1}', b'{"alerts": [1]}'):
        status, answer = watched.post(junk)
        assert status == http.client.BAD_REQUEST
        assert "expected an Alertmanager notification" in answer["error"]
    head = b"POST /watchdog HTTP/1.1\r\nHost: x\r\n"
    assert _raw(watched, head + b"\r\n").startswith(b"HTTP/1.0 411")
    assert _raw(watched, head + b"Content-Length: -5\r\n\r\n").startswith(b"HTTP/1.0 411")
    assert _raw(watched, head + b"Content-Length: 1000001\r\n\r\n").startswith(b"HTTP/1.0 413")
    assert _raw(watched, head + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n").startswith(b"HTTP/1.0 413")
    with socket.create_connection((health.LOOPBACK, watched.ports.dead_man)) as leaver:
        leaver.sendall(head + b"Content-Length: 100\r\n\r\n{")
        assert watched.post(HEARD) == (http.client.OK, {"heard": True}), (
            "one slow sender does not stop others"
        )
    assert health.get(watched.ports.dead_man, "/nothing")[0] == http.client.NOT_FOUND
    assert watched.status()["heard"] == 1
    assert "Traceback" not in watched.dead_man.log_path.read_text()


@pytest.mark.parametrize("watched", [600.0], indirect=True)
def test_the_status_says_which_watchdogs_were_heard(watched: Watched) -> None:
    another = {"labels": {"alertname": "Watchdog", "severity": "watchdog"}}
    strange = {"labels": {"alertname": ["CMO"], "severity": "watchdog", "slo": "\ud800" + "x" * 1000}}
    ours = {"labels": {**WATCHDOG["labels"], "slo": "cmo-015"}}
    for alerts in (
        [ours],
        [another],
        [strange],
        [ours, {"labels": {"severity": "page", "alertname": "Other"}}],
    ):
        assert watched.post({"alerts": [{"status": "firing", **alert} for alert in alerts]})[1] == {
            "heard": True
        }
    heard = watched.status()["watchdogs"]
    assert [(one["alertname"], one["slo"], one["heard"]) for one in heard] == [
        ("CMOWatchdog", "cmo-015", 2),
        ("", "\ud800" + "x" * 99, 1),
        ("Watchdog", "", 1),
    ]
    assert 0 <= heard[0]["silent_seconds"] <= heard[-1]["silent_seconds"]


def test_only_the_watchdog_that_is_asked_for_is_heard(tmp_path: Path) -> None:
    watched = Watched(tmp_path, 600.0, {}, {"--slo": "cmo-015"})
    foreign = {"status": "firing", "labels": {**WATCHDOG["labels"], "slo": "shop"}}
    ours = {"status": "firing", "labels": {**WATCHDOG["labels"], "slo": "cmo-015"}}
    with watched.dead_man:
        assert watched.post({"alerts": [foreign]})[1] == {"heard": False}
        assert watched.post(HEARD)[1] == {"heard": False}
        assert watched.status()["heard"] == 0
        assert watched.post({"alerts": [foreign, ours]})[1] == {"heard": True}
        assert [one["slo"] for one in watched.status()["watchdogs"]] == ["cmo-015"]


@pytest.mark.parametrize("watched", [2.0], indirect=True)
def test_senders_that_drip_for_ever_keep_it_neither_from_paging_nor_from_hearing(
    watched: Watched, wait_until: Wait
) -> None:
    """They are more than it has file descriptors, and none of them ever ends a head or a body."""
    few = 64
    resource.prlimit(watched.dead_man.pid, resource.RLIMIT_NOFILE, (few, few))
    with Drippers(watched.ports.dead_man, 2 * few) as drippers:
        wait_until(lambda: watched.statuses() == ["firing"], "the page")
        wait_until(lambda: "delivered" in watched.events(), "the note of it")
        wait_until(lambda: not drippers.connected, "the end of the last sender")
        assert watched.post(HEARD) == (http.client.OK, {"heard": True})
        wait_until(lambda: watched.statuses() == ["firing", "resolved"], "its resolution")
    assert watched.status()["turned_away"] >= few, "more than it can serve are turned away at once"


@pytest.mark.parametrize("watched", [600.0], indirect=True)
def test_connections_that_are_open_at_once_are_bounded(watched: Watched, wait_until: Wait) -> None:
    threads = []
    with Drippers(watched.ports.dead_man, 100) as drippers:

        def all_have_ended() -> bool:
            threads.append(_threads(watched))
            return not drippers.connected

        wait_until(all_have_ended, "the end of the last sender")
    assert 16 < max(threads) <= 32 + 3, "those that serve, and those that listen, look and deliver"
    wait_until(lambda: _threads(watched) == 3, "the end of those threads")
    for _ in range(100):
        assert watched.post(HEARD)[0] == http.client.OK, "each leaves its place to another"


def test_a_page_is_sent_until_it_is_delivered(tmp_path: Path, wait_until: Wait) -> None:
    watched = Watched(tmp_path, 0.5, {})
    with watched.dead_man:
        wait_until(lambda: "not delivered, will be tried again" in watched.events(), "a failed delivery")
        assert watched.status()["undelivered"] == 1
        with watched.pager:
            wait_until(lambda: bool(watched.pages()), "the page")
            wait_until(lambda: watched.status()["undelivered"] == 0, "the end of trying")
    assert watched.statuses() == ["firing"]


def test_a_page_that_came_too_late_wakes_nobody(tmp_path: Path, wait_until: Wait) -> None:
    """The pager is told that there was an outage, and that it is over."""
    watched = Watched(tmp_path, 2.0, {})
    with watched.dead_man:
        wait_until(lambda: watched.is_in("silent"), "an outage")
        with LivingWatchdog(watched):
            wait_until(lambda: watched.is_in("hearing"), "the end of the outage")
            with watched.pager:
                wait_until(lambda: bool(watched.pages()), "word of it")
    assert watched.statuses() == ["resolved"]


def test_an_answer_that_leads_elsewhere_is_no_delivery(tmp_path: Path, wait_until: Wait) -> None:
    watched = Watched(tmp_path, 0.5, {})
    answer = b"HTTP/1.1 302 Found\r\nLocation: /healthz\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with socket.create_server((health.LOOPBACK, watched.ports.pager)) as elsewhere, watched.dead_man:
        connection, _ = elsewhere.accept()
        with connection:
            connection.recv(1_000_000)
            connection.sendall(answer)
        wait_until(lambda: "not delivered, will be tried again" in watched.events(), "a failed delivery")
    assert "delivered" not in watched.events()
    assert "answered 302" in watched.dead_man.log_path.read_text()


def test_a_token_is_sent_with_each_page_as_it_is_then_and_never_shown(
    tmp_path: Path, wait_until: Wait
) -> None:
    token = tmp_path / "token"
    token.write_text("token-4711\n")
    watched = Watched(tmp_path, 0.5, {}, {"--notify-token-file": str(token)})
    with socket.create_server((health.LOOPBACK, watched.ports.pager)) as pager, watched.dead_man:
        assert "\r\nAuthorization: Bearer token-4711\r\n" in _answered(pager, "401 Unauthorized")
        token.write_text("token 4712\n\nof another line")
        wait_until(lambda: "holds no token" in watched.dead_man.log_path.read_text(), "word of a bad token")
        token.unlink()
        wait_until(lambda: "No such file" in watched.dead_man.log_path.read_text(), "word of its absence")
        token.write_text("token-4713")
        assert "\r\nAuthorization: Bearer token-4713\r\n" in _answered(pager, "200 OK")
        wait_until(lambda: "delivered" in watched.events(), "the delivery")
    said = watched.dead_man.log_path.read_text() + (tmp_path / "dead-man.jsonl").read_text()
    assert "answered 401" in said
    assert not [
        held for held in ("token-4711", "token 4712", "of another line", "token-4713") if held in said
    ]


def test_without_a_token_none_is_sent(tmp_path: Path) -> None:
    watched = Watched(tmp_path, 0.5, {})
    with socket.create_server((health.LOOPBACK, watched.ports.pager)) as pager, watched.dead_man:
        assert "Authorization" not in _answered(pager, "200 OK")


def _answered(pager: socket.socket, status: str) -> str:
    """The request that comes next, which is answered with this."""
    pager.settimeout(60)
    connection, _ = pager.accept()
    with connection:
        connection.settimeout(60)
        text = b""
        while b"}]}" not in text:
            text += connection.recv(1_000_000)
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
    return text.decode()


@pytest.mark.parametrize("watched", [4.0], indirect=True)
def test_a_stopped_dead_man_hears_what_was_sent_meanwhile(watched: Watched, wait_until: Wait) -> None:
    with LivingWatchdog(watched):
        wait_until(lambda: watched.is_in("hearing"), "the watchdog being heard")
    heard = watched.status()["heard"]
    with _stopped(watched, wait_until), contextlib.suppress(TimeoutError):
        watched.post(HEARD, timeout_seconds=0.5)
    wait_until(lambda: watched.status()["heard"] > heard, "what was sent into the void")
    assert "silent" not in watched.events()


@pytest.mark.parametrize("watched", [4.0], indirect=True)
def test_a_dead_man_that_goes_on_gives_the_watchdog_time(watched: Watched, wait_until: Wait) -> None:
    """Although nothing was sent meanwhile: whoever was stopped may have stopped together with all others."""
    with LivingWatchdog(watched):
        wait_until(lambda: watched.is_in("hearing"), "the watchdog being heard")
    with _stopped(watched, wait_until):
        pass
    silence = watched.status()["silent_seconds"]
    wait_until(lambda: watched.status()["silent_seconds"] != silence, "a look at the clock after the stop")
    assert "silent" not in watched.events()


@contextlib.contextmanager
def _stopped(watched: Watched, wait_until: Wait) -> Iterator[None]:
    """Stop the process for longer than its time-out of 4 s."""
    os.kill(watched.dead_man.pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        yield
        wait_until(lambda: time.monotonic() > began + 4.5, "more than the time-out being over")
    finally:
        os.kill(watched.dead_man.pid, signal.SIGCONT)


def test_a_clock_that_jumps_does_not_matter(tmp_path: Path, wait_until: Wait) -> None:
    days = tmp_path / "days"
    days.write_text("0")
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib, time\n"
        "real, days = time.time, pathlib.Path(__file__).with_name('days')\n"
        "time.time = lambda: real() + 86400 * float(days.read_text() or 0)\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    watched = Watched(tmp_path, 3.0, {"PYTHONPATH": path})
    with watched.pager, watched.dead_man:
        with LivingWatchdog(watched):
            wait_until(lambda: watched.is_in("hearing"), "the watchdog being heard")
            days.write_text("1")
            heard = watched.status()["heard"]
            wait_until(lambda: watched.status()["heard"] > heard + 3, "it being heard a day later")
            assert "silent" not in watched.events()
            days.write_text("-1")
        wait_until(lambda: watched.statuses() == ["firing"], "a page, although it is yesterday")
    times = [json.loads(line)["time"] for line in (tmp_path / "dead-man.jsonl").read_text().splitlines()]
    assert times[-1] < times[0], "the clock of the process did jump"


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--timeout", "0", "expected a number of seconds above 0, found '0'"),
        ("--timeout", "nan", "expected a number of seconds above 0, found 'nan'"),
        ("--notify", "pager:8095", "expected http://HOST/PATH or https://HOST/PATH, found 'pager:8095'"),
        ("--notify", "file:///etc/passwd", "expected http://HOST/PATH"),
        ("--port", "99999", "expected a port from 1 to 65535, found '99999'"),
        ("--notify-token-file", "/nowhere/token", "the token cannot be read: "),
        ("--notify-token-file", os.devnull, "/dev/null holds no token: expected one line of printable ASCII"),
    ],
)
def test_wrong_usage_is_said(option: str, value: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cmo_stack.dead_man", option, value], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_busy_port_and_a_file_that_cannot_be_written_are_said(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cmo_stack.dead_man"]
    with socket.create_server((health.LOOPBACK, 0)) as other:
        port = str(other.getsockname()[1])
        words = ["--port", port, "--log", str(tmp_path / "log")]
        busy = subprocess.run([*command, *words], capture_output=True, text=True)
    (tmp_path / "file").touch()
    words = ["--port", str(free_port()), "--log", str(tmp_path / "file/log")]
    unwritable = subprocess.run([*command, *words], capture_output=True, text=True)
    assert f"cannot listen on http://127.0.0.1:{port}" in busy.stderr
    assert "Address already in use" in busy.stderr
    assert f"not write {tmp_path / 'file/log'}" in unwritable.stderr
    for done in (busy, unwritable):
        assert done.returncode == 1
        assert "Choose another --port or --log." in done.stderr
        assert "Traceback" not in done.stderr


def _threads(watched: Watched) -> int:
    return len(list(Path(f"/proc/{watched.dead_man.pid}/task").iterdir()))


def _raw(watched: Watched, request: bytes) -> bytes:
    with socket.create_connection((health.LOOPBACK, watched.ports.dead_man), timeout=30) as connection:
        connection.sendall(request)
        return connection.recv(1000)
