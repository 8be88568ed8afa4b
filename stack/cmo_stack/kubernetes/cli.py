"""``cmo kubernetes``: manifests for a cluster that runs the Prometheus Operator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from cmo_dashboards.building import build_dashboards
from cmo_slo.cli_links import link_options, with_links
from cmo_slo.compile import DEFAULT_SCRAPE_INTERVAL, CompileError
from cmo_slo.durations import DurationError, duration, parse_duration
from cmo_slo.objectives import ObjectivesError, find_objectives, load_objectives, require_another_file

from cmo_stack.exit_status import ExitStatus
from cmo_stack.kubernetes.cluster import Cluster, WrongNamespaceError
from cmo_stack.kubernetes.manifests import made_by_somebody_else, manifest_files

if TYPE_CHECKING:
    from collections.abc import Sequence


class CannotBuildError(click.ClickException):
    """What was given to the command cannot be used, or the folder cannot be written to."""

    exit_code = ExitStatus.USAGE


@click.group()
def kubernetes() -> None:
    """Make manifests for a cluster that runs the Prometheus Operator."""


@kubernetes.command(
    epilog="""\b
Examples:
  cmo kubernetes build --output cmo-monitoring \\
      --runbooks-url https://git.example.org/docs/runbooks --dashboards-url https://grafana.example.org
  cmo kubernetes build --output staging --scrape-interval 1s --service-namespace cmo-staging
                                              a service whose load tests are judged
  kubectl apply --server-side -k cmo-monitoring
"""
)
@click.argument("objectives", default="cmo-015")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder to write to; a file that no build of `cmo` made is not replaced.",
)
@click.option(
    "--scrape-interval",
    metavar="DURATION",
    default=DEFAULT_SCRAPE_INTERVAL,
    show_default=True,
    help="How often the service is scraped and the rules evaluated.",
)
@click.option(
    "--namespace",
    default=Cluster.monitoring_namespace,
    show_default=True,
    help="Where Prometheus, Alertmanager and Grafana are.",
)
@click.option(
    "--service-namespace", default=Cluster.service_namespace, show_default=True, help="Where the service is."
)
@link_options
def build(
    *,
    objectives: str,
    output: Path,
    scrape_interval: str,
    namespace: str,
    service_namespace: str,
    runbooks_url: str | None,
    dashboards_url: str | None,
) -> None:
    """Write every manifest for OBJECTIVES (a shipped name or a file), and a kustomization that names them.

    They hold no secret: Secrets are named, and yours to make. A dashboard that shows what the objectives lack
    is left out, as said on standard error.
    """
    try:
        cluster = Cluster(namespace, service_namespace)
        compiled = with_links(load_objectives(find_objectives(objectives)), runbooks_url, dashboards_url)
        files = manifest_files(compiled, output, _in_one_spelling(scrape_interval), cluster)
        for file in files:
            require_another_file(objectives, file.path)
    except (ObjectivesError, CompileError, WrongNamespaceError) as error:
        raise CannotBuildError(str(error)) from error
    _refuse_to_replace([file.path for file in files])
    for file in files:
        try:
            file.write()
        except OSError as error:
            raise CannotBuildError(
                f"{file.path} cannot be written: {error.strerror}. Name another folder with --output."
            ) from error
        click.echo(f"wrote {file.path}", err=True)
    for one in build_dashboards(compiled).left_out:
        click.echo(one.told(objectives), err=True)


def _refuse_to_replace(paths: Sequence[Path]) -> None:
    try:
        foreign = [str(path) for path in paths if made_by_somebody_else(path)]
    except OSError as error:
        raise CannotBuildError(
            f"{error.filename} cannot be looked at: {error.strerror}. Name another folder with --output."
        ) from error
    if foreign:
        raise CannotBuildError(
            f"{', '.join(foreign)}: not made by this command, so it is not replaced, and nothing is written. "
            "Move it away, or name another folder with --output."
        )


def _in_one_spelling(interval: str) -> str:
    """``60s`` as ``1m``, so that the same interval makes the same files; what is wrong as it is."""
    try:
        return duration(parse_duration(interval))
    except DurationError:
        return interval
