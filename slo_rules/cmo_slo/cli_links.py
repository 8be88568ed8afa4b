"""Options that say where links of compiled alerts lead, so that nobody has to edit what is shipped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.core import ParameterSource

from cmo_slo.link_address import EXPECTED_ADDRESS, wrong_with_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmo_slo.model import Objectives

_OPTIONS: Final = {"runbooks_url": "--runbooks-url", "dashboards_url": "--dashboards-url"}

_Command = TypeVar("_Command", bound="Callable[..., Any]")


def link_options(command: _Command) -> _Command:
    """Add ``--runbooks-url`` and ``--dashboards-url`` to a command that compiles objectives."""
    runbooks = click.option(
        "--runbooks-url",
        envvar="CMO_RUNBOOKS_URL",
        show_envvar=True,
        metavar="URL",
        callback=_address,
        help="What links to runbooks begin with, in place of links.runbooks of the objectives.",
    )
    dashboards = click.option(
        "--dashboards-url",
        envvar="CMO_DASHBOARDS_URL",
        show_envvar=True,
        metavar="URL",
        callback=_address,
        help="Address of Grafana, in place of links.dashboards of the objectives.",
    )
    return runbooks(dashboards(command))


def with_links(objectives: Objectives, runbooks_url: str | None, dashboards_url: str | None) -> Objectives:
    """The same objectives with links that lead elsewhere, as far as that is said."""
    said = {"runbooks": runbooks_url, "dashboards": dashboards_url}
    links = objectives.links.model_copy(update={name: url for name, url in said.items() if url is not None})
    return objectives.model_copy(update={"links": links})


def links_given_as_flags(context: click.Context) -> list[str]:
    """Those of the options that stand on the command line, and not in variables."""
    return [
        option
        for name, option in _OPTIONS.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]


def links_given_as_variables(context: click.Context) -> bool:
    """Whether variables say where links lead."""
    return any(context.get_parameter_source(name) is ParameterSource.ENVIRONMENT for name in _OPTIONS)


def _address(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    wrong = None if value is None else wrong_with_address(value)
    if wrong is not None:
        raise click.BadParameter(f"{wrong}; expected {EXPECTED_ADDRESS}.", context, parameter)
    return value
