"""What a check finds wrong with a dashboard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cmo_dashboards.document import Document


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: where, what, and what was expected."""

    place: str
    wrong: str

    def __str__(self) -> str:
        return f"{self.place}: {self.wrong}"


Check = Callable[[Document], Iterator[Finding]]
