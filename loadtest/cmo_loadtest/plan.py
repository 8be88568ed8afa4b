"""The plan of a run: who asks what, when, under which ids. Made before Locust starts, followed by it.

Locust runs in a process of its own and is told everything by this plan, as JSON; the runner then holds the
recorded operations against the same plan, so an operation that is missing, doubled or unknown is noticed.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from cmo_loadtest.questions import asked
from cmo_loadtest.schedule import schedule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cmo_loadtest.scenarios import Scenario

PLAN_PATH_VARIABLE: Final = "CMO_LOADTEST_PLAN"
"""Environment variable by which Locust is told where its plan lies."""

ANSWER_TIMEOUT_SECONDS: Final = 120.0
"""How long a user waits for an answer. Longer than any deadline of the service: its time-outs are its own."""


@dataclass(frozen=True)
class PlannedOperation:
    """One question to ask; ``offset_seconds`` is its intended start after the scenario's."""

    operation: str
    offset_seconds: float
    question: str


@dataclass(frozen=True)
class PlannedUser:
    """One user: its session id in this run, and its operations in the order in which it asks them."""

    user: str
    session: str
    operations: tuple[PlannedOperation, ...]


@dataclass(frozen=True)
class PlannedScenario:
    """One scenario's users."""

    name: str
    users: tuple[PlannedUser, ...]

    @property
    def operations(self) -> int:
        """Operations of all users."""
        return sum(len(user.operations) for user in self.users)


@dataclass(frozen=True)
class Plan:
    """A whole run: scenarios back to back against one target.

    ``parent`` is the process that Locust must not outlive; ``results_path`` is where it writes operations.
    """

    target: str
    scenarios: tuple[PlannedScenario, ...]
    results_path: str
    parent: int
    answer_timeout_seconds: float = ANSWER_TIMEOUT_SECONDS

    @property
    def users(self) -> int:
        """Users of all scenarios: nobody plays in two."""
        return sum(len(scenario.users) for scenario in self.scenarios)

    @property
    def operations(self) -> int:
        """Operations of all scenarios."""
        return sum(scenario.operations for scenario in self.scenarios)

    def to_json(self) -> str:
        """The plan as Locust reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what ``to_json`` wrote."""
        content: dict[str, Any] = json.loads(text)
        content["scenarios"] = tuple(_scenario(entry) for entry in content["scenarios"])
        return cls(**content)


def plan_scenarios(scenarios: Sequence[Scenario], seed: int) -> tuple[PlannedScenario, ...]:
    """Plan scenarios; times and questions follow from the seed, ids are new every time.

    Session ids are random because the service joins what has the same session, and two runs must not join.
    """
    run = secrets.token_hex(8)
    return tuple(_plan_scenario(scenario, seed, run) for scenario in scenarios)


def _plan_scenario(scenario: Scenario, seed: int, run: str) -> PlannedScenario:
    offsets = schedule(scenario, seed)
    due = sorted((offset, user, turn) for user, own in enumerate(offsets) for turn, offset in enumerate(own))
    question_of = {
        (user, turn): question for (_, user, turn), question in zip(due, asked(scenario, seed), strict=True)
    }
    return PlannedScenario(
        scenario.name,
        tuple(
            PlannedUser(
                user=f"{scenario.name}-{user:03d}",
                session=f"{run}-{scenario.name}-{user:03d}",
                operations=tuple(
                    PlannedOperation(
                        f"{run}-{scenario.name}-{user:03d}-{turn:02d}", offset, question_of[user, turn]
                    )
                    for turn, offset in enumerate(own)
                ),
            )
            for user, own in enumerate(offsets)
        ),
    )


def _scenario(entry: dict[str, Any]) -> PlannedScenario:
    return PlannedScenario(entry["name"], tuple(_user(user) for user in entry["users"]))


def _user(entry: dict[str, Any]) -> PlannedUser:
    operations = tuple(PlannedOperation(**operation) for operation in entry["operations"])
    return PlannedUser(entry["user"], entry["session"], operations)
