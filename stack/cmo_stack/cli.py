"""The ``cmo`` command: every room's commands, loaded when used, and every error mapped to an exit status.

``cmo --help`` and shell completion run often and must be quick, so this module knows the commands by name and
one line of help, and imports a room when its command is run. A base installation lacks what most commands
need; such a command says which line installs it.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import signal
import sys
import traceback
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, NoReturn, TextIO

import click
from click.shell_completion import CompletionItem

from cmo_stack import servers
from cmo_stack.exit_status import ExitStatus, explained
from cmo_stack.signals import EndedBySignal, unwinding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DISTRIBUTION: Final = "cmo-observability"
DEBUG_VARIABLE: Final = "CMO_DEBUG"
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_COMPLETION_VARIABLE: Final = "_CMO_COMPLETE"


class ExtraMissingError(Exception):
    """A command needs packages that are not installed; the message holds the line that installs them."""

    exit_status = ExitStatus.USAGE


@dataclass(frozen=True)
class LazyCommand:
    """A command by where it is; ``extras`` are what it needs of the distribution's optional dependencies."""

    name: str
    module: str
    help: str
    extras: tuple[str, ...] = ()

    def load(self) -> click.Command:
        """Import the command.

        Raises:
            ExtraMissingError: a package that it needs is not installed.
        """
        try:
            command = getattr(importlib.import_module(self.module), self.name)
        except ModuleNotFoundError as error:
            missing = self.missing_extra(error)
            if missing is None:
                raise
            raise missing from error
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.module}.{self.name} is no click command")
        return command

    def missing_extra(self, error: ModuleNotFoundError) -> ExtraMissingError | None:
        """What to tell a user whose installation lacks a package; None when the module should be there."""
        if not self.extras or error.name is None or error.name.partition(".")[0].startswith("cmo_"):
            return None
        line = f"pip install './{DISTRIBUTION}[{','.join(self.extras)}]'"
        return ExtraMissingError(
            f"`cmo {self.name}` needs {error.name}, which is not installed. Install it, from the folder "
            f"that holds the checkout, with:\n\n    {line}\n"
        )


_EVERYTHING: Final = ("oracle", "slo", "loadtest", "probe")
COMMANDS: Final = {
    command.name: command
    for command in (
        LazyCommand(
            "demo", "cmo_stack.demo", "Run the whole path on this machine and print a verdict.", _EVERYTHING
        ),
        LazyCommand(
            "stack", "cmo_stack.cli_stack", "Start, stop and look at the stack on this machine.", _EVERYTHING
        ),
        LazyCommand(
            "loadtest", "cmo_loadtest.cli", "Drive the load-test scenarios against a service.", ("loadtest",)
        ),
        LazyCommand("check", "cmo_slo.cli_check", "Judge a run against the objectives.", ("slo",)),
        LazyCommand(
            "rules", "cmo_slo.cli_rules", "Compile objectives into Prometheus rules, or check them.", ("slo",)
        ),
        LazyCommand(
            "dashboards",
            "cmo_dashboards.cli",
            "Build the Grafana dashboards, or check them.",
            ("dashboards",),
        ),
        LazyCommand(
            "kubernetes",
            "cmo_stack.kubernetes.cli",
            "Make manifests for a cluster that runs the Prometheus Operator.",
            ("slo", "dashboards"),
        ),
        LazyCommand(
            "probe", "cmo_probe.cli", "Ask a service canary questions from outside, as metrics.", ("probe",)
        ),
    )
}


class LazyGroup(click.Group):
    """A group that lists its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All commands, in the order of their use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import one command."""
        return COMMANDS[cmd_name].load() if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the list of commands from what is known without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(command.name, command.help) for command in COMMANDS.values()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name without importing any."""
        names = [
            CompletionItem(command.name, help=command.help)
            for command in COMMANDS.values()
            if command.name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's signature
    if wanted:
        click.echo(f"cmo {metadata.version(DISTRIBUTION)}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "CMO"},
    epilog="""\b
Examples:
  cmo demo                                  everything, on this machine, in three minutes
  cmo stack up                              leave the stack running, to look at it
  cmo loadtest run                          drive the four scenarios
  cmo check --run .cmo/runs/ID/manifest.json
