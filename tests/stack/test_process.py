"""A process started here never outlives its purpose, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from cmo_stack.process import ManagedProcess, ProcessFailedError

if TYPE_CHECKING:
    from pathlib import Path

Wait = Callable[[Callable[[], bool], str], None]
Alive = Callable[[int], bool]

SLEEPER = [sys.executable, "-c", "import signal; signal.pause()"]


def test_a_process_that_ends_early_shows_the_end_of_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('the reason'); raise SystemExit(1)"]
    process = ManagedProcess("example", command, log_path=tmp_path / "log", ready=lambda: False)
    with pytest.raises(ProcessFailedError, match=r"(?s)example ended before it was ready.*the reason"):
        process.start()
    assert not process.running


def test_one_that_is_not_ready_in_time_is_stopped(tmp_path: Path) -> None:
    process = ManagedProcess(
        "example", SLEEPER, log_path=tmp_path / "log", ready=lambda: False, ready_timeout_seconds=0.1
    )
    with pytest.raises(ProcessFailedError, match="was not ready after"):
        process.start()
    assert not process.running


def test_one_that_ignores_sigterm_is_killed_with_its_children(
    tmp_path: Path, wait_until: Wait, alive: Alive
) -> None:
    note = tmp_path / "child"
    program = (
        "import signal, subprocess, sys, pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "sleeper = 'import signal; signal.signal(15, 1); signal.pause()';"
        "child = subprocess.Popen([sys.executable, '-c', sleeper]);"
        f"pathlib.Path({str(note)!r}).write_text(str(child.pid)); signal.pause()"
    )
    process = ManagedProcess(
        "stubborn",
        [sys.executable, "-c", program],
        log_path=tmp_path / "log",
        ready=lambda: note.exists() and bool(note.read_text()),
    )
    with process:
        child = int(note.read_text())
        process.stop(grace_seconds=0.1)
    wait_until(lambda: not alive(child), "the child has ended")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_the_one_that_started_it(
    tmp_path: Path, number: signal.Signals, wait_until: Wait, alive: Alive
) -> None:
    """No ``finally`` runs after SIGKILL: the kernel has to do it."""
    note = tmp_path / "child"
    program = f"""
import pathlib, signal, sys
from cmo_stack.process import ManagedProcess
log = pathlib.Path({str(tmp_path / "log")!r})
process = ManagedProcess("server", {SLEEPER!r}, log_path=log, ready=lambda: True).start()
pathlib.Path({str(note)!r}).write_text(str(process.pid))
signal.pause()
"""
    parent = subprocess.Popen([sys.executable, "-c", program])
    try:
        wait_until(lambda: note.exists() and bool(note.read_text()), "the server has started")
        child = int(note.read_text())
        assert alive(child)
        os.kill(parent.pid, number)
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not alive(child), "the server has ended")
