"""Every dashboard of an objectives file, in the order of use, and those that the file has not enough for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cmo_dashboards.compliance import compliance
from cmo_dashboards.components import components
from cmo_dashboards.load_test import load_test
from cmo_dashboards.monitor import monitor
from cmo_dashboards.overview import overview
from cmo_dashboards.promised import LackingError
from cmo_dashboards.resources import resources

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cmo_slo.model import Objectives

    from cmo_dashboards.dashboard import Dashboard

_LONGEST_UID: Final = 40
"""Characters that Grafana takes."""


def _compliance(objectives: Objectives) -> Dashboard:
    """That of compliance, whose uid is the name of the objectives."""
    if objectives.name in _BUILDERS or len(objectives.name) > _LONGEST_UID:
        raise LackingError(f"a `name` of at most {_LONGEST_UID} characters that no other dashboard has")
    return compliance(objectives)


_BUILDERS: Final[Mapping[str, Callable[[Objectives], Dashboard]]] = {
    "cmo-overview": overview,
    "cmo-components": components,
    "": _compliance,
    "cmo-resources": resources,
    "cmo-load-test": load_test,
    "cmo-monitor": monitor,
}
"""By the uid of what each builds, in the order of use; one has none of its own."""


@dataclass(frozen=True)
class LeftOut:
    """A dashboard that shows something which the objectives lack."""

    uid: str
    lacking: str

    def told(self, source: str) -> str:
        """In a sentence, with the way to mend it; ``source`` is what people call the objectives."""
        return (
            f"{source}: the dashboard {self.uid} is left out, for want of {self.lacking}; add that as "
            "cmo-015.yml has it, or do without the dashboard: links to it lead nowhere."
        )


@dataclass(frozen=True)
class Built:
    """The dashboards of an objectives file in the order of use, and those that were left out."""

    dashboards: tuple[Dashboard, ...]
    left_out: tuple[LeftOut, ...]


def build_dashboards(objectives: Objectives) -> Built:
    """Build every dashboard that the objectives have enough for."""
    dashboards, left_out = [], []
    for uid, builder in _BUILDERS.items():
        try:
            dashboards.append(builder(objectives))
        except LackingError as error:
            left_out.append(LeftOut(uid or objectives.name, str(error)))
    return Built(tuple(dashboards), tuple(left_out))
