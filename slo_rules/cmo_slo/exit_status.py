"""What the exit status of a command means, and which error ends in which.

One place, because a release is stopped or let through by this number: no library's own exit status (click's 2
for wrong usage, Python's 1 for a traceback) may be taken for a verdict.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import click

from cmo_slo.manifest import ManifestError
from cmo_slo.objectives import ObjectivesError
from cmo_slo.prometheus import DataSourceError
from cmo_slo.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping


class ExitStatus(IntEnum):
    """The exit statuses of the design."""

    COMPLIANT = 0
    NON_COMPLIANT = 1
    INCONCLUSIVE = 2
    USAGE = 3
    DATA_SOURCE = 4
    FAULT = 5


_OF_OUTCOME: Final[Mapping[Outcome, ExitStatus]] = {
    Outcome.COMPLIANT: ExitStatus.COMPLIANT,
    Outcome.NON_COMPLIANT: ExitStatus.NON_COMPLIANT,
    Outcome.INCONCLUSIVE: ExitStatus.INCONCLUSIVE,
}


def status_of_outcome(outcome: Outcome) -> ExitStatus:
    """The exit status that a verdict ends in."""
    return _OF_OUTCOME[outcome]


def status_of_error(error: BaseException) -> ExitStatus:
    """The exit status that an error ends in; what nobody foresaw is a fault of our own."""
    if isinstance(error, DataSourceError):
        return ExitStatus.DATA_SOURCE
    if isinstance(error, ObjectivesError | ManifestError | click.UsageError | click.FileError):
        return ExitStatus.USAGE
    return ExitStatus.FAULT
