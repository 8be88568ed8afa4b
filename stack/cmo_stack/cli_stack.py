"""``cmo stack up|down|status``: a stack that stays, for people to look at."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cmo_stack import detached, topology
from cmo_stack.exit_status import ExitStatus
from cmo_stack.health import LOOPBACK
from cmo_stack.ports import DEFAULT_PORTS, Ports
from cmo_stack.stack import wait_until_scraped
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
    from collections.abc import Mapping


@click.group(
    epilog="""\b
Examples:
  cmo stack up
  cmo stack up --profile healthy --prometheus-port 19090
  cmo stack status
  cmo stack down
"""
)
def stack() -> None:
    """Prometheus, Alertmanager, Redis, upstream stub, reference service, prober, pager, on this machine."""


@stack.command()
@profile_option
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the upstream stub.")
@click.option(
    "--scrape-interval",
    type=click.IntRange(1, 60),
    default=15,
    show_default=True,
    metavar="SECONDS",
    help="How often Prometheus scrapes and evaluates rules.",
)
@click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Return only when Prometheus has scraped the service twice, so that a load test can be counted.",
)
@port_options
@quiet_option
@click.pass_context
def up(
    context: click.Context,
    /,
    *,
    profile: str,
    seed: int,
    scrape_interval: int,
    wait: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Start the stack, print its addresses, and leave it running. Well-known ports are taken where free."""
    tell = teller(quiet=quiet)
    home = _home()
    wanted = wanted_ports(options)
    if home.running():
        context.exit(_show_running(home, _asked_for(context)))
    ports = Ports.choose(wanted, prefer_defaults=True)
    for name, port in ports.unusual(wanted).items():
        tell(f"Port {getattr(DEFAULT_PORTS, name)} is busy: the {name} listens on {port}.")
    settings = topology.Settings(
        ports=ports,
        directory=home.directory,
        index_directory=state_directory() / "index",
        profile=profile,
        seed=seed,
        scrape_interval_seconds=scrape_interval,
    )
    began = time.time()
    detached.start(settings, home, tell=lambda line: tell(f"started {line}"))
    if quiet or not _on_one_terminal():
        _show_addresses(home)
    tell("Stop it with `cmo stack down`.")
    if wait:
        tell(f"Waiting until Prometheus has scraped the service twice, every {scrape_interval} s ...")
        wait_until_scraped(settings, began, running=home.running)
    service, prometheus = settings.ports.service, settings.ports.prometheus
    drive = f"cmo loadtest run --target http://{LOOPBACK}:{service}"
    tell(
        f'Load and judge it with `cmo check --run "$({drive})" --prometheus-url http://{LOOPBACK}:{prometheus}`.'
    )


@stack.command()
def down() -> None:
    """Stop the stack; nothing of it is left running."""
    stopped = detached.stop(_home())
    click.echo("The stack is stopped." if stopped else "No stack is running.", err=True)


@stack.command()
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_context
def status(context: click.Context, *, form: str) -> None:
    """Show each part and whether it serves; exit status 0 when all do, 4 otherwise."""
    home = _home()
    state = home.state if home.running() else None
    parts = [] if state is None else _health(state)
    if form == "json":
        phase = "stopped" if state is None else state.phase
        click.echo(json.dumps({"schema": "cmo.stack-status/v1", "phase": phase, "parts": parts}, indent=2))
    else:
        click.echo(_table(state, parts))
    serving = state is not None and state.phase == "running" and all(part["serves"] for part in parts)
    context.exit(ExitStatus.COMPLIANT if serving else ExitStatus.UNREADABLE)


def _home() -> detached.Home:
    return detached.Home(made(state_directory() / "stack"))


def _health(state: detached.State) -> list[dict[str, Any]]:
    checks = topology.checks(state.ports)
    return [
        {"name": part.name, "serves": checks[part.name](), "address": part.address, "version": part.version}
        for part in state.parts
    ]


def _table(state: detached.State | None, parts: list[dict[str, Any]]) -> str:
    if state is None:
        return f"No stack is running in {_home().directory}. Start one with `cmo stack up`."
    lines = [f"The stack is {state.phase} ({_settings_of(state)})."]
    for part in parts:
        health = "serves" if part["serves"] else "DOWN"
        lines.append(f"  {part['name']:<13} {health:<7} {part['address']}  ({part['version']})")
    if not all(part["serves"] for part in parts):
        lines.append(f"Logs: {_home().log.parent}")
    return "\n".join(lines)


def _show_running(home: detached.Home, asked: Mapping[str, Any]) -> ExitStatus:
    state = home.state
    how = "" if state is None else f" ({_settings_of(state)})"
    click.echo(f"A stack is already running{how}, and stays as it is. `cmo stack down` stops it.", err=True)
    _show_addresses(home)
    problems = _wrong_with(state, asked, home) if state else []
    for problem in problems:
        click.echo(problem, err=True)
    return ExitStatus.UNREADABLE if problems else ExitStatus.COMPLIANT


def _asked_for(context: click.Context) -> dict[str, Any]:
    """The options of the command line: whoever has given one expects a stack that has it."""
    return {
        name: value
        for name, value in context.params.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


def _wrong_with(state: detached.State, asked: Mapping[str, Any], home: detached.Home) -> list[str]:
    """Why a running stack is not the one that was asked for, a line each."""
    problems = []
    differing = _differing(state, asked)
    if differing:
        problems.append(
            f"Not what was asked for: {'; '.join(differing)}. `cmo stack down` first, then ask again."
        )
    missing = [part["name"] for part in _health(state) if not part["serves"]]
    if missing:
        problems.append(
            f"Not serving: {', '.join(missing)}. `cmo stack down`, then `cmo stack up`, starts all anew; "
            f"logs are in {home.log.parent}."
        )
    return problems


def _differing(state: detached.State, asked: Mapping[str, Any]) -> list[str]:
    running = {
        "profile": state.profile,
        "seed": state.seed,
        "scrape_interval": state.scrape_interval_seconds,
        **{f"{part}_port": getattr(state.ports, part) for part in Ports.names()},
    }
    return [
        f"--{name.replace('_', '-')} {asked[name]}, and it runs with {value}"
        for name, value in running.items()
        if name in asked and value is not None and asked[name] != value
    ]


def _settings_of(state: detached.State) -> str:
    return f"profile {state.profile}, scraped every {state.scrape_interval_seconds} s"


def _on_one_terminal() -> bool:
    """Whether who reads standard output has read the progress, and the addresses in it, already."""
    return os.isatty(1) and os.isatty(2)


def _show_addresses(home: detached.Home) -> None:
    state = home.state
    for part in state.parts if state else ():
        click.echo(f"{part.name:<13} {part.address}")
