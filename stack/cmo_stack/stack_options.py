"""The options that ``cmo stack up`` and ``cmo demo`` share, and where this project keeps what it writes."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from cmo_oracle.profile import PROFILE_NAMES

from cmo_stack.exit_status import ExitStatus
from cmo_stack.ports import Ports, variable

if TYPE_CHECKING:
    from collections.abc import Callable

STATE_DIRECTORY_VARIABLE: Final = "CMO_STATE_DIR"


class UnwritableError(Exception):
    """A folder that we need cannot be written in; the message says which, and how to choose another."""

    exit_status = ExitStatus.USAGE


def state_directory() -> Path:
    """Where runs, stacks and indexes are kept: ``CMO_STATE_DIR``, else ``.cmo`` in the current folder."""
    return Path(os.environ.get(STATE_DIRECTORY_VARIABLE) or ".cmo").resolve()


def made(directory: Path) -> Path:
    """A folder that we write in, made if it is not there.

    Raises:
        UnwritableError: it cannot be made or written in.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UnwritableError(
            f"{directory} cannot be written in: {error.strerror}. Set {STATE_DIRECTORY_VARIABLE} to a folder "
            "that can."
        ) from error
    return directory


def port_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for every port of the stack; they arrive as ``<part>_port``."""
    for part in reversed(Ports.names()):
        command = click.option(
            f"--{part.replace('_', '-')}-port",
            type=click.IntRange(1, 65535),
            envvar=variable(part),
            metavar="PORT",
            help=f"Port of the {part} (or {variable(part)}).",
        )(command)
    return command


def wanted_ports(options: dict[str, Any]) -> dict[str, int | None]:
    """The ports among a command's options, by part."""
    return {part: options[f"{part}_port"] for part in Ports.names()}


profile_option = click.option(
    "--profile",
    type=click.Choice(PROFILE_NAMES),
    default="report",
    show_default=True,
    help="Settings of the reference service: those that the report criticises, or healthy ones.",
)
quiet_option = click.option("--quiet", is_flag=True, help="Show no progress.")


def teller(*, quiet: bool) -> Callable[[str], None]:
    """How a command tells people what it does: on standard error, or not at all."""

    def tell(line: str) -> None:
        with contextlib.suppress(OSError):  # a full or closed standard error is no reason to fail
            click.echo(line, err=True)

    return (lambda _: None) if quiet else tell
