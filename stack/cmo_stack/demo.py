"""``cmo demo``: the whole path on this machine, from a user's question to a verdict, in three minutes."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from cmo_loadtest.runner import RunOptions, run_scenarios
from cmo_loadtest.scenarios import SCENARIOS

from cmo_stack import topology
from cmo_stack.exit_status import ExitStatus
from cmo_stack.health import LOOPBACK
from cmo_stack.ports import Ports
from cmo_stack.stack import Stack, wait_until_scraped
from cmo_stack.stack_options import (
    made,
    port_options,
    profile_option,
    quiet_option,
    state_directory,
    teller,
    wanted_ports,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_VERDICTS: Final = (ExitStatus.COMPLIANT, ExitStatus.NON_COMPLIANT, ExitStatus.INCONCLUSIVE)
_SCRAPE_INTERVAL_SECONDS: Final = 1


class DemoFailedError(Exception):
    """The checker could not judge the run; it has said why."""

    def __init__(self, exit_status: int) -> None:
        super().__init__("the run could not be judged; the message above says why")
        self.exit_status = exit_status


@click.command(
    epilog="""\b
Examples:
  cmo demo
  cmo demo --profile healthy
  cmo demo --prometheus-port 19090
"""
)
@profile_option
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Seed of the load and of the upstream stub."
)
@port_options
@quiet_option
def demo(*, profile: str, seed: int, quiet: bool, **options: Any) -> None:
    """Start the stack, drive the four scenarios, judge them, stop everything.

    The exit status is 0 when all of it worked, whatever the verdict.
    """
    began = time.monotonic()
    state = state_directory()
    tell = teller(quiet=quiet)
    ports = Ports.choose(wanted_ports(options), prefer_defaults=False)  # before anything is written
    directory = Path(tempfile.mkdtemp(prefix="demo-", dir=made(state)))
    settings = topology.Settings(
        ports=ports,
        directory=directory,
        index_directory=state / "index",
        profile=profile,
        seed=seed,
        scrape_interval_seconds=_SCRAPE_INTERVAL_SECONDS,
    )
    with _logs_kept_on_failure(directory, tell):
        tell("Starting the stack:")
        started = time.time()
        with Stack(settings, lambda line: tell(f"  {line}")):
            wait_until_scraped(settings, started)
            run = _drive(settings, state / "runs", quiet=quiet)
            _judge(settings, run, quiet=quiet)
            shutil.copy(topology.timing_log(settings), run / "timing.jsonl")
    tell(f"Everything is stopped again. {time.monotonic() - began:.0f} s in all.")
    click.echo(f"Report: {run / 'verdict.txt'} (and verdict.json, manifest.json beside it)")


@contextlib.contextmanager
def _logs_kept_on_failure(directory: Path, tell: Callable[[str], None]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        tell(f"Everything is stopped again. The servers' logs are in {directory / 'logs'}.")
        raise
    shutil.rmtree(directory)


def _drive(settings: topology.Settings, runs: Path, *, quiet: bool) -> Path:
    """Run the load test; the run's directory."""
    options = RunOptions(
        target=f"http://{LOOPBACK}:{settings.ports.service}",
        output=runs,
        seed=settings.seed,
        progress=None if quiet else sys.stderr,
    )
    return run_scenarios(list(SCENARIOS.values()), options).parent


def _judge(settings: topology.Settings, run: Path, *, quiet: bool) -> None:
    """Judge the run as a release manager would, with the same command.

    Raises:
        DemoFailedError: there is no verdict.
    """
    from cmo_stack.cli import run as run_command  # noqa: PLC0415 - the command line loads this module

    arguments = ["check", "--run", str(run / "manifest.json")]
    source = ["--prometheus-url", f"http://{LOOPBACK}:{settings.ports.prometheus}"]
    formats = ["text", f"text:{run / 'verdict.txt'}", f"json:{run / 'verdict.json'}"]
    if quiet:
        arguments.append("--quiet")
    status = run_command([*arguments, *source, *(word for form in formats for word in ("--format", form))])
    if status not in _VERDICTS:
        raise DemoFailedError(status)
