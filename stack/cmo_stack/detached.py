"""A stack that outlives the command that started it: a supervisor process owns it until it is told to stop.

The parts are the supervisor's children and the kernel ends them with it, so a crash of anything leaves
nothing behind. The supervisor holds a lock as long as it lives; whether a stack is running is whether the
lock is held, not what a file says. The state file only tells people and commands about it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from cmo_stack.exit_status import ExitStatus, explained
from cmo_stack.ports import Ports
from cmo_stack.signals import EndedBySignal, unwinding
from cmo_stack.stack import Stack
from cmo_stack.topology import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCHEMA: Final = "cmo.stack/v1"
_POLL_SECONDS: Final = 0.1
_STOP_SECONDS: Final = 60.0
_UNKNOWN_SECONDS: Final = 10.0
_ANOTHER_IS_RUNNING: Final = 75


class StackFailedError(Exception):
    """The stack did not start; the message says why."""

    def __init__(self, message: str, exit_status: int = ExitStatus.FAULT) -> None:
        super().__init__(message)
        self.exit_status = exit_status


@dataclass(frozen=True)
class RunningPart:
    """A part that has been started, as the state file has it."""

    name: str
    version: str
    address: str
    pid: int


@dataclass(frozen=True)
class State:
    """What the supervisor says about its stack."""

    phase: str
    pid: int
    started: int
    ports: Ports
    profile: str
    scrape_interval_seconds: int
    parts: tuple[RunningPart, ...] = ()
    message: str = ""
    exit_status: int = 0
    seed: int | None = None
    """None where a release that did not note it has started the stack."""
    schema: str = field(default=SCHEMA)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what ``to_json`` has written.

        Raises:
            ValueError: it is something else.
        """
        content: dict[str, Any] = json.loads(text)
        if content.get("schema") != SCHEMA:
            raise ValueError(f"expected schema {SCHEMA!r}, found {content.get('schema')!r}")
        content["ports"] = Ports(**content["ports"])
        content["parts"] = tuple(RunningPart(**part) for part in content["parts"])
        return cls(**content)

    def to_json(self) -> str:
        """The state as text."""
        return json.dumps(asdict(self), indent=2) + "\n"


@dataclass(frozen=True)
class Home:
    """The folder of the detached stack."""

    directory: Path

    @property
    def lock(self) -> Path:
        """Held by the supervisor as long as it lives."""
        return self.directory / "lock"

    @property
    def log(self) -> Path:
        """What the supervisor prints."""
        return self.directory / "logs/supervisor.log"

    @property
    def state(self) -> State | None:
        """What the supervisor has last said; None when there is nothing readable."""
        try:
            return State.from_json((self.directory / "state.json").read_text())
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, state: State) -> None:
        """Replace the state file at once."""
        unfinished = self.directory / "state.json.new"
        unfinished.write_text(state.to_json())
        unfinished.replace(self.directory / "state.json")

    def forget(self) -> None:
        """Remove the state file: the stack is gone."""
        (self.directory / "state.json").unlink(missing_ok=True)

    def running(self) -> bool:
        """Whether a supervisor lives."""
        with _try_lock(self.lock) as free:
            return not free


def start(settings: Settings, home: Home, tell: Callable[[str], None]) -> State:
    """Start a supervisor and wait until its stack serves.

    Raises:
        StackFailedError: it does not, or another stack is running in this folder.
    """
    home.log.parent.mkdir(parents=True, exist_ok=True)
    with home.log.open("ab") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "cmo_stack.detached", "--settings", _to_json(settings)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        return _wait_until_running(supervisor, home, tell)
    except BaseException:
        supervisor.terminate()
        supervisor.wait()
        raise


def stop(home: Home) -> bool:
    """Stop the running stack and wait until all of it is gone; False when none was running.

    Raises:
        StackFailedError: a stack is running, and nothing readable says which process it is.
    """
    if not home.running():
        return False
    asked: State | None = None
    began = time.monotonic()
    while home.running() or (asked is not None and _alive(asked)):
        state = asked or home.state
        if state is not None and _alive(state):
            if time.monotonic() > began + _STOP_SECONDS:
                _signal(state, signal.SIGKILL)
            elif asked is None:
                _signal(state, signal.SIGTERM)
            asked = state
        elif asked is None and time.monotonic() > began + _UNKNOWN_SECONDS:
            raise StackFailedError(_unknown(home))
        time.sleep(_POLL_SECONDS)
    return True


