"""What a runbook is made of: its headings, the three things to look at, its queries, the figures in it.

A page is read by somebody who has just been woken, so every page has one form, and what is wrong with one is
told in words. Nothing here runs a query: `test_runbooks` does.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from functools import cached_property

THREE_THINGS = "First three things to look at"
OVER = "It is over when"
HEADINGS = ("Meaning", "Impact", THREE_THINGS, "Likely causes", "Mitigate", OVER)
LAST_IF_ANY = "Practise it"

_FENCED = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S)
_HEADING = re.compile(r"^## +(.*?) *$", re.M)
_NUMBERED = re.compile(r"^(\d+)\. ", re.M)
_LINK = re.compile(r"\]\(([^)#\s]+)")

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_UNIT = r"(?:s|sec(?:ond)?s?|m|min(?:ute)?s?|h|hours?|d|days?|w|weeks?)(?![A-Za-z])"
_PART = rf"(?:\d+(?:\.\d+)?[ -]?|\b(?:[Aa]n?|[Oo]ne)[ -]){_UNIT}"
_FIGURE = re.compile(
    rf"(?P<percent>\d+(?:\.\d+)?) ?%|(?P<time>{_PART}(?: ?{_PART})*)|(?P<number>\d+(?:\.\d+)?)"
)
_TIME_PART = re.compile(rf"(\d+(?:\.\d+)?|[Aa]n?|[Oo]ne)(?: |-)?({_UNIT})")


@dataclass(frozen=True)
class Query:
    """One expression to paste, and the line that it begins at."""

    text: str
    line: int


@dataclass(frozen=True)
class Page:
    """The text of a runbook; ``name`` is that of its alert."""

    name: str
    text: str

    @cached_property
    def prose(self) -> str:
        """All but what stands in fences."""
        return _FENCED.sub("", self.text)

    @cached_property
    def head(self) -> str:
        """What stands above the first heading: the title, and who hears of it."""
        return _HEADING.split(self.text, maxsplit=1)[0]

    @cached_property
    def headings(self) -> tuple[str, ...]:
        """The headings of its sections, in order."""
        return tuple(_HEADING.findall(self.prose))

    @cached_property
    def queries(self) -> tuple[Query, ...]:
        """Every block of PromQL."""
        return tuple(
            Query(
                textwrap.dedent(match["text"]).strip(),
                self.text.count("\n", 0, match.start("text")) + 1,
            )
            for match in _FENCED.finditer(self.text)
            if match["language"] == "promql"
        )

    @property
    def links(self) -> tuple[str, ...]:
        """Where its prose links to within this project."""
        return tuple(link for link in _LINK.findall(self.prose) if "://" not in link)

    def section(self, heading: str) -> str:
        """The text below a heading, empty where there is none."""
        _, _, rest = self.text.partition(f"\n## {heading}\n")
        return _HEADING.split(rest, maxsplit=1)[0]


def mistakes_of_form(page: Page) -> list[str]:
    """What keeps a page from having the form that all of them have."""
    found = []
    if not page.text.startswith(f"# {page.name}\n\n"):
        found.append(f"expected the title '# {page.name}' and an empty line at the top")
    if page.headings not in (HEADINGS, (*HEADINGS, LAST_IF_ANY)):
        found.append(f"expected the headings {HEADINGS} and perhaps {LAST_IF_ANY!r}, found {page.headings}")
    found += [
        f"nothing stands below {heading!r}" for heading in HEADINGS if not page.section(heading).strip()
    ]
    if page.text.count("```promql") != len(page.queries):
        found.append("a block of promql is not closed where it was opened")
    return found + _mistakes_of_the_three(page.section(THREE_THINGS)) + _mistakes_of_the_end(page)


def _mistakes_of_the_three(section: str) -> list[str]:
    _, *parts = _NUMBERED.split(section)
    numbers, things = parts[::2], parts[1::2]
    if numbers != ["1", "2", "3"]:
        return [f"expected three things, numbered 1, 2, 3; found {numbers}"]
    return [
        f"thing {number} has no block of promql"
        for number, thing in zip(numbers, things, strict=True)
        if not _has_query(thing)
    ]


def _mistakes_of_the_end(page: Page) -> list[str]:
    return [] if _has_query(page.section(OVER)) else [f"{OVER!r} has no block of promql"]


def _has_query(text: str) -> bool:
    return any(match["language"] == "promql" for match in _FENCED.finditer(text))


def figures(text: str) -> set[str]:
    """The numbers of a text in one spelling: ``10 %`` as 10%, ``2m45s`` and ``2 min 45 s`` as 165 s."""
    return {_one_spelling(match) for match in _FIGURE.finditer(text)}


def _one_spelling(figure: re.Match[str]) -> str:
    if figure["percent"]:
        return f"{float(figure['percent']):g}%"
    if figure["number"]:
        return f"{float(figure['number']):g}"
    parts = _TIME_PART.findall(figure["time"])
    return f"{sum(_amount(amount) * _SECONDS[unit[0]] for amount, unit in parts):g} s"


def _amount(text: str) -> float:
    return float(text) if text[0].isdigit() else 1.0
