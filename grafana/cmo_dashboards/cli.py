"""``cmo dashboards``: compile the dashboards, and check the files, or what a Prometheus answers them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

import click
from click.core import ParameterSource
from cmo_slo.durations import DAY, SECOND, DurationError, duration, parse_duration
from cmo_slo.objectives import ObjectivesError, find_objectives, load_objectives, require_another_file
from cmo_slo.text_file import UnreadableFileError, read_text_file, write_text_file

from cmo_dashboards.building import build_dashboards
from cmo_dashboards.checks import run_checks
from cmo_dashboards.finish import text_of
from cmo_dashboards.live import premises, wrong_under_load, wrong_when_idle
from cmo_dashboards.promised import LackingError, with_runbooks
from cmo_dashboards.queries import Macros, queries
from cmo_dashboards.shipped import compiled_directory, file_name, runbook_texts
from cmo_dashboards.walkthrough import walkthrough

if TYPE_CHECKING:
    from cmo_slo.model import Objectives

    from cmo_dashboards.building import Built
    from cmo_dashboards.document import Document
    from cmo_dashboards.queries import PanelQuery

_NOT_CLEAN: Final = 1
_LEFT_OUT: Final = 1
_OBJECTIVES: Final = "cmo-015"
"""Of which the compiled dashboards are built."""
_OF_ANSWERS: Final = {"idle": "--idle", "range_": "--range", "scrape_interval": "--scrape-interval"}
_SCRAPES_A_WINDOW: Final = 4
"""``$__rate_interval`` is at least so many scrape intervals."""
_LONGEST: Final = 366 * DAY
_LARGEST_BYTES: Final = 10_000_000
"""Of a dashboard that is read; the largest of ours has 0.2 MB."""


class WrongInputError(click.ClickException):
    """What was given to the command cannot be used: exit status 3."""

    exit_code = 3


@click.group()
def dashboards() -> None:
    """Build and check the Grafana dashboards."""


@dashboards.command(
    epilog="""\b
Examples:
  cmo dashboards build                               those that are committed
  cmo dashboards build my.yml --output my-dashboards of one's own objectives
