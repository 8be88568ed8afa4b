"""Drive scenarios against a service: plan, run Locust, check what it recorded, write the manifest.

Locust runs in a process of its own, because it replaces the standard library's sockets and cannot be loaded
into a program that has used them. One process drives all scenarios back to back: it starts once. Whatever
happens, it is gone when ``run_scenarios`` returns or raises, and a manifest is only there when every planned
operation was recorded exactly once.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import os
import secrets
import signal
import site
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO
from urllib.parse import urlsplit

from cmo_loadtest.errors import IncompleteRunError, LoadTestError, LocustMissingError, TargetUnreachableError
from cmo_loadtest.manifest import MANIFEST_FILE, OPERATIONS_FILE, build_manifest, write_atomically
from cmo_loadtest.plan import ANSWER_TIMEOUT_SECONDS, PLAN_PATH_VARIABLE, Plan, plan_scenarios
from cmo_loadtest.progress import Progress
from cmo_loadtest.records import check_complete, read_operations

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cmo_loadtest.scenarios import Scenario

PARTIAL_OPERATIONS_FILE: Final = "operations.partial.jsonl"
"""What a run that did not finish leaves behind, beside Locust's log and no manifest."""

LOG_FILE: Final = "locust.log"

_READY_TIMEOUT_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.2
_GRACE_SECONDS: Final = 2.0
_LOG_TAIL_LINES: Final = 8


@dataclass(frozen=True)
class RunOptions:
    """How to run.

    Args:
        target: base URL of the service.
        output: directory of runs; the run gets a directory of its own in it.
        seed: decides when users ask and what.
        time_scale: multiplies every duration; anything but 1 is a trial, not the requirement.
        answer_timeout_seconds: how long a user waits for an answer.
        progress: where to show progress; ``None`` for nowhere.
    """

    target: str
    output: Path
    seed: int = 1
    time_scale: float = 1.0
    answer_timeout_seconds: float = ANSWER_TIMEOUT_SECONDS
    progress: TextIO | None = None


def run_scenarios(scenarios: Sequence[Scenario], options: RunOptions) -> Path:
    """Drive scenarios back to back and record every operation.

    Returns:
        The path of the run's manifest.

    Raises:
        LocustMissingError: Locust is not installed.
        TargetUnreachableError: the target is not there, or says that it is not ready.
        IncompleteRunError: Locust ended early, or an operation is missing or doubled; there is no manifest.
        LoadTestError: the run could not be made for another reason.
    """
    if importlib.util.find_spec("locust") is None:
        raise LocustMissingError(
            "Locust is missing. Install it, from the folder that holds the checkout, with: "
            "pip install './cmo-observability[loadtest]'"
        )
    check_ready(options.target)
    scaled = [scenario.scaled(options.time_scale) for scenario in scenarios]
    directory = _new_run_directory(options.output)
    results = directory / PARTIAL_OPERATIONS_FILE
    results.touch()
    plan = Plan(
        target=options.target.rstrip("/"),
        scenarios=plan_scenarios(scaled, options.seed),
        results_path=str(results),
        parent=os.getpid(),
        answer_timeout_seconds=options.answer_timeout_seconds,
    )
    _run_locust(plan, directory, options.progress)
    operations = read_operations(results)
    check_complete(plan, operations)
    results.rename(directory / OPERATIONS_FILE)
    manifest = directory / MANIFEST_FILE
    write_atomically(manifest, build_manifest(directory.name, plan.target, scaled, operations))
    return manifest


def check_ready(target: str) -> None:
    """Ask the target whether it is ready, before any load.

    Raises:
        TargetUnreachableError: it is not there, or says that it is not ready.
    """
    url = f"{target.rstrip('/')}/readyz"
    # Locust connects directly too: a proxy in the environment would make the two see different services.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=_READY_TIMEOUT_SECONDS):
            return
    except urllib.error.HTTPError as error:
        error.close()
        raise TargetUnreachableError(
            f"{url} answers with status {error.code}: the service there is not ready to be tested."
        ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        host = urlsplit(target).netloc
        raise TargetUnreachableError(
            f"No service answers at {host} ({reason}). Start it, or name another with --target URL."
        ) from error


def _new_run_directory(output: Path) -> Path:
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    directory = output.resolve() / name
    try:
        directory.mkdir(parents=True)
    except OSError as error:
        raise LoadTestError(f"{directory} cannot be created: {error.strerror}.") from error
    return directory


def _run_locust(plan: Plan, directory: Path, stream: TextIO | None) -> None:
    with tempfile.TemporaryDirectory(prefix="cmo-loadtest-") as scratch:
        plan_path = Path(scratch) / "plan.json"
        plan_path.write_text(plan.to_json(), encoding="utf-8")
        with _locust(plan, plan_path, directory / LOG_FILE) as process:
            _follow(process, Progress(plan, stream), Path(plan.results_path))
            status = process.returncode
    if status != 0:
        raise IncompleteRunError(
            f"Locust ended early ({_describe(status)}); the run is incomplete and has no manifest. "
            f"What was recorded until then is in {plan.results_path}.{_log_tail(directory / LOG_FILE)}"
        )


@contextlib.contextmanager
def _locust(plan: Plan, plan_path: Path, log_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Locust under way; it is gone when the block is left, in whatever way."""
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            _command(plan.users),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=plan_path.parent,
            env=_environment(plan_path),
            start_new_session=True,  # Ctrl-C reaches us alone, and we end it
        )
    try:
        yield process
    finally:
        _end(process)


def _command(users: int) -> list[str]:
    locustfile = Path(__file__).with_name("locustfile.py")
    options = ["--headless", "--only-summary", "--exit-code-on-error", "0", "--loglevel", "WARNING"]
    load = ["--users", str(users), "--spawn-rate", str(users)]
    return [sys.executable, "-m", "locust", "-f", str(locustfile), *options, *load]


def _environment(plan_path: Path) -> dict[str, str]:
    """Our environment without what would change Locust's settings: its variables, and files at home.

    Its log is not buffered, so that it is whole when Locust is killed, and a full disk is met while it runs.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    home = {"HOME": str(plan_path.parent), "PYTHONUSERBASE": site.getuserbase(), "PYTHONUNBUFFERED": "1"}
    return {**kept, **home, PLAN_PATH_VARIABLE: str(plan_path)}


def _follow(process: subprocess.Popen[bytes], progress: Progress, results: Path) -> None:
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_SECONDS)
        progress.follow(results)
        if process.returncode is not None:
            return


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_SECONDS)
    process.kill()
    process.wait()


def _describe(status: int) -> str:
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    return f"exit status {status}"


def _log_tail(log_path: Path) -> str:
    lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:]
    if not lines:
        return ""
    return f" The end of {log_path}:\n" + "\n".join(f"  {line}" for line in lines)
