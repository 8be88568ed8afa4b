"""Runs against a real service: what is recorded is what the service saw, to the operation."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import threading
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cmo_loadtest import runner
from cmo_loadtest.errors import IncompleteRunError, LoadTestError, TargetUnreachableError
from cmo_loadtest.records import Operation, read_operations
from cmo_loadtest.runner import LOG_FILE, PARTIAL_OPERATIONS_FILE, RunOptions, run_scenarios
from cmo_loadtest.scenarios import SCENARIOS, quotas
from cmo_stack.free_ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.loadtest.conftest import Service, StartService

RUSH = SCENARIOS["clinical_rush"]


def _run(
    service: Service, output: Path, *names: str, scale: float = 0.05, **options: Any
) -> tuple[dict[str, Any], list[Operation]]:
    scenarios = [SCENARIOS[name] for name in names or SCENARIOS]
    manifest_path = run_scenarios(
        scenarios, RunOptions(target=service.url, output=output, time_scale=scale, **options)
    )
    operations = read_operations(manifest_path.with_name("operations.jsonl"))
    return json.loads(manifest_path.read_text()), list(operations)


def _of(operations: list[Operation], scenario: str) -> list[Operation]:
    return [operation for operation in operations if operation.scenario == scenario]


@pytest.fixture(scope="module")
def whole_run(
    tmp_path_factory: pytest.TempPathFactory, start_module_service: StartService
) -> tuple[Service, dict[str, Any], list[Operation]]:
    """All four scenarios, once, against a service that fails in several ways."""
    service = start_module_service(
        {"every": 13, "cut": "reset"},
        {"every": 11, "trail": {"outcome": "timeout", "source": None, "cache": "miss"}, "status": 504},
        {"every": 7, "trail": {"outcome": "error", "source": "default", "cache": "miss"}},
    )
    return service, *_run(service, tmp_path_factory.mktemp("runs"))


WholeRun = tuple["Service", dict[str, Any], list[Operation]]


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_every_user_asks_its_quota_in_one_session_that_ends_once(whole_run: WholeRun, scenario: Any) -> None:
    service, _, _ = whole_run
    sessions: dict[str, list[dict[str, str]]] = defaultdict(list)
    for entry in service.seen(scenario.name):
        sessions[entry["headers"]["x-cmo-session"]].append(entry["headers"])
    assert len(sessions) == scenario.users
    assert Counter(map(len, sessions.values())) == Counter(quotas(scenario.operations, scenario.users))
    for requests in sessions.values():
        ends = [headers.get("x-cmo-session-end") for headers in requests]
        assert ends == [None] * (len(requests) - 1) + ["1"]


def test_no_session_is_used_by_two_scenarios(whole_run: WholeRun) -> None:
    service, _, _ = whole_run
    used = [{e["headers"]["x-cmo-session"] for e in service.seen(name)} for name in SCENARIOS]
    assert len(set.union(*used)) == sum(map(len, used)) == 250


def test_the_record_is_what_the_service_saw(whole_run: WholeRun) -> None:
    service, manifest, operations = whole_run
    seen = {entry["headers"]["x-cmo-operation"]: entry for entry in service.seen()}
    assert len(seen) == len(service.seen()) == len(operations) == 1820
    for operation in operations:
        entry = seen[operation.operation]
        assert entry["headers"]["x-cmo-scenario"] == operation.scenario
        assert operation.start <= entry["at"] <= operation.end
        if entry["step"].get("cut"):
            assert (operation.outcome, operation.http_status) == ("error", None)
            assert operation.error
        else:
            trail = entry["step"].get("trail", {})
            assert operation.outcome == trail.get("outcome", "success")
            assert operation.source == trail.get("source", "cache")
            assert operation.http_status == entry["step"].get("status", 200)
            assert operation.error == ""
    truth = manifest["ground_truth"]["scenarios"]
    for name in SCENARIOS:
        assert truth[name]["outcomes"] == dict(Counter(o.outcome for o in _of(operations, name)))
        assert truth[name]["operations"] == SCENARIOS[name].operations


def test_each_question_is_asked_as_often_as_planned(whole_run: WholeRun) -> None:
    service, _, _ = whole_run
    for name, scenario in SCENARIOS.items():
        assert len({entry["body"]["question"] for entry in service.seen(name)}) == scenario.distinct_questions
    assert len({entry["body"]["question"] for entry in service.seen()}) == 280


def test_scenarios_follow_one_another_without_overlap(whole_run: WholeRun) -> None:
    service, manifest, operations = whole_run
    entries = manifest["scenarios"]
    assert [entry["name"] for entry in entries] == list(SCENARIOS)
    for earlier, later in itertools.pairwise(entries):
        assert earlier["end"] <= later["start"]
    for entry in entries:
        own = _of(operations, entry["name"])
        arrived = [seen["at"] for seen in service.seen(entry["name"])]
        assert entry["start"] == min(operation.start for operation in own) <= min(arrived)
        assert entry["end"] == max(operation.end for operation in own) >= max(arrived)
        assert entry["start"] < entry["held_start"] < entry["held_end"] < entry["end"]
    assert (manifest["start"], manifest["end"]) == (entries[0]["start"], entries[-1]["end"])


def test_the_manifest_has_the_agreed_shape(whole_run: WholeRun) -> None:
    _, manifest, _ = whole_run
    assert set(manifest) == {
        "schema", "run_id", "tool", "host", "target", "start", "end", "scenarios", "ground_truth",
    }  # fmt: skip
    assert manifest["schema"] == "cmo.run-manifest/v1"
    assert manifest["scenarios"][2]["offered"] == {
        "users": 80,
        "operations": 640,
        "pattern": "realistic",
        "duration_seconds": pytest.approx(0.6),
    }
    assert set(manifest["ground_truth"]["scenarios"]["rag_intensive"]) == {
        "operations", "outcomes", "sources", "tiers", "within_2s",
    }  # fmt: skip


def test_a_late_answer_delays_the_next_question(start_service: StartService, tmp_path: Path) -> None:
    service = start_service({"latency_seconds": 0.3})
    manifest, operations = _run(service, tmp_path, RUSH.name)
    by_user = defaultdict(list)
    for operation in sorted(operations, key=lambda operation: operation.start):
        by_user[operation.user].append(operation)
    for own in by_user.values():
        for earlier, later in itertools.pairwise(own):
            assert later.start >= earlier.end
            assert later.intended_start > earlier.intended_start
    assert all(operation.latency_seconds >= 0.3 for operation in operations)
    assert all(operation.start >= operation.intended_start for operation in operations)
    # Five answers of 0.3 s each do not fit into the 0.45 s that were meant: the record says so.
    last = max(operations, key=lambda operation: operation.end)
    assert last.start - last.intended_start > 0.5
    assert manifest["scenarios"][0]["end"] - manifest["scenarios"][0]["start"] > 1.5


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ({"every": 10, "cut": "half"}, "Incomplete response"),
        ({"every": 10, "body": "Internal Server Error", "status": 500}, "HTTP 500 without a readable trail"),
        ({"every": 300, "latency_seconds": 60.0}, "timed out"),
    ],
    ids=["half", "500", "silent"],
)
def test_a_failed_request_is_one_error_and_is_not_sent_again(
    start_service: StartService, tmp_path: Path, step: dict[str, Any], error: str
) -> None:
    service = start_service(step)
    manifest, operations = _run(service, tmp_path, RUSH.name, answer_timeout_seconds=3.0)
    expected = RUSH.operations // step["every"]
    failed = [operation for operation in operations if operation.outcome == "error"]
    assert len(failed) == expected
    assert all(error in operation.error for operation in failed)
    assert manifest["ground_truth"]["scenarios"][RUSH.name]["outcomes"] == {
        "error": expected,
        "success": RUSH.operations - expected,
    }
    arrived = Counter(entry["headers"]["x-cmo-operation"] for entry in service.seen())
    assert arrived == Counter(operation.operation for operation in operations)


def test_a_long_answer_of_an_unhappy_status_is_read_to_its_end_over_one_connection_a_user(
    start_service: StartService, tmp_path: Path
) -> None:
    long_fallbacks = [["lightrag", "perplexity", "api_timeout"]] * 300
    service = start_service(
        {"status": 503, "trail": {"outcome": "rejected", "source": None, "fallbacks": long_fallbacks}}
    )
    _, operations = _run(service, tmp_path, RUSH.name)
    assert Counter(operation.outcome for operation in operations) == {"rejected": RUSH.operations}
    assert all(len(operation.fallbacks) == 300 for operation in operations)
    ports = defaultdict(set)
    for entry in service.seen():
        ports[entry["headers"]["x-cmo-session"]].add(entry["port"])
    assert [len(own) for own in ports.values()] == [1] * RUSH.users


def test_a_service_that_dies_gives_errors_and_a_complete_record(
    start_service: StartService, tmp_path: Path
) -> None:
    service = start_service()
    with _when(lambda: len(service.seen()) >= 100, service.process.kill):
        _, operations = _run(service, tmp_path, RUSH.name, scale=0.1)
    assert len(operations) == RUSH.operations
    refused = [operation for operation in operations if "Connection refused" in operation.error]
    assert refused
    assert all(operation.outcome == "error" for operation in refused)


def test_two_runs_at_once_keep_apart(start_service: StartService, tmp_path: Path) -> None:
    service = start_service()
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: _run(service, tmp_path, RUSH.name, scale=0.05), range(2)))
    (first, first_operations), (second, second_operations) = runs
    assert first["run_id"] != second["run_id"]
    names = [{operation.operation for operation in own} for own in (first_operations, second_operations)]
    assert not names[0] & names[1]
    assert names[0] | names[1] == {entry["headers"]["x-cmo-operation"] for entry in service.seen()}
    assert len({entry["headers"]["x-cmo-session"] for entry in service.seen()}) == 2 * RUSH.users


def test_locust_killed_in_mid_run_leaves_no_manifest(start_service: StartService, tmp_path: Path) -> None:
    service = start_service()
    with (
        _when(lambda: len(service.seen()) >= 50, _kill_locust),
        pytest.raises(IncompleteRunError, match="Locust ended early \\(ended by SIGKILL\\)"),
    ):
        _run(service, tmp_path, RUSH.name, scale=1.0)
    (directory,) = tmp_path.glob("*Z-*")
    assert {path.name for path in directory.iterdir()} == {PARTIAL_OPERATIONS_FILE, LOG_FILE}


def test_a_full_disk_ends_the_run_though_many_users_meet_it(
    start_service: StartService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = runner._command
    small = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh"]  # no file may grow
    monkeypatch.setattr(runner, "_command", lambda users: [*small, *command(users)])
    with pytest.raises(IncompleteRunError, match="exit status 70"):
        _run(start_service(), tmp_path, "clinical_rush", scale=1.0)


def test_lost_records_fail_the_run(start_service: StartService, tmp_path: Path) -> None:
    service = start_service()

    def lose_records() -> None:
        (results,) = tmp_path.glob(f"*/{PARTIAL_OPERATIONS_FILE}")
        results.write_text("")

    with (
        _when(lambda: len(service.seen()) >= 100, lose_records),
        pytest.raises(IncompleteRunError, match=r"Of 300 planned operations: \d+ missing"),
    ):
        _run(service, tmp_path, RUSH.name, scale=0.1)
    assert not list(tmp_path.glob("*/manifest.json"))


def test_a_target_that_is_not_there_is_said_before_anything_is_made(tmp_path: Path) -> None:
    target = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(
        TargetUnreachableError, match=r"No service answers at 127.0.0.1:\d+ .*refused"
    ) as raised:
        run_scenarios([RUSH], RunOptions(target=target, output=tmp_path / "runs"))
    assert raised.value.exit_status == 4
    assert not (tmp_path / "runs").exists()


def test_a_target_that_does_not_speak_http_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def babble() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"-ERR unknown command\r\n")

        babbled = pool.submit(babble)
        target = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(TargetUnreachableError, match="No service answers"):
            run_scenarios([RUSH], RunOptions(target=target, output=tmp_path / "runs"))
        babbled.result()


def test_a_target_that_is_not_ready_is_not_loaded(start_service: StartService, tmp_path: Path) -> None:
    service = start_service(ready=503)
    with pytest.raises(TargetUnreachableError, match="status 503: the service there is not ready"):
        run_scenarios([RUSH], RunOptions(target=service.url, output=tmp_path / "runs"))
    assert service.seen() == []


def test_an_output_that_cannot_be_made_is_said(start_service: StartService, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(LoadTestError, match="cannot be created"):
        run_scenarios([RUSH], RunOptions(target=start_service().url, output=blocked / "runs"))


def test_settings_of_locust_in_the_environment_change_nothing(
    start_service: StartService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = f"http://127.0.0.1:{free_port()}"
    (tmp_path / ".locust.conf").write_text(f"host = {elsewhere}\n")
    (tmp_path / "locust.conf").write_text(f"host = {elsewhere}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOCUST_HOST", elsewhere)
    service = start_service()
    _run(service, tmp_path, RUSH.name)
    assert len(service.seen()) == RUSH.operations


class _when:  # noqa: N801 - reads as a statement
    """While the block runs, do something once, as soon as a condition holds."""

    def __init__(self, condition: Callable[[], bool], action: Callable[[], None]) -> None:
        self._condition = condition
        self._action = action
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._left.wait(0.01):
            if self._condition():
                self._action()
                return


def _kill_locust() -> None:
    for process in _children(os.getpid()):
        if b"locustfile.py" in _command_line(process):
            os.kill(process, signal.SIGKILL)


def _children(parent: int) -> list[int]:
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def _command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
