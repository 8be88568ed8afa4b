"""One user's question, as the rest of the service handles it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

Mode = Literal["naive", "local", "global", "hybrid", "mix"]
DEFAULT_MODE: Final[Mode] = "hybrid"


@dataclass(frozen=True)
class Question:
    """What is asked, and how LightRAG is to retrieve. The text never appears in the object's ``repr``."""

    text: str = field(repr=False)
    mode: Mode = DEFAULT_MODE