def _alive(state: State) -> bool:
    return process_started(state.pid) == state.started


def _signal(state: State, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(state.pid, number)


def process_started(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is no such process.

    A process id alone may have been given to another process since.
    """
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if after_name[0] == "Z" else int(after_name[19])


def supervise(settings: Settings, home: Home) -> int:
    """Own a stack until a signal asks to end; not 0 if it could not be started."""
    with _try_lock(home.lock) as free:
        if not free:
            return _ANOTHER_IS_RUNNING
        state = State(
            phase="starting",
            pid=os.getpid(),
            started=process_started(os.getpid()) or 0,
            ports=settings.ports,
            profile=settings.profile,
            scrape_interval_seconds=settings.scrape_interval_seconds,
            seed=settings.seed,
        )
        home.write(state)
        try:
            with unwinding():
                _hold(settings, home, state)
        except EndedBySignal:
            home.forget()
        except Exception as error:  # noqa: BLE001 - whoever waits for the stack is told of any
            status = explained(error)
            message = str(error) if status else f"{type(error).__name__}: {error}"
            home.write(
                replace(state, phase="failed", message=message, exit_status=status or ExitStatus.FAULT)
            )
            traceback.print_exception(error)
            return status or ExitStatus.FAULT
        return 0


def _hold(settings: Settings, home: Home, state: State) -> None:
    def note(_: str) -> None:
        home.write(replace(state, parts=_running_parts(stack)))

    stack = Stack(settings, note)
    with stack:
        home.write(replace(state, phase="running", parts=_running_parts(stack)))
        threading.Event().wait()


def _running_parts(stack: Stack) -> tuple[RunningPart, ...]:
    return tuple(
        RunningPart(part.name, part.version, part.address, stack.process(part.name).pid)
        for part in stack.parts
        if stack.has(part.name)
    )


def _wait_until_running(
    supervisor: subprocess.Popen[bytes], home: Home, tell: Callable[[str], None]
) -> State:
    told = 0
    while True:
        ended = supervisor.poll() is not None
        state = home.state
        if state is not None and state.pid == supervisor.pid:
            for part in state.parts[told:]:
                tell(f"{part.name:<13} {part.address}  ({part.version})")
            told = len(state.parts)
            if state.phase == "running" and not ended:
                return state
            if state.phase == "failed":
                raise StackFailedError(state.message, state.exit_status)
        if ended:
            raise StackFailedError(_why_ended(supervisor.returncode, home))
        time.sleep(_POLL_SECONDS)


def _why_ended(status: int, home: Home) -> str:
    if status == _ANOTHER_IS_RUNNING:
        return "Another `cmo stack up` has just started a stack here. See `cmo stack status`."
    return f"The stack was stopped before it served (status {status}). See {home.log}."


def _unknown(home: Home) -> str:
    return (
        f"A stack is running, and {home.directory / 'state.json'} does not say which process owns it: "
        f"another release may have written it. End it with: pkill -f 'cmo_stack.detached.*{home.directory}'"
    )


@contextlib.contextmanager
def _try_lock(path: Path) -> Iterator[bool]:
    """Hold a lock if nobody has it; the kernel frees it when we die."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _to_json(settings: Settings) -> str:
    return json.dumps(asdict(settings), default=str)


def _from_json(text: str) -> Settings:
    content = json.loads(text)
    paths = {name: Path(content[name]) for name in ("directory", "index_directory")}
    return Settings(**{**content, **paths, "ports": Ports(**content["ports"])})


def main() -> int:
    """Supervise one stack: what ``cmo stack up`` starts."""
    parser = argparse.ArgumentParser(prog="python -m cmo_stack.detached")
    parser.add_argument("--settings", required=True, type=_from_json)
    settings: Settings = parser.parse_args().settings
    return supervise(settings, Home(settings.directory))


if __name__ == "__main__":
    sys.exit(main())
