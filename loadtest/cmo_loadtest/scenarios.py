"""The four scenarios of CMO-LIGHTRAG-015, as data.

Users, pattern, operations and duration are those of the validation report and of its revalidation; changing
one of them changes what the requirement is judged on. How often questions repeat is not in the report: it is
chosen here, and ``docs/load-test.md`` says what follows from it for the cache.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

SHARED_QUESTIONS: Final = 24
"""Questions that every scenario asks beside its own: what is asked often is asked by everybody."""


class Pattern(StrEnum):
    """When users ask. A pattern never says how many users there are: all of them stay to the end."""

    SUSTAINED = "sustained"
    BURST = "burst"
    REALISTIC = "realistic"


@dataclass(frozen=True)
class Scenario:
    """One scenario: who asks how much, when, and how varied.

    ``own_questions`` are asked in no other scenario; ``popularity_exponent`` is the exponent of the Zipf
    distribution by which questions repeat (0: all alike; higher: a few dominate).

    Raises:
        ValueError: a number makes no sense, for example fewer than two operations a user.
    """

    name: str
    users: int
    pattern: Pattern
    operations: int
    duration_seconds: float
    own_questions: int
    popularity_exponent: float

    def __post_init__(self) -> None:
        if self.users < 1:
            raise ValueError(f"{self.name}: at least one user is needed, not {self.users}")
        if self.operations < 2 * self.users:
            raise ValueError(
                f"{self.name}: {self.operations} operations are too few for {self.users} users; each needs "
                "two, one that opens its session and one that ends it"
            )
        if self.duration_seconds <= 0:
            raise ValueError(f"{self.name}: the duration must be positive, not {self.duration_seconds:g} s")
        if not 0 <= self.own_questions <= self.operations - SHARED_QUESTIONS:
            raise ValueError(
                f"{self.name}: {self.own_questions} own and {SHARED_QUESTIONS} shared questions cannot each "
                f"be asked in {self.operations} operations"
            )

    @property
    def distinct_questions(self) -> int:
        """How many different questions the scenario asks."""
        return SHARED_QUESTIONS + self.own_questions

    def scaled(self, time_scale: float) -> Scenario:
        """The same scenario, with its duration multiplied: a trial run, not the requirement."""
        return replace(self, duration_seconds=self.duration_seconds * time_scale)


def quotas(operations: int, users: int) -> tuple[int, ...]:
    """Operations of each user: they add up exactly, and differ by one at most."""
    each, left = divmod(operations, users)
    return tuple(each + (1 if user < left else 0) for user in range(users))


SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        Scenario("academic_research", 50, Pattern.SUSTAINED, 400, 20.0, 64, 0.9),
        Scenario("clinical_rush", 60, Pattern.BURST, 300, 9.0, 40, 1.0),
        Scenario("cache_effectiveness", 80, Pattern.REALISTIC, 640, 12.0, 44, 1.1),
        Scenario("rag_intensive", 60, Pattern.SUSTAINED, 480, 18.0, 108, 0.6),
    )
}
"""Every scenario by name, in the order in which a whole run drives them."""
