"""The stack starts in order and stops in reverse, and leaves nothing however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import pytest
import requests
from cmo_stack import detached, health, servers, topology
from cmo_stack.free_ports import free_port
from cmo_stack.ports import Ports
from cmo_stack.process import ProcessFailedError
from cmo_stack.stack import SCRAPES_BEFORE_LOAD, Stack, wait_until_scraped

CMO = Path(sys.executable).with_name("cmo")
PAGE = (Path(__file__).resolve().parents[2] / "docs/stack.md").read_text(encoding="utf-8")
Wait = Callable[[Callable[[], bool], str], None]
Alive = Callable[[int], bool]


def _settings(directory: Path) -> topology.Settings:
    return topology.Settings(Ports.choose({}, prefer_defaults=False), directory / "run", directory / "index")


def _part(name: str, *, program: str = "import signal; signal.pause()", serves: bool = True) -> topology.Part:
    return topology.Part(name, "1", (sys.executable, "-c", program), "nowhere", lambda: serves)


def test_parts_start_in_order_and_stop_in_reverse(tmp_path: Path) -> None:
    told: list[str] = []
    note = tmp_path / "ends"
    program = (
        "import signal, sys, pathlib\n"
        "def end(*_):\n    open({note!r}, 'a').write({name!r} + ' '); sys.exit()\n"
        "signal.signal(15, end)\npathlib.Path({ready!r}).touch()\nsignal.pause()"
    )
    chosen = [
        topology.Part(
            name,
            "1",
            (sys.executable, "-c", program.format(note=str(note), name=name, ready=str(tmp_path / name))),
            "nowhere",
            (tmp_path / name).exists,
        )
        for name in ("first", "second", "third")
    ]
    with Stack(_settings(tmp_path), told.append, chosen):
        pass
    assert [line.split()[0] for line in told] == ["first", "second", "third"]
    assert note.read_text().split() == ["third", "second", "first"]


def test_when_one_fails_those_before_it_are_stopped(tmp_path: Path, alive: Alive) -> None:
    failing = _part("failing", program="raise SystemExit('the reason')", serves=False)
    stack = Stack(_settings(tmp_path), chosen=[_part("first"), failing])
    pids: list[int] = []
    stack._tell = lambda _: pids.append(stack.process("first").pid)
    with pytest.raises(ProcessFailedError, match="the reason"):
        stack.start()
    assert len(pids) == 1
    assert not alive(pids[0])
    assert not stack.has("first")


def test_a_part_does_not_serve_because_another_process_answers_at_its_port(tmp_path: Path) -> None:
    with socket.create_server((health.LOOPBACK, 0)) as other:
        port = other.getsockname()[1]
        late = f"import socket; socket.create_server(({health.LOOPBACK!r}, {port}))"
        command = (sys.executable, "-c", late)
        part = topology.Part("late", "1", command, "nowhere", lambda: True, port=port)
        with pytest.raises(ProcessFailedError, match="Address already in use"):
            Stack(_settings(tmp_path), chosen=[part]).start()


def test_a_stack_that_is_left_running_serves_until_it_is_taken_down(
    tmp_path: Path, wait_until: Wait, alive: Alive
) -> None:
    try:
        up = _cmo(tmp_path, "stack", "up", "--profile", "healthy", "--scrape-interval", "1", *_free_ports())
        assert up.returncode == 0, up.stderr
        state = _state(tmp_path)
        assert health.scrapes(state.ports.prometheus, topology.JOB, since=0.0) >= SCRAPES_BEFORE_LOAD
        assert health.scrapes(state.ports.prometheus, topology.JOB, since=time.time()) <= 1
        assert f"cmo loadtest run --target http://127.0.0.1:{state.ports.service})" in up.stderr
        _status_shows_every_part_serving(tmp_path)
        _a_second_up_says_so_and_changes_nothing(tmp_path, state)
        _a_second_up_that_asks_for_another_stack_fails(tmp_path, state)
        _everything_listens_on_this_machine_alone(state)
        configured = partial(_prometheus_has_the_rules_and_the_alertmanager, state)
        wait_until(configured, "the rules and the Alertmanager in Prometheus")
        _prometheus_answers_as_the_page_says(state)
        _the_prober_is_scraped_until_it_is_killed(tmp_path, state, wait_until)
    finally:
        down = _cmo(tmp_path, "stack", "down")
    assert (down.returncode, down.stderr) == (0, "The stack is stopped.\n")
    assert not [part for part in state.parts if alive(part.pid)]
    assert not alive(state.pid)
    assert _cmo(tmp_path, "stack", "status").returncode == 4
    assert "No stack is running" in _cmo(tmp_path, "stack", "down").stderr


@pytest.mark.parametrize(("options", "piped"), [("", False), ("", True), ("--quiet", False)])
def test_an_address_is_read_once_on_a_terminal_and_always_in_a_pipe(
    tmp_path: Path, options: str, piped: bool
) -> None:
    program = (
        "from cmo_stack import cli, detached\n"
        "def start(settings, home, tell):\n"
        "    part = detached.RunningPart('redis', '7', 'redis://here', 1)\n"
        "    tell('redis redis://here')\n"
        "    home.write(detached.State('running', 1, 1, settings.ports, 'report', 15, (part,)))\n"
        "detached.start = start\n"
        f"raise SystemExit(cli.run('stack up --no-wait {options}'.split()))\n"
    )
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=_environment(tmp_path),
        stdout=subprocess.PIPE if piped else theirs,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    shown = _read_all(ours)
    assert done.returncode == 0, shown
    assert shown.count("redis://here") == 1
    assert (done.stdout or "").count("redis://here") == int(piped)


def _read_all(terminal: int) -> str:
    shown = b""
    with contextlib.suppress(OSError), os.fdopen(terminal, "rb", buffering=0) as file:  # EIO is its end
        while piece := file.read(4096):
            shown += piece
    return shown.decode()


def test_nobody_waits_for_the_scrapes_of_a_stack_that_has_ended(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailedError, match="stopped before Prometheus had scraped"):
        wait_until_scraped(_settings(tmp_path), 0.0, running=lambda: False)


def _status_shows_every_part_serving(folder: Path) -> None:
    done = _cmo(folder, "stack", "status", "--format", "json")
    status = json.loads(done.stdout)
    assert (done.returncode, status["phase"]) == (0, "running")
    names = ["redis", "upstream", "pager", "dead-man", "alertmanager", "prometheus", "service", "prober"]
    assert [(part["name"], part["serves"]) for part in status["parts"]] == [(name, True) for name in names]


def _a_second_up_says_so_and_changes_nothing(folder: Path, before: detached.State) -> None:
    done = _cmo(folder, "stack", "up")
    assert done.returncode == 0
    assert "already running (profile healthy, scraped every 1 s)" in done.stderr
    assert f"http://127.0.0.1:{before.ports.prometheus}" in done.stdout
    same = _cmo(folder, "stack", "up", "--profile", "healthy", "--scrape-interval", "1", "--seed", "1")
    assert (same.returncode, same.stderr) == (0, done.stderr)
    assert _state(folder) == before


def _a_second_up_that_asks_for_another_stack_fails(folder: Path, before: detached.State) -> None:
    other = ("--profile", "report", "--scrape-interval", "15", "--seed", "2", "--pager-port", "9")
    done = _cmo(folder, "stack", "up", *other)
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1] == (
        "Not what was asked for: --profile report, and it runs with healthy; --seed 2, and it runs with 1; "
        "--scrape-interval 15, and it runs with 1; "
        f"--pager-port 9, and it runs with {before.ports.pager}. `cmo stack down` first, then ask again."
    )
    assert _state(folder) == before


def _everything_listens_on_this_machine_alone(state: detached.State) -> None:
    sockets = {
        str(link.readlink())
        for part in state.parts
        for link in Path(f"/proc/{part.pid}/fd").iterdir()
        if link.is_symlink()
    }
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                addresses.add(fields[1].rpartition(":")[0])
    assert addresses == {"0100007F"}


def _prometheus_has_the_rules_and_the_alertmanager(state: detached.State) -> bool:
    """It takes Prometheus some seconds to find its Alertmanager."""
    port = state.ports.prometheus
    groups = json.loads(health.get(port, "/api/v1/rules")[1])["data"]["groups"]
    managers = json.loads(health.get(port, "/api/v1/alertmanagers")[1])["data"]["activeAlertmanagers"]
    return bool(groups) and len(managers) == 1


def _prometheus_answers_as_the_page_says(state: detached.State) -> None:
    section = PAGE.partition("\n## Ask Prometheus\n")[2].partition("\n## ")[0]
    lines = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```$", section, re.M | re.S)
        for line in block.splitlines()
    ]
    promtool = servers.newest("promtool")
    answers = []
    for line in lines:
        here = (
            line.replace(".servers/forky/usr/bin/promtool", str(promtool.path))
            .replace("127.0.0.1:9090", f"127.0.0.1:{state.ports.prometheus}")
            .replace("QUERY", 'up{job="cmo"}')
        )
        if asked := re.match(r"curl -s (http://\S+)", here):  # which not every machine has
            answers.append(requests.get(asked[1], timeout=10).text)
            continue
        environment = {**os.environ, **promtool.environment}
        done = subprocess.run(["sh", "-c", here], env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), line
        answers.append(done.stdout)
    *documents, up = answers
    assert [sorted(json.loads(one)["data"])[0] for one in documents] == ["alerts", "activeTargets", "groups"]
    assert re.match(r'up\{.*job="cmo".*\} => 1 @', up)


def _the_prober_is_scraped_until_it_is_killed(folder: Path, state: detached.State, wait_until: Wait) -> None:
    port = state.ports.prometheus

    def is_found(expression: str) -> bool:
        _, body = health.get(port, f"/api/v1/query?{urlencode({'query': expression})}")
        return bool(json.loads(body)["data"]["result"])

    wait_until(lambda: is_found("max(cmo_probe_up) == 1"), "the first canary has had its answer")
    assert is_found("min(cmo_probe_up) == 1")
    assert is_found('up{job="probe"} == 1')
    counted = 'cmo_queries_started_total{job="cmo",scenario%s"probe"} > 0'
    wait_until(lambda: is_found(counted % "="), "the service has counted it")
    assert not is_found(counted % "!=")
    (pid,) = [part.pid for part in state.parts if part.name == "prober"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_found('up{job="probe"} == 0'), "its end in Prometheus")
    assert not is_found("cmo_probe_up")
    done = _cmo(folder, "stack", "status")
    assert done.returncode == 4
    assert re.search(r"prober +DOWN", done.stdout)
    again = _cmo(folder, "stack", "up")
    assert again.returncode == 4
    assert "Not serving: prober. `cmo stack down`" in again.stderr


def test_a_killed_supervisor_takes_everything_with_it(tmp_path: Path, wait_until: Wait, alive: Alive) -> None:
    """Started as far as it takes to have a part running; ``up`` then says that it was stopped."""
    command = [str(CMO), "stack", "up", *_free_ports()]
    up = subprocess.Popen(command, env=_environment(tmp_path), stderr=subprocess.PIPE, text=True)
    home = detached.Home(tmp_path / "stack")
    wait_until(
        lambda: (state := home.state) is not None and len(state.parts) > 1, "two parts have been started"
    )
    state = home.state
    assert state is not None
    os.kill(state.pid, signal.SIGKILL)
    _, said = up.communicate()
    assert up.returncode == 5
    assert "was stopped before it served" in said
    wait_until(lambda: not any(alive(part.pid) for part in state.parts), "every part has ended")
    assert not home.running()
    assert "No stack is running" in _cmo(tmp_path, "stack", "status").stdout


def test_a_busy_port_is_wrong_usage_and_starts_nothing(tmp_path: Path) -> None:
    port = free_port()
    program = (
        f"import socket, signal; listener = socket.create_server(('127.0.0.1', {port}));"
        "print(flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            done = _cmo(tmp_path, "stack", "up", "--prometheus-port", str(port))
        finally:
            holder.kill()
    assert done.returncode == 3
    assert f"Port {port} for prometheus is busy" in done.stderr
    assert not (tmp_path / "stack/state.json").exists()


def test_a_stack_of_another_release_is_not_waited_for_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state file cannot be read, so nobody knows whom to ask; the message says how to end it."""
    home = detached.Home(tmp_path / "stack")
    home.directory.mkdir()
    (home.directory / "state.json").write_text('{"schema": "cmo.stack/v1", "pid": 1}')
    holds_the_lock = (
        "import fcntl, signal, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, 2); signal.pause()"
    )
    words = [sys.executable, "-c", holds_the_lock, str(home.lock), "cmo_stack.detached", str(home.directory)]
    monkeypatch.setattr(detached, "_UNKNOWN_SECONDS", 0.1)
    with subprocess.Popen(words) as other:
        try:
            while not home.running():
                assert other.poll() is None
            with pytest.raises(
                detached.StackFailedError, match="another release may have written it"
            ) as raised:
                detached.stop(home)
            pattern = str(raised.value).rpartition("pkill -f ")[2].strip("'")
            assert re.search(pattern, " ".join(words))
        finally:
            other.kill()
    assert not detached.stop(home)


