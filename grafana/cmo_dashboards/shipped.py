"""The dashboards that come with this project, and where their compiled JSON lies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from cmo_slo.objectives import load_objectives, shipped_directory

from cmo_dashboards.compliance import compliance
from cmo_dashboards.components import components
from cmo_dashboards.load_test import load_test
from cmo_dashboards.monitor import monitor
from cmo_dashboards.overview import overview
from cmo_dashboards.promised import with_runbooks
from cmo_dashboards.resources import resources
from cmo_dashboards.runbooks import Runbook, runbooks

if TYPE_CHECKING:
    from cmo_slo.model import Objectives

    from cmo_dashboards.dashboard import Dashboard

_COMPLIANCE_OBJECTIVES: Final = "cmo-015.yml"


def shipped_objectives() -> Objectives:
    """The objectives that the dashboards of this project are built from.

    Raises:
        cmo_slo.objectives.ObjectivesError: the objectives file is wrong.
    """
    return load_objectives(shipped_directory() / _COMPLIANCE_OBJECTIVES)


def shipped_dashboards(runbooks: str | None = None) -> tuple[Dashboard, ...]:
    """Every dashboard of this project, built anew from the objectives that come with it, in the order of use.

    Args:
        runbooks: the address where runbooks are published, in place of the objectives' ``links.runbooks``.

    Raises:
        cmo_slo.objectives.ObjectivesError: the objectives file is wrong.
        ValueError: the address is none, or the objectives lack something that a dashboard shows.
    """
    objectives = shipped_objectives()
    if runbooks is not None:
        objectives = with_runbooks(objectives, runbooks)
    built = (overview, components, compliance, resources, load_test, monitor)
    return tuple(made(objectives) for made in built)


def shipped_runbooks() -> tuple[Runbook, ...]:
    """Every runbook, from `docs/runbooks` of the checkout; none where the package is installed elsewhere.

    Raises:
        ValueError: a runbook has another title than its name.
    """
    return runbooks(Path(__file__).resolve().parents[2] / "docs/runbooks")


def compiled_directory() -> Path:
    """The folder of compiled dashboards: in a wheel inside the package, else beside it."""
    package = Path(__file__).resolve().parent
    inside = package / "dashboards"
    return inside if inside.is_dir() else package.parent / "dashboards"


def file_name(dashboard: Dashboard) -> str:
    """The name of a dashboard's compiled file."""
    return f"{dashboard.uid}.json"


def runbook_file_name(runbook: Runbook) -> str:
    """The name of a runbook's compiled file, below the folder of the dashboards."""
    return f"runbooks/{runbook.alert}.json"
