"""The tile of catastrophes: processes that restarted in a test, and tests in which nobody got an answer.

Without a test there is no verdict, so a restart is then shown in grey; that nothing failed where nothing was
asked is no success.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_slo.indicators import ContinuityIndicator, RatioIndicator

from cmo_dashboards import expressions as promql
from cmo_dashboards.colours import verdict_steps
from cmo_dashboards.panels import Panel, Query, Shape, Unit
from cmo_dashboards.promised import find, target_text
from cmo_dashboards.scrapes import NOT_SCRAPED

if TYPE_CHECKING:
    from cmo_slo.model import Objectives

_MOST: Final = 1_000
_RESTARTS: Final = "restarts of {{instance}}"


def catastrophes(objectives: Objectives, *, width: int, height: int) -> Panel:
    """Restarts of each instance in the range, and its tests without a single real answer.

    Raises:
        ValueError: the file has no objective on catastrophes, or none on success.
    """
    objective, indicator = find(objectives, "no_catastrophic_failure", ContinuityIndicator)
    success, _ = find(objectives, "success", RatioIndicator)
    of = promql.Recorded(objectives.name, success.name)
    good = promql.good_events(of, promql.TESTS, promql.RANGE)
    total = promql.total_events(of, promql.TESTS, promql.RANGE)
    tested = f"({total}) {promql.enough(success.minimum_events)}"
    restarts = promql.restarts(indicator.start_time)
    return Panel(
        title=f"Catastrophic failures ({objective.title}: target {target_text(objective)})",
        shape=Shape.STAT,
        width=width,
        height=height,
        unit=Unit.COUNT,
        answers="Did a process restart, or did nobody at all get a real answer in a test? A restart loses "
        "events, so that other objectives become INCONCLUSIVE. A colour is a verdict, which needs a test of "
        f"{success.minimum_events} queries; grey is none.",
        when_red="If nobody deployed, look for the end of the process in its log, memory first: *Peaks of "
        "memory* in *Resources*. A test without an answer: *Success rate over time* says since when.",
        queries=(
            Query(f"{restarts} and on () ({tested})", _RESTARTS, 0, _MOST),
            Query(
                f"count(({tested}) unless ({good} > 0)) or 0 * count({tested})",
                "tests without an answer",
                0,
                _MOST,
            ),
            Query(
                f"{restarts} unless on () ({tested})",
                f"{_RESTARTS}, no test",
                0,
                _MOST,
                judged=False,
                may_be_empty=True,
            ),
        ),
        steps=verdict_steps(objective),
        no_value=NOT_SCRAPED,
        decimals=0,
    )
