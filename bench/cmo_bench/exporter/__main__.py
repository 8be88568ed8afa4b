"""The command: ``python -m cmo_bench.exporter``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from cmo_bench.exporter.in_process import calls_in_process, requests_in_process
from cmo_bench.exporter.laboratory import QUICK, Effort, Laboratory
from cmo_bench.exporter.report import Section, failed, targets_table

if TYPE_CHECKING:
    from collections.abc import Callable

_MEASUREMENTS: Final[dict[str, Callable[[Laboratory], Section]]] = {
    "in-process": requests_in_process,
    "calls": calls_in_process,
}


@click.command()
@click.option(
    "--only", multiple=True, type=click.Choice(tuple(_MEASUREMENTS)), help="One measurement; several times."
)
@click.option("--quick", is_flag=True, help="Few rounds: seconds, and numbers that say little.")
def main(only: tuple[str, ...], quick: bool) -> None:  # noqa: FBT001 - a flag of the command line
    """Measure what the exporter costs, beside bare FastAPI and other instrumentations."""
    sections = []
    with Laboratory(QUICK if quick else Effort()) as laboratory:
        for name in only or tuple(_MEASUREMENTS):
            section = _MEASUREMENTS[name](laboratory)
            sections.append(section)
            click.echo("\n".join((f"\n## {section.title}\n", section.text, "", *section.table)))
    click.echo("\n".join(("", *targets_table(sections))))
    sys.exit(1 if failed(sections) else 0)


if __name__ == "__main__":
    main()
