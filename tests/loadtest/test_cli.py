"""The commands as people call them: results on stdout, all else on stderr, and nothing left behind."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from cmo_loadtest.cli import loadtest
from cmo_loadtest.runner import LOG_FILE, PARTIAL_OPERATIONS_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.loadtest.conftest import Service, StartService

DEADLINE_SECONDS = 60.0
COMMAND = [sys.executable, "-c", "from cmo_loadtest.cli import loadtest; loadtest()", "run", "clinical_rush"]


def _arguments(service: Service, output: Path, scale: str) -> list[str]:
    return ["--target", service.url, "--output", str(output), "--time-scale", scale]


@pytest.fixture
def run_in_progress(
    start_service: StartService, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[str], int, Path]]:
    """A run that is in the middle of a scenario: its process, Locust's process id, its output directory."""
    service = start_service()
    process = subprocess.Popen(
        [*COMMAND, *_arguments(service, tmp_path / "runs", "5")],
        env={**os.environ, "TMPDIR": str(tmp_path)},  # a killed run cannot clean up
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _wait_until(lambda: len(service.seen()) >= 50)
        (locust,) = _children(process.pid)
        yield process, locust, tmp_path / "runs"
    finally:
        process.kill()
        process.communicate()


def test_a_run_prints_the_path_of_its_manifest_and_nothing_else(
    start_service: StartService, tmp_path: Path
) -> None:
    service = start_service({"every": 100, "status": 500, "body": "oops"})
    done = subprocess.run(
        [*COMMAND, *_arguments(service, tmp_path, "0.05")], capture_output=True, text=True, check=True
    )
    manifest = Path(done.stdout.removesuffix("\n"))
    content = json.loads(manifest.read_text())
    assert content["run_id"] == manifest.parent.name
    assert manifest.parent.parent == tmp_path
    assert {path.name for path in manifest.parent.iterdir()} == {
        "manifest.json",
        "operations.jsonl",
        LOG_FILE,
    }
    assert done.stderr == "clinical_rush   300/300 operations, 3 failed\n"


def test_quiet_shows_no_progress(start_service: StartService, tmp_path: Path) -> None:
    command = [*COMMAND, "--quiet", *_arguments(start_service(), tmp_path, "0.05")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.endswith("manifest.json\n")


def test_a_terminal_gets_bars(start_service: StartService, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [*COMMAND, *_arguments(start_service(), tmp_path, "0.05")]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=theirs, check=True)
    os.close(theirs)
    shown = _read_all(ours)
    assert f"[{'-' * 24}] clinical_rush     0/300" in shown
    assert f"\x1b[1A\x1b[2K[{'#' * 24}] clinical_rush   300/300 operations, 0 failed" in shown


def test_interrupted_it_ends_locust_and_leaves_no_manifest(
    run_in_progress: tuple[subprocess.Popen[str], int, Path],
) -> None:
    process, locust, output = run_in_progress
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=DEADLINE_SECONDS)
    assert _is_gone(locust)
    assert process.returncode != 0
    assert stdout == ""
    assert "Traceback" not in stderr
    (directory,) = output.iterdir()
    assert {path.name for path in directory.iterdir()} == {PARTIAL_OPERATIONS_FILE, LOG_FILE}


def test_killed_it_does_not_leave_locust_behind(
    run_in_progress: tuple[subprocess.Popen[str], int, Path],
) -> None:
    process, locust, output = run_in_progress
    process.kill()
    process.communicate(timeout=DEADLINE_SECONDS)
    _wait_until(lambda: _is_gone(locust))
    assert not list(output.glob("*/manifest.json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "clinical_rash"], "clinical_rash"),
        (["run", "clinical_rush", "clinical_rush"], "clinical_rush is named twice"),
        (["run", "--target", "127.0.0.1:8000"], "is no base URL; expected one like http://127.0.0.1:8000"),
        (["run", "--target", "ftp://127.0.0.1"], "is no base URL"),
        (["run", "--target", "http://127.0.0.1:99999"], "is no base URL"),
        (["run", "--target", "http://me:secret@127.0.0.1"], "credentials in the URL"),
        (["run", "--time-scale", "0"], "--time-scale"),
        (["run", "--seed", "one"], "--seed"),
        (["plan", "--users", "9"], "--users"),
    ],
)
def test_wrong_usage_says_what_is_wrong(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(loadtest, arguments)
    assert result.exit_code == 2  # click's own; the entry point makes it 3
    assert message in result.stderr
    assert result.stdout == ""


def test_the_plan_is_shown_without_sending_anything() -> None:
    result = CliRunner().invoke(loadtest, ["plan", "rag_intensive", "--seed", "4"])
    assert result.exit_code == 0
    assert "rag_intensive        sustained     60        480      18      132" in result.stdout
    assert "academic" not in result.stdout


def _children(parent: int) -> list[int]:
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def _is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has ended too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return True


def _read_all(descriptor: int) -> str:
    chunks = []
    try:
        while chunk := os.read(descriptor, 65536):
            chunks.append(chunk)
    except OSError:  # the other end of a terminal is closed
        pass
    os.close(descriptor)
    return b"".join(chunks).decode()


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(("state", "folder"), [({}, ".cmo"), ({"CMO_STATE_DIR": "kept"}, "kept")])
def test_runs_are_kept_in_the_state_directory(
    state: dict[str, str], folder: str, start_service: StartService, tmp_path: Path
) -> None:
    command = [*COMMAND, "--quiet", "--target", start_service().url, "--time-scale", "0.05"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CMO_")} | state
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert (tmp_path / done.stdout.strip()).parents[1] == tmp_path / folder / "runs"