\b
Exit status: 0 compliant or done, 1 non-compliant, 2 inconclusive, 3 wrong usage or
objectives, 4 the data source could not be read, 5 a fault of cmo itself.
\b
Shell completion: eval "$(_CMO_COMPLETE=bash_source cmo)"   (or zsh_source, fish_source)
""",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version.",
)
def cli() -> None:
    """Service level objectives and observability for LLM question-answering services."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status; no exception leaves it but that of a signal."""
    try:
        return _invoke(arguments)
    except EndedBySignal:
        raise  # a command that runs another one ends with it
    except SystemExit as request:
        return _status_of_exit(request)
    except (KeyboardInterrupt, click.Abort):
        _complain("interrupted")
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:
        return ExitStatus.BROKEN_PIPE
    except click.ClickException as error:
        with _best_effort():
            error.show(sys.stderr)
        return explained(error) or ExitStatus.USAGE
    except ModuleNotFoundError as error:
        # Commands import what is heavy only when they run, so that their help needs no extra.
        command = next((COMMANDS[word] for word in arguments if word in COMMANDS), None)
        return _report((command and command.missing_extra(error)) or error)
    except Exception as error:  # noqa: BLE001 - the one place where every error becomes a status
        return _report(error)


def main() -> NoReturn:
    """The entry point of ``cmo``."""
    if _COMPLETION_VARIABLE in os.environ:
        cli.main(prog_name="cmo")
    try:
        with unwinding():
            status = run(sys.argv[1:])
    except EndedBySignal as request:
        _complain("interrupted" if request.signal is signal.SIGINT else f"ended by {request.signal.name}")
        status = request.status
    for stream in (sys.stdout, sys.stderr):
        _let_go(stream)
    sys.exit(status)


def _unpacked_promtool() -> str | None:
    """The newest promtool that the set-up unpacked; None where PATH has one, which is found without us."""
    if servers.on_path("promtool") is not None:
        return None
    with contextlib.suppress(servers.ServerMissingError):
        return str(servers.newest("promtool").path)
    return None


# Rooms know nothing of where servers are unpacked. Looked up only when the option is not given.
_DEFAULTS: Final[Mapping[str, Any]] = {"rules": {"check": {"promtool": _unpacked_promtool}}}


def _invoke(arguments: Sequence[str]) -> int:
    try:
        with cli.make_context("cmo", list(arguments), default_map=_DEFAULTS) as context:
            result: Any = cli.invoke(context)
    except click.exceptions.Exit as request:
        result = request.exit_code
    if sys.stdout is not None:  # it was closed before we began
        sys.stdout.flush()
    return result if isinstance(result, int) else ExitStatus.COMPLIANT


def _status_of_exit(request: SystemExit) -> int:
    """Commands leave by click's ``Context.exit``; this is a library, and no verdict."""
    if request.code in (None, 0):
        return ExitStatus.COMPLIANT
    _complain(f"ended unexpectedly ({request.code})")
    return ExitStatus.FAULT


def _report(error: Exception) -> int:
    if os.environ.get(DEBUG_VARIABLE):
        with _best_effort():
            traceback.print_exception(error, file=sys.stderr)
    status = explained(error)
    if status is not None:
        _complain(str(error))
        return status
    if isinstance(error, OSError) and error.errno in _FULL:
        _complain(f"{error.filename or 'the output'}: {error.strerror}. Make room, and run it again.")
        return ExitStatus.USAGE
    what = f"{type(error).__name__}: {' '.join(str(error).split())}"
    _complain(
        f"a fault of cmo itself: {what} - please report it, with what `{DEBUG_VARIABLE}=1 cmo ...` prints."
    )
    return ExitStatus.FAULT


def _complain(message: str) -> None:
    with _best_effort():
        click.echo(f"cmo: {message}", err=True)


def _best_effort() -> contextlib.AbstractContextManager[None]:
    """For messages: an error that leaves us would make the interpreter end with 1, which is a verdict."""
    return contextlib.suppress(OSError)


def _let_go(stream: TextIO | None) -> None:
    """Drop what nobody takes, a reader who has left or a full disk: else the interpreter ends with 120."""
    if stream is None:  # it was closed before we began
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
