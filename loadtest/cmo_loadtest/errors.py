"""What can go wrong with a load test, each with the exit status that the command line promises for it.

The entry point reads ``exit_status`` from the exception instead of knowing these classes, so that this
room stays apart from the others. Wrong usage is click's own ``UsageError``.
"""

from __future__ import annotations

from typing import ClassVar


class LoadTestError(Exception):
    """The load test failed by a fault of its own; no manifest was written."""

    exit_status: ClassVar[int] = 5


class LocustMissingError(LoadTestError):
    """Locust is not installed; the message holds the line that installs it."""

    exit_status: ClassVar[int] = 3


class TargetUnreachableError(LoadTestError):
    """Nothing that is ready answers at the target, so that nothing was offered to it."""

    exit_status: ClassVar[int] = 4


class IncompleteRunError(LoadTestError):
    """Locust ended early, or an operation is missing, doubled or unknown: the run proves nothing."""
