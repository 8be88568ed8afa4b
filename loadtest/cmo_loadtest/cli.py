"""The ``loadtest`` commands of ``cmo``: drive the scenarios, or show what driving them would offer."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import click

from cmo_loadtest.scenarios import SCENARIOS

_SCENARIO_ARGUMENT = click.argument(
    "scenarios", nargs=-1, type=click.Choice(list(SCENARIOS)), metavar="[SCENARIO]..."
)
_SEED_OPTION = click.option(
    "--seed", type=int, default=1, show_default=True, help="Decides when users ask, and what."
)


@click.group()
def loadtest() -> None:
    """Drive the scenarios of CMO-LIGHTRAG-015 and record the ground truth."""


@loadtest.command(
    epilog="""\b
Examples:
  cmo loadtest run
  cmo loadtest run clinical_rush --target http://127.0.0.1:8000
  cmo check --run "$(cmo loadtest run --quiet)"
"""
)
@_SCENARIO_ARGUMENT
@click.option(
    "--target",
    default="http://127.0.0.1:8000",
    show_default=True,
    envvar="CMO_LOADTEST_TARGET",
    metavar="URL",
    help="Base URL of the service.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=lambda: Path(os.environ.get("CMO_STATE_DIR") or ".cmo") / "runs",
    show_default="runs in CMO_STATE_DIR, else .cmo/runs",
    envvar="CMO_LOADTEST_OUTPUT",
    metavar="DIR",
    help="Where runs are kept; each gets a directory of its own.",
)
@_SEED_OPTION
@click.option(
    "--time-scale",
    type=click.FloatRange(min=0.0, min_open=True),
    default=1.0,
    show_default=True,
    metavar="FACTOR",
    help="Multiply every duration, for a trial; the requirement is judged at 1.",
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
def run(
    scenarios: tuple[str, ...], *, target: str, output: Path, seed: int, time_scale: float, quiet: bool
) -> None:
    """Drive scenarios back to back against a service; all four unless some are named.

    Every operation is recorded in operations.jsonl, beside the run's manifest, whose path is printed. The
    manifest is there only when every planned operation was recorded.
    """
    from cmo_loadtest.runner import RunOptions, run_scenarios  # noqa: PLC0415 - help stays fast

    _check_target(target)
    options = RunOptions(
        target=target,
        output=output,
        seed=seed,
        time_scale=time_scale,
        progress=None if quiet else sys.stderr,
    )
    click.echo(run_scenarios([SCENARIOS[name] for name in _chosen(scenarios)], options))


@loadtest.command()
@_SCENARIO_ARGUMENT
@_SEED_OPTION
def plan(scenarios: tuple[str, ...], *, seed: int) -> None:
    """Show what a run would offer, and how much a cold cache could answer of it. Nothing is sent."""
    from cmo_loadtest.offer import describe_offer  # noqa: PLC0415 - help stays fast

    click.echo(describe_offer([SCENARIOS[name] for name in _chosen(scenarios)], seed))


def _chosen(names: tuple[str, ...]) -> tuple[str, ...]:
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise click.UsageError(
            f"{', '.join(doubled)} is named twice. One run drives a scenario once, or its counts could not "
            "be told apart; start a second run."
        )
    return names or tuple(SCENARIOS)


def _check_target(target: str) -> None:
    try:
        parts = urlsplit(target)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        raise click.BadParameter(
            f"{target!r} is no base URL; expected one like http://127.0.0.1:8000", param_hint="--target"
        )
    if parts.username is not None:
        raise click.BadParameter(
            "credentials in the URL would be kept in the manifest; leave them out", param_hint="--target"
        )
