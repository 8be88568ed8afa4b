"""The set-up from beginning to end, and how its failures reach the user."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from cmo_stack import servers

from cmo_bootstrap import python_environment, server_packages
from cmo_bootstrap.work import SetupError, disk_full_explained, exclusive, say

if TYPE_CHECKING:
    from pathlib import Path

STATUS_NOT_SET_UP: Final = 4
STATUS_INTERRUPTED: Final = 130


def main(root: Path, *, with_test_environments: bool = False) -> int:
    """Set the checkout up; 0 when it is, 4 when it cannot be, 130 when the user interrupts."""
    started = time.monotonic()
    try:
        with disk_full_explained():
            set_up(python_environment.Checkout(root), with_test_environments=with_test_environments)
    except SetupError as error:
        say(str(error))
        return STATUS_NOT_SET_UP
    except OSError as error:
        say(f"{error}. Check that {root} can be written by you.")
        return STATUS_NOT_SET_UP
    except KeyboardInterrupt:
        say("interrupted; run the same command again to go on")
        return STATUS_INTERRUPTED
    say(f"ready ({time.monotonic() - started:.1f} s)")
    return 0


def set_up(checkout: python_environment.Checkout, *, with_test_environments: bool = False) -> None:
    """Prepare the Python environment, then the servers; on demand also what tests alone need of both.

    Raises:
        SetupError: something is missing that cannot be had.
    """
    with exclusive(checkout.root / ".cmo/setup.lock"):
        python_environment.prepare(checkout, with_test_environments=with_test_environments)
        server_packages.prepare(servers.servers_directory(), checkout.work, for_tests=with_test_environments)
