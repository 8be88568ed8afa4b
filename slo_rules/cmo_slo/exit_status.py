"""What the exit status of a command means, and which error ends in which.

One place, because a release is stopped or let through by this number: no library's own exit status (click's 2
for wrong usage, Python's 1 for a traceback) may be taken for a verdict.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import click

from cmo_slo.manifest import ManifestError
from cmo_slo.objectives import ObjectivesError
from cmo_slo.prometheus import DataSourceError
from cmo_slo.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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


def message_of_error(error: BaseException) -> str:
    """What a person is told of an error; for a fault of our own one line with its kind."""
    if isinstance(error, click.ClickException):
        return error.format_message()
    text = str(error)
    if status_of_error(error) is not ExitStatus.FAULT:
        return text
    first = text.splitlines()[0] if text else "no message"
    return f"A fault of our own, {type(error).__name__}: {first}. Please report it."


def run_command(command: click.Command, arguments: Sequence[str], **settings: Any) -> int:
    """Run a click command to an exit status of the design; errors go to standard error, never a traceback."""
    try:
        result = command.main(list(arguments), standalone_mode=False, **settings)
    except click.exceptions.Exit as end:
        return end.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted: nothing was judged.", err=True)
        return ExitStatus.FAULT
    except Exception as error:  # noqa: BLE001 - the last place that can keep a traceback from the user
        click.echo(f"Error: {message_of_error(error)}", err=True)
        return status_of_error(error)
    return result if isinstance(result, int) else ExitStatus.COMPLIANT
