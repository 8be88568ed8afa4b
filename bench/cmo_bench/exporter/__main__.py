"""The command: ``python -m cmo_bench.exporter``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cmo_bench.exporter.children import ChildError
from cmo_bench.exporter.disturbance import scrapes_and_the_slowest_requests
from cmo_bench.exporter.in_process import calls_in_process, requests_in_process
from cmo_bench.exporter.laboratory import QUICK, Effort, Laboratory
from cmo_bench.exporter.memory import memory
from cmo_bench.exporter.page import page
from cmo_bench.exporter.report import Section, failed, targets_table
from cmo_bench.exporter.scrapes import scrapes
from cmo_bench.exporter.sockets import requests_over_sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_MEASUREMENTS: Final[dict[str, Callable[[Laboratory], Section]]] = {
    "in-process": requests_in_process,
    "sockets": requests_over_sockets,
    "calls": calls_in_process,
    "disturbance": scrapes_and_the_slowest_requests,
    "scrapes": scrapes,
    "memory": memory,
}

_COULD_NOT_RUN: Final = 5


@click.command()
@click.option(
    "--only", multiple=True, type=click.Choice(tuple(_MEASUREMENTS)), help="Not all; may be repeated."
)
@click.option("--quick", is_flag=True, help="A few seconds for each, and numbers that say little.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the page there.")
def main(only: tuple[str, ...], quick: bool, output: Path | None) -> None:  # noqa: FBT001 - a flag of the command line
    """Measure what the exporter costs, beside bare FastAPI and other instrumentations.

    Takes about five minutes. Exits with 1 when a target does not hold, with 5 when nothing could be said.
    """
    if output is not None and not output.parent.is_dir():
        raise click.BadParameter(f"There is no folder {output.parent}.", param_hint="--output")
    chosen = only or tuple(_MEASUREMENTS)
    options = [*(f"--only {name}" for name in only), *(["--quick"] if quick else [])]
    try:
        with Laboratory(QUICK if quick else Effort()) as laboratory:
            sections = list(_measured(chosen, laboratory))
            if output is not None:
                output.write_text(page(sections, laboratory, options), encoding="utf-8")
    except ChildError as error:
        click.echo(f"The benchmark could not be run. {error}", err=True)
        sys.exit(_COULD_NOT_RUN)
    click.echo("\n".join(targets_table(sections)))
    sys.exit(1 if failed(sections) else 0)


def _measured(chosen: Sequence[str], laboratory: Laboratory) -> Iterator[Section]:
    for name, measure in _MEASUREMENTS.items():
        if name in chosen:
            yield _shown(measure(laboratory))


def _shown(section: Section) -> Section:
    click.echo("\n".join((f"## {section.title}\n", section.text, "", *section.table, "")))
    return section


if __name__ == "__main__":
    main(prog_name="python -m cmo_bench.exporter")