"""
)
@click.argument("objectives", default=_OBJECTIVES)
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
@click.option(
    "--runbooks-url",
    metavar="URL",
    default=None,
    help="Where runbooks are published, in place of links.runbooks of the objectives: alerts link there.",
)
@click.pass_context
def build(
    context: click.Context, objectives: str, output: Path | None, docs: Path | None, runbooks_url: str | None
) -> None:
    """Compile OBJECTIVES (a shipped name or a file) to dashboard JSON; prints the files written.

    A dashboard that shows what the objectives lack is left out. Exit status 0: all are written; 1: some were
    left out, as said on standard error; 3: a file or an option cannot be used.
    """
    promised = _load(objectives, runbooks_url)
    if docs is not None:
        _require_another_file(objectives, docs)
    if output is None and promised != _load(_OBJECTIVES):
        raise WrongInputError(
            "Other objectives than cmo-015, and --runbooks-url, need --output: the compiled dashboards are "
            "those of cmo-015 as it is. Name a folder."
        )
    built = _built(objectives, promised)
    folder = output or compiled_directory()
    for dashboard in built.dashboards:
        _write(folder / file_name(dashboard), text_of(dashboard.document))
    for name, text in runbook_texts(promised).items():
        _write(folder / name, text)
    if docs is not None:
        _write(docs, walkthrough(built.dashboards), "--docs")
    if built.left_out:
        context.exit(_LEFT_OUT)


@dashboards.command(
    epilog="Examples: cmo dashboards check; cmo dashboards check --prometheus-url http://127.0.0.1:9090"
)
@click.argument("files", nargs=-1, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--prometheus-url",
    metavar="URL",
    default=None,
    help="Run every query of every panel against this Prometheus instead of reading files.",
)
@click.option(
    "--objectives",
    default=_OBJECTIVES,
    show_default=True,
    help="A shipped name or a file: what FILES were built from, or that Prometheus' rules.",
)
@click.option("--idle", is_flag=True, help="That Prometheus has seen no traffic: nothing may be green.")
@click.option(
    "--range", "range_", metavar="DURATION", default="1h", show_default=True, help="How far back to look."
)
@click.option(
    "--scrape-interval",
    metavar="DURATION",
    default="15s",
    show_default=True,
    help="Of that Prometheus, in seconds; windows follow from it as in Grafana.",
)
@click.pass_context
def check(
    context: click.Context,
    files: tuple[Path, ...],
    prometheus_url: str | None,
    objectives: str,
    idle: bool,  # noqa: FBT001 - click's way to pass a flag
    range_: str,
    scrape_interval: str,
) -> None:
    """Check dashboards; without FILES those that are compiled, of cmo-015, and that they are fresh.

    Prints one line a finding. Exit status 0: nothing found; 1: something; 3: a file or an option cannot be
    used; 4: Prometheus cannot be read, or its answers would prove nothing: it does not scrape the service, or
    its rules' watchdog does not fire.
    """
    promised = _load(objectives)
    for path in compiled_directory().rglob("*.json"):
        _read(path)  # links are held against all of them
    if prometheus_url is None:
        _refuse_without_prometheus(context)
        if not files and promised != _load(_OBJECTIVES):
            raise WrongInputError(
                "--objectives needs FILES or --prometheus-url: the compiled dashboards are those of cmo-015."
            )
        lines = [line for path in files for line in _findings(path, promised)]
        lines += [] if files else _compiled_findings(promised)
        checked = f"{len(files)} named dashboards" if files else "the compiled dashboards"
    else:
        if files:
            raise WrongInputError(
                "FILES and --prometheus-url exclude each other: what is plausible stands in the code of the "
                "compiled dashboards, and in no file."
            )
        macros = _macros(range_, scrape_interval)
        asked = [one for board in _built(objectives, promised).dashboards for one in queries(board, macros)]
        lines = _live_findings(prometheus_url, macros, promised, asked, idle=idle)
        checked = f"the answers of {_without_secrets(prometheus_url)}"
    for line in lines:
        click.echo(_one_line(line))
    click.echo(f"{len(lines)} findings in {checked}.", err=True)
    if lines:
        context.exit(_NOT_CLEAN)


def _refuse_without_prometheus(context: click.Context) -> None:
    for name, option in _OF_ANSWERS.items():
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise WrongInputError(f"{option} needs --prometheus-url: it is about what a Prometheus answers.")


def _without_secrets(url: str) -> str:
    """An address without user, password and query, which may be a token."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _one_line(finding: str) -> str:
    """A finding without what would break its line, or steer a terminal: it quotes files and answers."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in finding
    )


def _macros(range_: str, scrape_interval: str) -> Macros:
    """What Grafana fills in: windows of four scrapes, and a step of one."""
    looked_back, step = _parsed("--range", range_), _parsed("--scrape-interval", scrape_interval)
    return Macros(
        range=duration(looked_back), rate_interval=duration(_SCRAPES_A_WINDOW * step), interval=duration(step)
    )


def _parsed(option: str, text: str) -> int:
    """Milliseconds."""
    try:
        milliseconds = parse_duration(text)
    except DurationError as error:
        raise WrongInputError(f"{option}: {error}.") from error
    if not SECOND <= milliseconds <= _LONGEST:
        raise WrongInputError(f"{option} {text}: expected from 1s to {duration(_LONGEST)}.")
    return milliseconds


def _live_findings(
    prometheus_url: str, macros: Macros, promised: Objectives, asked: list[PanelQuery], *, idle: bool
) -> list[str]:
    # Only here, so that files are checked without what the client needs.
    from cmo_dashboards.asking import Asker  # noqa: PLC0415

    wrong = wrong_when_idle if idle else wrong_under_load
    try:
        required = premises(promised, macros.rate_interval)
    except LackingError as error:
        raise WrongInputError(
            f"The objectives {promised.name} lack {error}: nothing would prove that their rules are "
            "evaluated. Add one, as in cmo-015.yml."
        ) from error
    click.echo(f"Asking {len(asked)} queries …", err=True)
    with Asker(prometheus_url, macros) as asker:
        asker.require(required)
        return list(wrong(asked, asker.ask))


def _compiled_findings(promised: Objectives) -> list[str]:
    """Findings in what is compiled, and in which files there are: of dashboards and of runbooks."""
    folder = compiled_directory()
    boards = {file_name(one): text_of(one.document) for one in build_dashboards(promised).dashboards}
    lines = [line for name in boards for line in _findings(folder / name, promised)]
    made = boards | runbook_texts(promised)
    for name, text in made.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            lines.append(f"{path}: fresh: is stale; run `cmo dashboards build` and commit what it writes")
    strays = {path.relative_to(folder).as_posix() for path in folder.rglob("*.json")} - set(made)
    lines += [f"{folder / name}: fresh: nothing builds it; remove it" for name in sorted(strays)]
    return lines


def _findings(path: Path, promised: Objectives) -> list[str]:
    document = _read(path)
    try:
        return [f"{path}: {name}: {finding}" for name, finding in run_checks(document, promised)]
    except (AttributeError, KeyError, TypeError, ValueError, re.error) as error:
        raise WrongInputError(
            f"{path} is no dashboard that can be checked: {error}. Expected objects, lists and numbers where "
            "Grafana's schema has them; build it again with `cmo dashboards build`."
        ) from error


def _read(path: Path) -> Document:
    try:
        document = json.loads(read_text_file(path, _LARGEST_BYTES))
    except FileNotFoundError as error:
        raise WrongInputError(
            f"{path} is not there. Run `cmo dashboards build`, or name another file."
        ) from error
    except UnreadableFileError as error:
        raise WrongInputError(f"{path} {error.wrong}: {error.mend}.") from error
    except (RecursionError, ValueError) as error:
        raise WrongInputError(
            f"{path} is not JSON: {error}. Expected a dashboard as Grafana exports it."
        ) from error
    if not isinstance(document, dict) or not isinstance(document.get("panels"), list):
        raise WrongInputError(f"{path} is no dashboard: expected a JSON object with a list of panels.")
    return document


def _load(objectives: str, runbooks_url: str | None = None) -> Objectives:
    try:
        loaded = load_objectives(find_objectives(objectives))
        return loaded if runbooks_url is None else with_runbooks(loaded, runbooks_url)
    except (ObjectivesError, ValueError) as error:
        raise WrongInputError(str(error)) from error


def _require_another_file(objectives: str, path: Path) -> None:
    try:
        require_another_file(objectives, path)
    except ObjectivesError as error:
        raise WrongInputError(f"{error}.") from error


def _built(objectives: str, promised: Objectives) -> Built:
    """The dashboards; those that cannot be built are told of."""
    built = build_dashboards(promised)
    for one in built.left_out:
        click.echo(one.told(objectives), err=True)
    return built


def _write(path: Path, text: str, option: str = "--output") -> None:
    try:
        write_text_file(path, text)
    except OSError as error:
        raise WrongInputError(
            f"{path} cannot be written: {error.strerror}. Name another place with {option}."
        ) from error
    click.echo(str(path))
