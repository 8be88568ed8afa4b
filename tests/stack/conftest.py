"""Waiting for what will come, and telling whether a process lives."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

_DEADLINE_SECONDS = 120.0


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool], str], None]:
    """Returns when a condition holds; fails when it does not for a long time."""

    def wait(condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"still waiting until {what}"
            time.sleep(0.02)

    return wait


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Tells whether a process exists and has not ended."""

    def ask(pid: int) -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state not in {"Z", "X"}

    return ask
