"""The exit statuses of ``cmo``, and which exception means which.

0, 1 and 2 are verdicts (compliant, non-compliant, inconclusive) and are given by the commands that judge.
Whatever else happens must never be taken for one: 3 is wrong usage, objectives or a missing installation, 4
a data source that could not be read, 5 a fault of our own. An exception says which itself, with an attribute
``exit_status``; those of the objectives and the checker are mapped by ``cmo_slo.exit_status``. Neither needs
an import here, so that ``cmo --help`` stays quick.
"""

from __future__ import annotations

import importlib
from enum import IntEnum

import click

from cmo_stack.ports import PortError
from cmo_stack.process import ProcessFailedError
from cmo_stack.servers import ServerMissingError


class ExitStatus(IntEnum):
    """What ``cmo`` ends with."""

    COMPLIANT = 0
    NON_COMPLIANT = 1
    INCONCLUSIVE = 2
    USAGE = 3
    UNREADABLE = 4
    FAULT = 5
    INTERRUPTED = 130
    BROKEN_PIPE = 141


# No error is ever a verdict, whatever status it declares.
_OF_ERRORS = (ExitStatus.USAGE, ExitStatus.UNREADABLE, ExitStatus.FAULT)
_EXPLAINED: dict[type[BaseException], ExitStatus] = {
    PortError: ExitStatus.USAGE,
    ServerMissingError: ExitStatus.USAGE,
    ProcessFailedError: ExitStatus.FAULT,
}


def explained(error: BaseException) -> ExitStatus | None:
    """The status of an error whose message says all that a user needs; None for one that is a surprise."""
    if type(error).__module__.startswith("cmo_slo."):
        return _of_the_checker(error)
    declared = getattr(error, "exit_status", None)
    if isinstance(error, click.ClickException):
        return ExitStatus(error.exit_code) if error.exit_code in _OF_ERRORS else ExitStatus.USAGE
    if isinstance(declared, int):
        return ExitStatus(declared) if declared in _OF_ERRORS else ExitStatus.FAULT
    return next((status for kind, status in _EXPLAINED.items() if isinstance(error, kind)), None)


def _of_the_checker(error: BaseException) -> ExitStatus | None:
    status = ExitStatus(importlib.import_module("cmo_slo.exit_status").status_of_error(error))
    return None if status is ExitStatus.FAULT else status
