"""``cmo rules``: compile objectives to Prometheus rules, and check that the committed ones are up to date."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import click

from cmo_slo.compile import DEFAULT_SCRAPE_INTERVAL, CompileError
from cmo_slo.objectives import ObjectivesError, find_objectives, load_objectives
from cmo_slo.rulefile import (
    GeneratedFile,
    promtool_complaint,
    render,
    render_for_operator,
    rule_file_name,
    shipped_files,
    shipped_rules_directory,
    unknown_metrics,
)

_EXIT_FOUND: Final = 1


class _WrongInputError(click.ClickException):
    """Objectives or arguments are wrong; the message has one line a mistake."""

    exit_code = ObjectivesError.exit_status


@click.group(
    epilog="""\b
Examples:
  cmo rules build                               every shipped file, and the schema of objectives
  cmo rules build my.yml --output -             one's own objectives, to standard output
  cmo rules build cmo-015 --scrape-interval 5s  for another scrape interval
  cmo rules build my.yml --format operator --output -   as a PrometheusRule for Kubernetes
  cmo rules check                               fresh, valid, reachable, known metrics
"""
)
def rules() -> None:
    """Compile objectives to Prometheus rules, and check the compiled ones."""


@rules.command()
@click.argument("objectives", required=False)
@click.option(
    "--scrape-interval",
    metavar="DURATION",
    help=f"How often the service is scraped and the rules evaluated.  [default: {DEFAULT_SCRAPE_INTERVAL}]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(("prometheus", "operator")),
    help="A rule file of Prometheus, or a PrometheusRule of its Operator.  [default: prometheus]",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    help="File to write, or - for standard output.  [default: NAME.yml or NAME-INTERVAL.yml among the rules]",
)
def build(objectives: str | None, scrape_interval: str | None, form: str | None, output: Path | None) -> None:
    """Compile OBJECTIVES (a shipped name or a file); without it, everything that is shipped."""
    try:
        if objectives is None:
            if (scrape_interval, form, output) != (None, None, None):
                raise click.UsageError(
                    "--scrape-interval, --format and --output need OBJECTIVES: name what to compile."
                )
            for file in shipped_files():
                _write(file)
            return
        interval = scrape_interval or DEFAULT_SCRAPE_INTERVAL
        compiled = load_objectives(find_objectives(objectives))
        content = (render_for_operator if form == "operator" else render)(compiled, interval)
    except (ObjectivesError, CompileError) as error:
        raise _WrongInputError(str(error)) from error
    if output == Path("-"):
        click.echo(content, nl=False)
        return
    folder = shipped_rules_directory() / ("kubernetes" if form == "operator" else "")
    path = output or folder / rule_file_name(compiled, interval)
    _write(GeneratedFile(path, content))


@rules.command()
@click.argument("objectives", required=False)
@click.option(
    "--scrape-interval",
    metavar="DURATION",
    help=f"The interval that FILE was compiled for.  [default: {DEFAULT_SCRAPE_INTERVAL}]",
)
@click.option("--file", type=click.Path(path_type=Path), help="The compiled rules of OBJECTIVES.")
@click.option(
    "--promtool",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="promtool to check the files with.  [default: the one on PATH, if any]",
)
def check(
    objectives: str | None, scrape_interval: str | None, file: Path | None, promtool: Path | None
) -> None:
    """Check every shipped file, or one's own compiled FILE of OBJECTIVES.

    Fresh: just what the objectives compile to. Sound: every page can fire, every metric is in the catalogue,
    and promtool, where there is one, accepts it. Exits 0 when all is well, 1 when something was found, 3 when
    the objectives or arguments are wrong.
    """
    if (objectives is None) != (file is None) or (scrape_interval is not None and file is None):
        raise click.UsageError("Name both OBJECTIVES and --file, or neither for what is shipped.")
    try:
        if objectives is None or file is None:
            files = shipped_files()
        else:
            own = load_objectives(find_objectives(objectives))
            files = [GeneratedFile(file, render(own, scrape_interval or DEFAULT_SCRAPE_INTERVAL))]
    except (ObjectivesError, CompileError) as error:
        raise _WrongInputError(str(error)) from error
    _report(files, promtool or _promtool_on_path())


def _promtool_on_path() -> Path | None:
    found = shutil.which("promtool")
    return Path(found) if found else None


def _report(files: list[GeneratedFile], promtool: Path | None) -> None:
    findings = [finding for file in files for finding in _findings(file, promtool)]
    for finding in findings:
        click.echo(finding)
    if promtool is None:
        click.echo(
            "promtool is not on PATH, so the rules were not checked by it (--promtool FILE).", err=True
        )
    if findings:
        click.get_current_context().exit(_EXIT_FOUND)
    click.echo(f"{len(files)} files are fresh and sound.")


def _findings(file: GeneratedFile, promtool: Path | None) -> list[str]:
    if not file.path.exists():
        return [f"{file.path}: is missing; run `cmo rules build`"]
    findings = []
    if not file.fresh:
        findings.append(f"{file.path}: is not what the objectives compile to; run `cmo rules build`")
    if file.path.suffix in (".yml", ".yaml"):
        findings += [
            f"{file.path}: {metric} is not in the metric catalogue; check its name"
            for metric in unknown_metrics(file.path.read_text(encoding="utf-8"))
        ]
        complaint = promtool_complaint(promtool, file.path) if promtool else None
        findings += [f"{file.path}: promtool: {complaint}"] if complaint else []
    return findings


def _write(file: GeneratedFile) -> None:
    try:
        file.write()
    except OSError as error:
        raise _WrongInputError(f"{file.path} cannot be written: {error.strerror}; check the path.") from error
    click.echo(f"wrote {file.path}", err=True)
