"""``make test-compose``: prove docker-compose.yml with a real engine, in 8 minutes at most on two processors.

How long it took it says at the end, and does not fail when that was longer: the machine may be a slow one.

Where an engine answers, it is used, with the images of its registry. Else, for root on Debian, one of our own
is started, with stand-in images made of Debian packages, and removed again. Else that is said, and the file
alone is checked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cmo_bootstrap import apt
from cmo_bootstrap.work import SetupError
from cmo_stack.free_ports import free_port
from cmo_stack.signals import EndedBySignal, unwinding

from . import private_engine, stand_ins
from .debian_trees import Archives
from .private_engine import Engine, NoEngineError
from .proof import prove
from .running_stack import ROOT, ComposedStack
from .telling import NotProvedError, seconds_so_far, step, tell

_INSIDE = "--inside"
_NO_ENGINE = 75
_ANSWERS_WITHIN_SECONDS = 20.0
_PROMISED_SECONDS = 8 * 60
_PORTS = (
    "CMO_GRAFANA_PORT",
    "CMO_SERVICE_PORT",
    "CMO_PAGER_PORT",
    "CMO_PROMETHEUS_PORT",
    "CMO_ALERTMANAGER_PORT",
    "CMO_PROXY_PORT",
    "CMO_VICTORIA_METRICS_PORT",
    "CMO_VMALERT_PORT",
    "CMO_ALERTMANAGER_A_PORT",
    "CMO_ALERTMANAGER_B_PORT",
)


def main(arguments: list[str]) -> int:
    """Prove it, and say how long it took; 0 when it is proved, or when no engine can run."""
    status = _proved(arguments)
    if arguments[:1] != [_INSIDE]:
        _tell_how_long_it_took()
    return status


def _tell_how_long_it_took() -> None:
    seconds = seconds_so_far()
    tell(f"It took {seconds:.0f} s in all.")
    if seconds > _PROMISED_SECONDS:
        tell(
            f"THAT IS LONGER than the {_PROMISED_SECONDS} s that two processors should need: this machine is "
            "slow or busy, or the proof has grown."
        )


def _proved(arguments: list[str]) -> int:
    try:
        with unwinding():
            if arguments[:1] == [_INSIDE]:
                return _in_own_engine(Path(arguments[1]))
            return _with_an_engine_that_is_here() if _engine_answers() else _with_an_engine_of_our_own()
    except NoEngineError as error:
        return _without_engine(str(error))
    except (NotProvedError, SetupError, OSError, subprocess.SubprocessError) as error:
        # The last two: a full disk, a folder that cannot be written, an index of packages that is away.
        tell(f"NOT PROVED. {error}")
        return 1
    except EndedBySignal as request:
        tell(f"Ended by {request.signal.name}.")
        return request.status


def _engine_answers() -> bool:
    if not shutil.which("docker"):
        return False
    try:
        asked = subprocess.run(["docker", "info"], capture_output=True, timeout=_ANSWERS_WITHIN_SECONDS)
    except subprocess.TimeoutExpired:  # an address that takes connections, and says nothing
        return False
    return asked.returncode == 0


def _with_an_engine_that_is_here() -> int:
    tell("A Docker engine answers here: it is used, with the images of its registry.")
    engine = Engine(("docker",), ("docker", "compose"), dict(os.environ), has_registry=True)
    stack = ComposedStack(engine, f"cmo-proof-{os.getpid()}", {name: str(free_port()) for name in _PORTS})
    prove(stack)
    return 0


def _with_an_engine_of_our_own() -> int:
    machine = apt.distribution()
    if machine is None or machine.family != "debian":
        raise NoEngineError("no Docker engine answers, and one of our own needs Debian's packages")
    if os.geteuid() != 0:
        raise NoEngineError("no Docker engine answers, and only root can start one")
    state = ROOT / ".cmo"
    state.mkdir(exist_ok=True)
    private_engine.remove_what_was_killed(state)
    work = Path(tempfile.mkdtemp(prefix=f"{private_engine.FOLDER}{os.getpid()}-", dir=state))
    try:
        archives = Archives(machine, work / "apt")
        private_engine.prepare_engine(machine, archives, work)
        other_versions = stand_ins.prepare_trees(archives, work)
        shutil.rmtree(work / "apt")
        command = [sys.executable, "-m", "tests.compose.prove", _INSIDE, str(work)]
        status = private_engine.run_in_namespaces(command, work)
    finally:
        shutil.rmtree(work)
        tell("The engine is gone, with its images and its data.")
    if status == _NO_ENGINE:
        raise NoEngineError("Docker's engine does not start here; why is said above")
    if status == 0 and other_versions:
        tell(f"Proved with other versions than are named: {'; '.join(other_versions)}.")
    return status


def _in_own_engine(work: Path) -> int:
    engine = private_engine.engine_in(work)
    try:
        with private_engine.running(engine, work):
            stand_ins.make_images(engine, work)
            prove(ComposedStack(engine, "cmo"))
    except NoEngineError as error:
        tell(str(error))
        return _NO_ENGINE
    return 0


def _without_engine(why: str) -> int:
    """Say why nothing was run; Compose reads the file all the same. Its exit status."""
    tell(f"NO ENGINE, so nothing was run: {why}.")
    status = 0
    with tempfile.TemporaryDirectory(prefix="compose-alone-") as folder:
        compose = _compose_of_this_machine() or _compose_from_a_package(Path(folder))
        if compose:
            options = ("--project-directory", str(ROOT), "--profile", "*", "config", "--quiet")
            with step("`docker compose config` reads the file, with all profiles"):
                status = subprocess.run([*compose, *options], check=False).returncode
    tell("What the file says is checked by the other tests of tests/compose, in `make test`.")
    return 1 if status else 0


def _compose_of_this_machine() -> tuple[str, ...]:
    client = shutil.which("docker")
    if client and subprocess.run([client, "compose", "version"], capture_output=True).returncode == 0:
        return (client, "compose")
    return ()


def _compose_from_a_package(folder: Path) -> tuple[str, ...]:
    machine = apt.distribution()
    if machine is None or machine.family != "debian":
        tell("Compose is not here, and no package of Debian's can be unpacked here either.")
        return ()
    try:
        return private_engine.prepare_compose(Archives(machine, folder / "apt"), folder / "compose")
    except SetupError as error:
        tell(f"Compose is not here, and its package is not to be had: {error}")
        return ()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
