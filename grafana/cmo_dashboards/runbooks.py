"""Runbooks as dashboards: what to do stands one click from what is red, wherever the dashboards are.

A folder of Markdown is no address that a browser opens, and not everybody publishes it. So each runbook is
also a dashboard of one text, whose uid is the name of its alert: ``/d/CMOServiceDown``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import text
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.text import TextMode

from cmo_dashboards.dashboard import TAG
from cmo_dashboards.finish import finish

if TYPE_CHECKING:
    from collections.abc import Collection

    from cmo_dashboards.document import Document

RUNBOOK_TAG: Final = "cmo-runbook"
"""Not the tag of the dashboards, which all link to each other by it."""
_TITLE: Final = re.compile(r"# (\w+)\n+")
_LINK: Final = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")
_HEIGHT: Final = 40


@dataclass(frozen=True)
class Runbook:
    """What to do when an alert fires; ``text`` is Markdown whose links lead to other runbooks alone."""

    alert: str
    text: str

    @property
    def document(self) -> Document:
        """Its dashboard."""
        board = (
            builders.Dashboard(self.alert)
            .uid(self.alert)
            .description(f"What to do when {self.alert} fires.")
            .tags([RUNBOOK_TAG])
            .timezone("browser")
            .time("now-1h", "now")
            .tooltip(models.DashboardCursorSync.CROSSHAIR)
            .readonly()
            .link(
                builders.DashboardLink("CMO dashboards")
                .type(models.DashboardLinkType.DASHBOARDS)
                .tags([TAG])
                .as_dropdown(as_dropdown=False)
                .keep_time(keep_time=True)
            )
            .with_panel(
                text.Panel()
                .title(f"Runbook of {self.alert}")
                .description("The text of docs/runbooks, as it was when the dashboards were built.")
                .mode(TextMode.MARKDOWN)
                .content(self.text)
                .span(24)
                .height(_HEIGHT)
            )
        )
        return finish(board.build())


def runbooks(folder: Path) -> tuple[Runbook, ...]:
    """Every runbook of a folder of Markdown files, each named and titled by its alert, in order of names.

    Raises:
        ValueError: a file has another title than its name.
        OSError: a file cannot be read.
    """
    files = sorted(folder.glob("CMO*.md"))
    alerts = {path.stem for path in files}
    return tuple(_runbook(path, alerts) for path in files)


def _runbook(path: Path, alerts: Collection[str]) -> Runbook:
    written = path.read_text(encoding="utf-8")
    title = _TITLE.match(written)
    if title is None or title[1] != path.stem:
        raise ValueError(f"{path} begins with no title of its alert; expected the line '# {path.stem}'")
    return Runbook(path.stem, _LINK.sub(lambda link: _relinked(link, alerts), written[title.end() :]))


def _relinked(link: re.Match[str], alerts: Collection[str]) -> str:
    """A link to another runbook leads to its dashboard; a page that is not in Grafana is named."""
    words, target = link.groups()
    if "://" in target:
        return link[0]
    file, _, _ = target.partition("#")
    if Path(file).stem in alerts and "/" not in file:
        return f"[{words}](/d/{Path(file).stem})"
    return words if file.rpartition("/")[2] in words else f"{words} (docs/{file.removeprefix('../')})"
