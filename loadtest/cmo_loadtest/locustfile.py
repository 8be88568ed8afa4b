"""What Locust runs: every user of the plan plays its part, and every operation is recorded once.

Locust decides nothing here. It spawns as many users as the plan has, each takes one seat, and a conductor
lets the users of one scenario in when those of the scenario before have finished. A user is a closed loop:
a late answer delays its next question, which is then asked at once; what was intended is recorded beside it.

Nothing but the runner of this package starts this file: it needs a plan in the environment.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import gevent
from gevent.event import Event
from locust import FastHttpUser, events, task
from locust.exception import StopUser

from cmo_loadtest.answers import Answer, read_answer, record_fields, transport_failure
from cmo_loadtest.plan import PLAN_PATH_VARIABLE, Plan, PlannedOperation, PlannedScenario

if TYPE_CHECKING:
    from locust.env import Environment

_PR_SET_PDEATHSIG: Final = 1
_EXIT_FAULT: Final = 70

_log = logging.getLogger(__name__)
_plan = Plan.from_json(Path(os.environ[PLAN_PATH_VARIABLE]).read_text(encoding="utf-8"))


class Stage:
    """One scenario under way: its users wait for ``opened``, and the conductor for ``empty``."""

    def __init__(self, scenario: PlannedScenario) -> None:
        self.scenario = scenario
        self.started_at = 0.0
        self.opened = Event()
        self.empty = Event()
        self._playing = len(scenario.users)

    def open(self) -> None:
        """Let the users in; the scenario's time begins."""
        self.started_at = time.time()
        self.opened.set()

    def leave(self) -> None:
        """One user has finished all its operations."""
        self._playing -= 1
        if not self._playing:
            self.empty.set()


_stages = [Stage(scenario) for scenario in _plan.scenarios]
_seats = iter([(stage, user) for stage in _stages for user in stage.scenario.users])
# Line buffered: what the runner shows as progress is what has happened.
_results = Path(_plan.results_path).open("a", buffering=1, encoding="utf-8")  # noqa: SIM115 - open until the end


class PlannedSession(FastHttpUser):
    """One user of the plan, from its first question to its last, over one connection kept alive."""

    host = _plan.target
    network_timeout = _plan.answer_timeout_seconds
    connection_timeout = _plan.answer_timeout_seconds
    max_retries = 0
    max_redirects = 0
    insecure = False

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.stage, self.planned = next(_seats)

    def on_start(self) -> None:
        """Make the client plain: no cookies, which cost processor time, and every status is an answer.

        By default the client takes 4xx and 5xx for exceptions, and cuts their bodies off.
        """
        self.client.client.cookiejar = None
        self.client.client.valid_response_codes = frozenset(range(100, 600))  # type: ignore[misc]  # a ClassVar

    @task
    def play(self) -> None:
        """Ask all questions, then leave."""
        self.stage.opened.wait()
        try:
            for operation in self.planned.operations:
                self._ask(operation)
        except Exception:  # noqa: BLE001 - whatever it is, it is logged
            # A fault of our own ends the whole run, because Locust would begin the task again.
            _log.exception("A user failed by a fault of the load test.")
            self.environment.process_exit_code = _EXIT_FAULT
            _quit(self.environment)
            raise StopUser from None
        self.client.client.close()
        self.stage.leave()
        raise StopUser

    def _ask(self, operation: PlannedOperation) -> None:
        intended_start = self.stage.started_at + operation.offset_seconds
        gevent.sleep(max(0.0, intended_start - time.time()))
        body = json.dumps({"question": operation.question})
        headers = self._headers(operation)
        start, clock = time.time(), time.perf_counter()
        answer = self._post(body, headers)
        latency, end = time.perf_counter() - clock, time.time()
        record = {
            "operation": operation.operation,
            "scenario": self.stage.scenario.name,
            "user": self.planned.user,
            "intended_start": intended_start,
            "start": start,
            "end": end,
            "latency_seconds": latency,
            **record_fields(answer),
        }
        _results.write(json.dumps(record) + "\n")

    def _headers(self, operation: PlannedOperation) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "X-CMO-Scenario": self.stage.scenario.name,
            "X-CMO-Session": self.planned.session,
            "X-CMO-Operation": operation.operation,
        }
        if operation is self.planned.operations[-1]:
            headers["X-CMO-Session-End"] = "1"
        return headers

    def _post(self, body: str, headers: dict[str, str]) -> Answer:
        # Whatever the client raises while it asks is how the operation ended, never a reason to stop.
        try:
            response = self.client.post(
                "/query", data=body, headers=headers, catch_response=True, allow_redirects=False
            )
            cause: BaseException | None = response.request_meta["exception"]
            if cause is None:
                return read_answer(response.status_code, response.content)
        except Exception as error:  # noqa: BLE001 - see above
            cause = error
        return transport_failure(getattr(cause, "original", None) or cause)


def _conduct(environment: Environment) -> None:
    """Drive the scenarios back to back, each as soon as the one before has no user left."""
    if next(_seats, None) is not None:
        _log.error("Locust spawned fewer users than planned.")
        environment.process_exit_code = _EXIT_FAULT
        _quit(environment)
        return
    for stage in _stages:
        stage.open()
        stage.empty.wait()
    _results.close()
    _quit(environment)


def _quit(environment: Environment) -> None:
    # In a greenlet of its own: users who fail at the same moment would stop each other while quitting.
    if environment.runner is not None:
        gevent.spawn(environment.runner.quit)


@events.init.add_listener  # type: ignore[untyped-decorator]  # events have no types
def _prepare(environment: Environment, **_: Any) -> None:
    """Die with the runner, whose ``finally`` cannot run when it is killed; begin when all are seated.

    The kernel sends the signal when the thread that started us ends; that thread waits for us.
    """
    logging.getLogger("locust.stats_logger").setLevel(logging.WARNING)  # its tables would be empty
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != _plan.parent:
        os._exit(_EXIT_FAULT)
    environment.events.spawning_complete.add_listener(  # type: ignore[no-untyped-call]  # as above
        lambda **_: gevent.spawn(_conduct, environment)
    )
