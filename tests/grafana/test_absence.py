"""An empty panel claims no more than is known: no traffic and no data look alike; *Targets up* decides."""

from __future__ import annotations

from typing import Final

import pytest
from cmo_dashboards import Dashboard, shipped_dashboards
from cmo_dashboards.document import defaults_of, panels

BOARDS: Final = {board.uid: board for board in shipped_dashboards()}
HELD: Final = [BOARDS[uid] for uid in ("cmo-overview", "cmo-components")]
KNOWN: Final = {
    "The service is not scraped",
    "No target is scraped",
    "No news of a prober",
    "Rules not loaded",
    "Prometheus does not answer",
}
"""Of series that are always there where something is scraped, or of what is asked alone."""


@pytest.mark.parametrize("board", HELD, ids=lambda board: board.uid)
def test_no_panel_claims_that_there_is_none_of_what_may_not_be_seen(board: Dashboard) -> None:
    said = {panel["title"]: defaults_of(panel)["noValue"] for panel in panels(board.document)}
    claims = {title: words for title, words in said.items() if words not in KNOWN}
    assert claims
    for title, words in claims.items():
        if title.startswith("Error budget left"):
            continue  # another dashboard's as well, and of roll-ups, which say what has not been recorded yet
        assert ", or " in words or ", if " in words, (title, words)


@pytest.mark.parametrize("board", HELD, ids=lambda board: board.uid)
def test_whether_anything_is_scraped_stands_in_the_first_row(board: Dashboard) -> None:
    placed = {panel["title"]: panel["gridPos"]["y"] for panel in panels(board.document)}
    assert placed["Targets up"] == min(placed.values())
