"""``cmo rules``: compile objectives to Prometheus rules, and check rules, ours and anybody's."""

from __future__ import annotations

from pathlib import Path

import click

from cmo_slo.cli_links import link_options, links_given_as_flags, links_given_as_variables, with_links
from cmo_slo.cli_rules_check import WrongInputError, check
from cmo_slo.compile import DEFAULT_SCRAPE_INTERVAL, CompileError
from cmo_slo.durations import DurationError, duration, parse_duration
from cmo_slo.objectives import ObjectivesError, find_objectives, load_objectives, require_another_file
from cmo_slo.rulefile import (
    GeneratedFile,
    render,
    render_for_operator,
    rule_file_name,
    shipped_files,
    shipped_rules_directory,
)


@click.group(
    epilog="""\b
Examples:
  cmo rules build                               every shipped file, and the schema of objectives
  cmo rules build my.yml --output -             one's own objectives, to standard output
  cmo rules build cmo-015 --scrape-interval 5s  for another scrape interval
  cmo rules build cmo-015 --runbooks-url https://git.example.org/docs/runbooks \\
      --dashboards-url https://grafana.example.org --output cmo-015.yml
                                                with links that lead somewhere from a phone
  cmo rules build my.yml --format operator --output -   as a PrometheusRule for Kubernetes
  cmo rules check                               what is shipped: fresh, valid, and no finding of any check
  cmo rules check FILE.yml                      any rule file that you have
"""
)
def rules() -> None:
    """Compile objectives to Prometheus rules, and check rules."""


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
@link_options
@click.pass_context
def build(
    context: click.Context,
    objectives: str | None,
    scrape_interval: str | None,
    form: str | None,
    output: Path | None,
    runbooks_url: str | None,
    dashboards_url: str | None,
) -> None:
    """Compile OBJECTIVES (a shipped name or a file); without it, everything that is shipped."""
    try:
        if objectives is None:
            if (scrape_interval, form, output) != (None, None, None) or links_given_as_flags(context):
                raise click.UsageError(
                    "--scrape-interval, --format, --output, --runbooks-url and --dashboards-url need "
                    "OBJECTIVES: name what to compile."
                )
            for file in shipped_files():
                _write(file)
            if links_given_as_variables(context):
                click.echo(
                    "Their links are those of the objectives: CMO_RUNBOOKS_URL and CMO_DASHBOARDS_URL count "
                    "where OBJECTIVES are named.",
                    err=True,
                )
            return
        interval = _in_one_spelling(scrape_interval or DEFAULT_SCRAPE_INTERVAL)
        compiled = with_links(load_objectives(find_objectives(objectives)), runbooks_url, dashboards_url)
        content = (render_for_operator if form == "operator" else render)(compiled, interval)
        if output is not None:
            require_another_file(objectives, output)
    except (ObjectivesError, CompileError) as error:
        raise WrongInputError(str(error)) from error
    if output == Path("-"):
        click.echo(content, nl=False)
        return
    folder = shipped_rules_directory() / ("kubernetes" if form == "operator" else "")
    path = output or folder / rule_file_name(compiled, interval)
    _write(GeneratedFile(path, content))


rules.add_command(check)


def _in_one_spelling(interval: str) -> str:
    """``60s`` as ``1m``, which is how a check of the compiled file spells it; what is wrong as it is."""
    try:
        return duration(parse_duration(interval))
    except DurationError:
        return interval


def _write(file: GeneratedFile) -> None:
    try:
        file.write()
    except OSError as error:
        raise WrongInputError(
            f"{file.path} cannot be written: {error.strerror}; check the path, and the space and permissions "
            "there. What was there is unchanged."
        ) from error
    click.echo(f"wrote {file.path}", err=True)
