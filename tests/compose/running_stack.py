"""The stack of docker-compose.yml in an engine: started, asked, broken, restarted and taken down."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from .telling import NotProvedError, require

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .private_engine import Engine

ROOT: Final = Path(__file__).resolve().parents[2]
_POLL_SECONDS: Final = 0.3
_WAIT_SECONDS: Final = 180
_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Done:
    """What a command of Compose has ended with."""

    status: int
    output: str
    errors: str


@dataclass(frozen=True)
class ComposedStack:
    """One project of Compose.

    Attributes:
        engine: where it runs.
        project: its name, which is in the names of its containers, volumes and networks.
        settings: variables of .env.example.
    """

    engine: Engine
    project: str
    settings: Mapping[str, str] = field(default_factory=dict)

    def compose(self, *arguments: str, profiles: Sequence[str] = (), may_fail: bool = False) -> Done:
        """Run Compose.

        Raises:
            NotProvedError: it fails, and may not.
        """
        chosen = [word for profile in profiles for word in ("--profile", profile)]
        files = ["--project-directory", str(ROOT), "--project-name", self.project, "--ansi", "never"]
        command = [*self.engine.compose_command, *files, *chosen, *arguments]
        environment = {**self.engine.environment, **self.settings}
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment, check=False
        )
        if done.returncode != 0 and not may_fail:
            end = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
            raise NotProvedError(
                f"`docker compose {' '.join(arguments)}` ended with {done.returncode}:\n{end}"
            )
        return Done(done.returncode, done.stdout, done.stderr)

    def up(self, services: Sequence[str], profiles: Sequence[str] = ()) -> None:
        """Start services and what they depend on, and wait until all are healthy."""
        arguments = [
            "up",
            "--detach",
            "--no-build",
            "--pull=never",
            "--wait",
            f"--wait-timeout={_WAIT_SECONDS}",
        ]
        if self.engine.has_registry:
            arguments.remove("--pull=never")
        done = self.compose(*arguments, *services, profiles=profiles, may_fail=True)
        if done.status != 0:
            raise NotProvedError(f"The stack does not come up:\n{done.errors[-2000:]}\n{self.unwell()}")

    def unwell(self) -> str:
        """The containers that are not healthy, and the last they have said."""
        listed = self.compose("ps", "--all", "--format", "json", may_fail=True).output
        services = [json.loads(line) for line in listed.splitlines()]
        ill = [
            each for each in services if each["Health"] not in ("healthy", "") or each["State"] != "running"
        ]
        words = []
        for each in ill:
            logs = self.compose("logs", "--tail", "12", "--no-log-prefix", each["Service"], may_fail=True)
            check = self.engine.docker("inspect", "--format", "{{json .State}}", each["ID"])
            words.append(f"{each['Service']}: {each['State']} {each['Health']}\n{logs.output}{check[-800:]}")
        return "\n".join(words)

    def containers(self) -> dict[str, dict[str, Any]]:
        """What the engine knows of each running container, by service."""
        ids = self.compose("ps", "--quiet").output.split()
        inspected = json.loads(self.engine.docker("inspect", *ids)) if ids else []
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in inspected}

    def restart(self, service: str) -> None:
        """Restart a service and wait until it is healthy again."""
        before = self.containers()[service]["State"]["StartedAt"]
        self.compose("restart", "--no-deps", service)

        def healthy() -> bool:
            state = self.containers().get(service, {}).get("State", {})
            return state.get("StartedAt", before) != before and bool(state["Health"]["Status"] == "healthy")

        wait_for(healthy, f"{service} is healthy again after a restart", said=self.unwell)

    def port(self, service: str, port: int) -> int:
        """Where a port of a service is published, which must be on the loopback interface."""
        address = self.compose("port", service, str(port)).output.strip()
        host, _, number = address.rpartition(":")
        require(host == "127.0.0.1", f"{service} is published at 127.0.0.1, not at {address}")
        return int(number)

    def url(self, service: str, port: int) -> str:
        """The address of a service for people on this machine."""
        return f"http://127.0.0.1:{self.port(service, port)}"


def wait_for(
    truth: Callable[[], object], what: str, *, seconds: float = _WAIT_SECONDS, said: Callable[[], str] = str
) -> None:
    """Wait until something is true.

    Raises:
        NotProvedError: it is not, for so long.
    """
    deadline = time.monotonic() + seconds
    while not truth():
        if time.monotonic() > deadline:
            raise NotProvedError(f"Waited {seconds:g} s, and it did not happen: {what}. {said()}")
        time.sleep(_POLL_SECONDS)


def get(url: str, **parameters: str) -> Any:
    """The JSON that a URL answers with; None when it does not answer."""
    query = f"?{urlencode(parameters)}" if parameters else ""
    try:
        with _DIRECT.open(f"{url}{query}", timeout=20) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None


def post(url: str, content: Any, **headers: str) -> Any:
    """What a URL answers to JSON that is posted to it, in JSON, whatever the status; None without answer."""
    request = urllib.request.Request(  # noqa: S310 - our own URL
        url, json.dumps(content).encode(), {"Content-Type": "application/json", **headers}
    )
    try:
        with _DIRECT.open(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error, contextlib.suppress(ValueError):  # a proxy answers in HTML
            return json.load(error)
    except (OSError, ValueError):
        pass
    return None


def value(prometheus_url: str, query: str, **parameters: str) -> float | None:
    """The one value of an instant query; None when there is none."""
    answer = get(f"{prometheus_url}/api/v1/query", query=query, nocache="1", **parameters)
    result = answer["data"]["result"] if answer else []
    return float(result[0]["value"][1]) if result else None
