"""Calls that end later than the function that began them, and what an exception says of their outcome."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING

import pytest
from cmo_exporter import postponed_ends
from cmo_exporter.adapters.calls import OpenCall, outcome_of
from cmo_exporter.postponed_ends import catch_up

if TYPE_CHECKING:
    from cmo_exporter import Exporter

    from .readings import Readings

DEADLINE_SECONDS = 30


class Circle:
    """Refers to itself, so that only the collector can take it away, and a call with it."""

    def __init__(self, call: OpenCall) -> None:
        self.call = call
        self.itself = self


def test_a_call_that_the_collector_ends_is_put_aside_as_the_books_may_be_locked(
    adapted: Exporter, readings: Readings
) -> None:
    """It runs in whatever thread allocates, also in one that is just counting something."""
    collected = threading.Event()
    put_aside: list[int] = []
    catch_up()

    def collect_with_the_lock_held() -> None:
        with adapted.recorder.ledger._values.lock:
            gc.collect()
            put_aside.append(postponed_ends._waiting.qsize())
        collected.set()

    gc.disable()
    try:
        Circle(OpenCall(adapted.current_query().component("llm")))
        threading.Thread(target=collect_with_the_lock_held, daemon=True).start()
        assert collected.wait(DEADLINE_SECONDS), "the collector waits for the lock that its thread holds"
    finally:
        gc.enable()
    assert put_aside == [1]
    catch_up()
    assert readings.added("cmo_component_calls_total") == {
        ("cmo_component_calls_total", "live", "llm", "cancelled"): 1
    }


class StrangeError(Exception):
    """Keeps in ``status_code`` what nobody expects there."""

    def __init__(self, status: object) -> None:
        self.status = status

    @property
    def status_code(self) -> object:
        if self.status is None:
            raise RuntimeError
        return self.status


@pytest.mark.parametrize(
    ("status", "outcome"), [(429, "rejected"), (504, "timeout"), ([], "error"), (None, "error")]
)
def test_a_status_that_cannot_be_read_is_none(status: object, outcome: str) -> None:
    assert outcome_of(StrangeError(status)) == outcome
