"""What a check finds: where, what is wrong, what was expected, and how to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from cmo_slo.checks.context import Context
from cmo_slo.checks.rules import RuleDocument

if TYPE_CHECKING:
    from cmo_slo.checks.rules import Group, Rule

Check = Callable[[Sequence[RuleDocument], Context], Iterator["Finding"]]
"""A check looks at files that one Prometheus loads together."""


class Severity(StrEnum):
    """An error makes an alert or a number wrong; a warning makes it worse than it need be."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """One thing that a check finds.

    ``group`` and ``rule`` are empty where it concerns a whole file or group. ``mend`` says what was expected
    and what to do, as one sentence without a full stop.
    """

    file: str
    line: int
    group: str
    rule: str
    check: str
    severity: Severity
    wrong: str
    mend: str

    @property
    def place(self) -> tuple[str, int, str, str, str]:
        """What findings are sorted by: as a reader meets them in the files."""
        return self.file, self.line, self.check, self.rule, self.wrong

    def __str__(self) -> str:
        name = self.rule or self.group
        where = f"{self.file}:{self.line}: {name}: " if name else f"{self.file}:{self.line}: "
        return f"{where}{self.wrong}; {self.mend} [{self.severity} {self.check}]"


@dataclass(frozen=True)
class Reporter:
    """Makes the findings of one check, so that a check says only where, what and how to mend it."""

    check: str

    def error(self, place: Place, wrong: str, mend: str) -> Finding:
        """A finding that makes the command fail."""
        return self._finding(place, Severity.ERROR, wrong, mend)

    def warning(self, place: Place, wrong: str, mend: str) -> Finding:
        """A finding that is only printed, unless warnings count."""
        return self._finding(place, Severity.WARNING, wrong, mend)

    def _finding(self, place: Place, severity: Severity, wrong: str, mend: str) -> Finding:
        rule = place.rule.name if place.rule else ""
        group = place.group.name if place.group else ""
        line = place.rule.line if place.rule else place.group.line if place.group else 1
        return Finding(place.document.file, line, group, rule, self.check, severity, wrong, mend)


@dataclass(frozen=True)
class Place:
    """A rule, a whole group, or a whole file."""

    document: RuleDocument
    group: Group | None = None
    rule: Rule | None = None


def rules_in(documents: Sequence[RuleDocument]) -> Iterator[tuple[Place, Group, Rule]]:
    """Every rule of the files, with its place."""
    for document in documents:
        for group in document.groups:
            for rule in group.rules:
                yield Place(document, group, rule), group, rule
