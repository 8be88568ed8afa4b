"""``cmo dashboards``: compile the dashboards, and check what is compiled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from cmo_slo.objectives import ObjectivesError

from cmo_dashboards.checks import run_checks
from cmo_dashboards.finish import text_of
from cmo_dashboards.shipped import compiled_directory, file_name, shipped_dashboards
from cmo_dashboards.walkthrough import walkthrough

if TYPE_CHECKING:
    from cmo_dashboards.dashboard import Dashboard
    from cmo_dashboards.document import Document

_NOT_CLEAN = 1


class WrongInputError(click.ClickException):
    """What was given to the command cannot be used: exit status 3."""

    exit_code = 3


@click.group()
def dashboards() -> None:
    """Build and check the Grafana dashboards."""


@dashboards.command(epilog="Example: cmo dashboards build --output /tmp/dashboards --docs /tmp/dashboards.md")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=None,
    help="Folder to write to; the default is where the compiled dashboards lie.",
)
@click.option(
    "--docs",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Also write the walk through every panel, as Markdown, to this file.",
)
def build(output: Path | None, docs: Path | None) -> None:
    """Compile the objectives to dashboard JSON; prints the files written."""
    made = _shipped()
    folder = output or compiled_directory()
    for dashboard in made:
        _write(folder / file_name(dashboard), text_of(dashboard.document))
    if docs is not None:
        _write(docs, walkthrough(made))


@dashboards.command(epilog="Example: cmo dashboards check grafana/dashboards/cmo-015.json")
@click.argument("files", nargs=-1, type=click.Path(dir_okay=False, path_type=Path))
@click.pass_context
def check(context: click.Context, files: tuple[Path, ...]) -> None:
    """Check dashboards; without FILES those that are compiled, and that they are fresh.

    Prints one line a finding. Exit status 0: nothing found; 1: something; 3: a file cannot be read.
    """
    lines = [line for path in files for line in _findings(path)] if files else _compiled_findings()
    for line in lines:
        click.echo(line)
    checked = f"{len(files)} named" if files else "the compiled"
    click.echo(f"{len(lines)} findings in {checked} dashboards.", err=True)
    if lines:
        context.exit(_NOT_CLEAN)


def _compiled_findings() -> list[str]:
    lines = []
    for dashboard in _shipped():
        path = compiled_directory() / file_name(dashboard)
        lines += _findings(path)
        if path.read_text(encoding="utf-8") != text_of(dashboard.document):
            lines.append(f"{path}: fresh: is stale; run `cmo dashboards build` and commit what it writes")
    return lines


def _findings(path: Path) -> list[str]:
    document = _read(path)
    try:
        return [f"{path}: {name}: {finding}" for name, finding in run_checks(document)]
    except (AttributeError, KeyError, TypeError) as error:
        raise WrongInputError(
            f"{path} is no dashboard that Grafana could read: {error}. Expected objects and lists where its "
            "schema has them; build it again with `cmo dashboards build`."
        ) from error


def _read(path: Path) -> Document:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WrongInputError(
            f"{path} cannot be read: {error.strerror}. Run `cmo dashboards build`, or name another file."
        ) from error
    except ValueError as error:
        raise WrongInputError(
            f"{path} is not JSON: {error}. Expected a dashboard as Grafana exports it."
        ) from error
    if not isinstance(document, dict) or not isinstance(document.get("panels"), list):
        raise WrongInputError(f"{path} is no dashboard: expected a JSON object with a list of panels.")
    return document


def _shipped() -> tuple[Dashboard, ...]:
    try:
        return shipped_dashboards()
    except (ObjectivesError, ValueError) as error:
        raise WrongInputError(str(error)) from error


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WrongInputError(
            f"{path} cannot be written: {error.strerror}. Name another place with --output."
        ) from error
    click.echo(str(path))
