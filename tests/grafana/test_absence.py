"""An empty panel claims no more than is known: no traffic and no data look alike; *Targets up* decides."""

from __future__ import annotations

import re
from typing import Final

import pytest
from cmo_dashboards import Dashboard, shipped_dashboards
from cmo_dashboards.document import defaults_of, panels, title_of

BOARDS: Final = shipped_dashboards()
SAYS_WHY: Final = re.compile(
    r"no (data|news)|scraped|(not|no rules) loaded|\bif\b|does not answer", re.IGNORECASE
)
"""Words for that nothing is there because nothing is known."""


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_no_panel_claims_that_there_is_none_of_what_may_not_be_seen(board: Dashboard) -> None:
    said = {title_of(panel): defaults_of(panel)["noValue"] for panel in panels(board.document)}
    assert said
    assert {title: words for title, words in said.items() if not SAYS_WHY.search(words)} == {}


@pytest.mark.parametrize(
    "board", [board for board in BOARDS if board.uid != "cmo-load-test"], ids=lambda board: board.uid
)
def test_whether_anything_is_scraped_stands_in_the_first_row(board: Dashboard) -> None:
    """But where runs of the past are compared: what is scraped now says nothing of them."""
    assert {"Targets up", "Scrape jobs up"} & {panel.title for panel in board.rows[0].panels}
