"""The command: ``python -m cmo_bench.rules``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from cmo_slo.objectives import ObjectivesError
from cmo_stack.process import ProcessFailedError
from cmo_stack.servers import ServerMissingError

from cmo_bench.exporter.report import Section, failed, targets_table
from cmo_bench.rules.cost import cost, cost_by_group, cost_by_rule
from cmo_bench.rules.exactness import exactness
from cmo_bench.rules.laboratory import QUICK, Effort, Laboratory
from cmo_bench.rules.page import data, page
from cmo_bench.rules.paging import paging
from cmo_bench.rules.server import MeasurementError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


def _paging(laboratory: Laboratory) -> Section:
    return paging(laboratory.directory / "paging", laboratory.effort.paces, laboratory.effort.repetitions)


_MEASUREMENTS: Final[dict[str, tuple[Callable[[Laboratory], Section], ...]]] = {
    "cost": (cost, cost_by_group, cost_by_rule),
    "exactness": (exactness,),
    "data": (data,),
    "paging": (_paging,),
}

_COULD_NOT_RUN: Final = 5


@click.command()
@click.option(
    "--only", multiple=True, type=click.Choice(tuple(_MEASUREMENTS)), help="Not all; may be repeated."
)
@click.option("--quick", is_flag=True, help="Two days, the 1 s files alone, and numbers that say little.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the page there.")
def main(only: tuple[str, ...], quick: bool, output: Path | None) -> None:  # noqa: FBT001 - a flag of the command line
    """Measure what the compiled rules read, how true they are and how soon they page, beside Sloth and Pyrra.

    Takes about ten minutes. Exits with 1 when a target does not hold, with 5 when nothing could be said.
    """
    if output is not None and not output.parent.is_dir():
        raise click.BadParameter(f"There is no folder {output.parent}.", param_hint="--output")
    began = time.monotonic()
    options = [*(f"--only {name}" for name in only), *(["--quick"] if quick else [])]
    try:
        with Laboratory(QUICK if quick else Effort()) as laboratory:
            sections = list(_measured(only or tuple(_MEASUREMENTS), laboratory))
            minutes = (time.monotonic() - began) / 60
            if output is not None:
                output.write_text(page(sections, laboratory, options, minutes), encoding="utf-8")
    except (MeasurementError, ProcessFailedError, ServerMissingError, ObjectivesError) as error:
        click.echo(f"The benchmark could not be run. {error}", err=True)
        sys.exit(_COULD_NOT_RUN)
    click.echo("\n".join(targets_table(sections)))
    sys.exit(1 if failed(sections) else 0)


def _measured(chosen: Sequence[str], laboratory: Laboratory) -> Iterator[Section]:
    for name, measurements in _MEASUREMENTS.items():
        if name in chosen:
            for measure in measurements:
                yield _shown(measure(laboratory))


def _shown(section: Section) -> Section:
    click.echo("\n".join((f"## {section.title}\n", section.text, "", *section.table, "")))
    return section


if __name__ == "__main__":
    main(prog_name="python -m cmo_bench.rules")