def test_a_reused_process_id_is_not_ours() -> None:
    started = detached.process_started(os.getpid())
    assert started is not None
    assert detached.process_started(1) != started
    assert detached.process_started(2**22 + 1) is None


@pytest.fixture
def hanging_up_ends_a_child() -> Iterator[None]:
    """What ``nohup`` has ignored is ignored by all that a test starts."""
    meaning = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, meaning)


@pytest.mark.usefixtures("hanging_up_ends_a_child")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_demo_that_is_ended_leaves_nothing(
    tmp_path: Path, number: signal.Signals, wait_until: Wait, alive: Alive
) -> None:
    demo = subprocess.Popen([CMO, "demo"], env=_environment(tmp_path), stderr=subprocess.PIPE, text=True)
    children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children")
    wait_until(lambda: len(children.read_text().split()) > 1, "two parts have been started")
    pids = [int(pid) for pid in children.read_text().split()]
    demo.send_signal(number)
    demo.communicate()
    assert demo.returncode == (-number if number is signal.SIGKILL else 128 + number)
    wait_until(lambda: not any(alive(pid) for pid in pids), "every part has ended")


def _state(folder: Path) -> detached.State:
    state = detached.Home(folder / "stack").state
    assert state is not None
    return state


def _free_ports() -> list[str]:
    """Free ports even where the well-known ones are free: other tests run beside this one."""
    ports = Ports.choose({}, prefer_defaults=False)
    return [
        word
        for name in Ports.names()
        for word in (f"--{name.replace('_', '-')}-port", str(getattr(ports, name)))
    ]


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "CMO_STATE_DIR": str(folder)}


def _cmo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([CMO, *arguments], env=_environment(folder), capture_output=True, text=True)
