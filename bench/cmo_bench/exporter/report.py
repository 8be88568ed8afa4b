"""What a run found: sections with tables, and targets that hold or do not."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cmo_bench.exporter.figures import Estimate


class Verdict(StrEnum):
    """Whether a target holds."""

    HOLDS = "holds"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Target:
    """Something that was promised, and what was found.

    Attributes:
        promise: what was promised, in words.
        found: what was measured.
        verdict: whether it holds.
    """

    promise: str
    found: str
    verdict: Verdict

    @classmethod
    def at_most(cls, promise: str, found: Estimate, limit: float) -> Target:
        """A target that a ratio may reach but not pass."""
        verdict = Verdict.HOLDS if found.value <= limit else Verdict.FAILED
        return cls(promise, f"{found}; at most {limit:.2f}", verdict)


@dataclass(frozen=True)
class Section:
    """One measurement: what was done, what came of it, and what that says of the targets."""

    title: str
    text: str
    table: Sequence[str]
    targets: Sequence[Target] = field(default=())


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown; the first column is text, the others are numbers."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def targets_table(sections: Iterable[Section]) -> list[str]:
    """Every target of a run, with its verdict."""
    targets = [target for section in sections for target in section.targets]
    rows = [(target.promise, target.found, f"**{target.verdict}**") for target in targets]
    return ["| target | measured | |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]


def failed(sections: Iterable[Section]) -> bool:
    """Whether any target does not hold."""
    return any(target.verdict is Verdict.FAILED for section in sections for target in section.targets)
