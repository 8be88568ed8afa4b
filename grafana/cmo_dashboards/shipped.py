"""The dashboards and runbooks that come with this project, and where their compiled JSON lies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cmo_slo.objectives import load_objectives, shipped_directory

from cmo_dashboards.building import build_dashboards
from cmo_dashboards.finish import text_of
from cmo_dashboards.promised import published_runbooks, with_runbooks
from cmo_dashboards.runbooks import Runbook, runbooks

if TYPE_CHECKING:
    from cmo_slo.model import Objectives

    from cmo_dashboards.dashboard import Dashboard

_COMPLIANCE_OBJECTIVES: Final = "cmo-015.yml"
_MATCHER: Final = re.compile(r'\b(slo|job)=\\"([^"\\]+)\\"')
"""Of a query in the JSON of a runbook, in which quotes are marked."""


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
        ValueError: the address is none.
    """
    objectives = shipped_objectives()
    if runbooks is not None:
        objectives = with_runbooks(objectives, runbooks)
    return build_dashboards(objectives).dashboards


def shipped_runbooks() -> tuple[Runbook, ...]:
    """Every runbook, from `docs/runbooks` of the checkout; none where the package is installed elsewhere.

    Raises:
        ValueError: a runbook has another title than its name.
    """
    return runbooks(Path(__file__).resolve().parents[2] / "docs/runbooks")


def runbook_texts(objectives: Objectives) -> dict[str, str]:
    """The runbooks' compiled files by name, with queries that ask for the objectives' own name and jobs.

    None where runbooks are published: links lead there.

    Raises:
        ValueError: a runbook has another title than its name.
    """
    if published_runbooks(objectives) is not None:
        return {}
    texts = {runbook_file_name(one): text_of(one.document) for one in shipped_runbooks()} or {
        f"runbooks/{path.name}": path.read_text(encoding="utf-8")
        for path in sorted(compiled_directory().glob("runbooks/*.json"))
    }
    shipped = shipped_objectives()
    others = {
        ("slo", shipped.name): objectives.name,
        ("job", shipped.service.job): objectives.service.job,
        ("job", shipped.service.probe_job): objectives.service.probe_job,
    }

    def renamed(found: re.Match[str]) -> str:
        label, name = found.groups()
        return f'{label}=\\"{others.get((label, name), name)}\\"'

    return {name: _MATCHER.sub(renamed, text) for name, text in texts.items()}


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
