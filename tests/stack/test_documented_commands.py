"""Every `cmo …` that a page or a dashboard names is a command, with options that it has.

A text outlives the command that it was written for, or is written before it; who reads it at 3 a.m. is told
"No such command".
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import pytest
from cmo_dashboards import shipped_dashboards
from cmo_dashboards.document import panels
from cmo_stack import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = sorted(
    path.relative_to(ROOT)
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md"))
)
IN_TEXT: Final = re.compile(r"`(?:\.venv/bin/)?(cmo [^`]+)`")
IN_BLOCK: Final = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?(cmo [a-z-].*?)(?:  +.*|  *#.*)?$", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_page_names_commands_that_exist(page: Path) -> None:
    assert list(_wrong((ROOT / page).read_text("utf-8"))) == []


def test_dashboards_name_commands_that_exist() -> None:
    for board in shipped_dashboards():
        texts = [board.description, *(panel["description"] for panel in panels(board.document))]
        assert list(_wrong("\n".join(texts))) == []


def test_other_commands_are_noticed() -> None:
    assert list(_wrong("Run `cmo compare`, `cmo stack fly`, `cmo check --by-magic`.\n")) == [
        "cmo compare",
        "cmo stack fly",
        "cmo check --by-magic",
    ]
    assert list(_wrong("$ cmo stack up --from-nowhere\n")) == ["cmo stack up --from-nowhere"]
    assert list(_wrong("`cmo stack up`, `cmo rules check FILES --help`, `cmo --version`\n")) == []


def _wrong(text: str) -> Iterator[str]:
    named = [match[1] for pattern in (IN_TEXT, IN_BLOCK) for match in pattern.finditer(text)]
    assert "`cmo " not in text or named
    for words in named:
        if not _is_a_command(words.split()[1:]):
            yield words


def _is_a_command(words: list[str]) -> bool:
    context = click.Context(cli.cli)
    command: click.Command = cli.cli
    while words and isinstance(command, click.Group) and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None:
            return False
        command, words = found, words[1:]
    options = {name for parameter in command.get_params(context) for name in parameter.opts}
    return {word.partition("=")[0] for word in words if word.startswith("-")} <= options
