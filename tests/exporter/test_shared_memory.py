"""Memory that processes share is each one's resident memory, and is divided among them in PSS."""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
from typing import TYPE_CHECKING

from cmo_exporter import Exporter, ExporterSettings
from cmo_exporter.memory import proportional_bytes, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

WAIT = 60
MEBIBYTE = 1 << 20
SHARED = 64 * MEBIBYTE


def readings() -> tuple[float, float]:
    """Resident and proportional bytes of this process."""
    resident, proportional = resident_bytes(), proportional_bytes()
    assert resident is not None
    assert proportional is not None
    return resident, proportional


def _in_child(connection: Connection) -> None:
    connection.send(readings())
    connection.recv()  # lives on, and shares, until the parent has read its own


@contextlib.contextmanager
def sharing() -> Iterator[tuple[float, float]]:
    """A block of memory that a child has as well; the value is what the child reads of itself."""
    ours, theirs = multiprocessing.Pipe()
    with mmap.mmap(-1, SHARED, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        block.write(b"x" * SHARED)  # memory that nobody has touched is nobody's
        child = multiprocessing.get_context("fork").Process(target=_in_child, args=(theirs,))
        child.start()
        try:
            assert ours.poll(WAIT), "the child has not answered"
            yield ours.recv()
        finally:
            ours.send("enough")
            child.join(WAIT)
    assert child.exitcode == 0


def test_what_two_processes_share_is_counted_once_in_pss_and_twice_in_rss() -> None:
    with sharing() as (child_resident, child_proportional):
        resident, proportional = readings()
    for rss, pss in ((resident, proportional), (child_resident, child_proportional)):
        assert rss > SHARED, "the block is resident in each"
        assert rss - pss > SHARED * 0.4, "half of it is the other's"
    assert resident + child_resident - proportional - child_proportional > SHARED * 0.9
    assert proportional + child_proportional > SHARED, "and between them they have all of it"


def test_what_is_shared_is_in_the_series_of_rss_and_half_of_it_in_those_of_pss() -> None:
    exporter = Exporter(ExporterSettings())
    with sharing():
        shown = {
            (sample.name, sample.labels["kind"]): sample.value
            for family in exporter.registry.collect()
            for sample in family.samples
            if "kind" in sample.labels
        }
    rss, pss = shown["cmo_memory_bytes", "rss"], shown["cmo_memory_bytes", "pss"]
    assert rss - pss > SHARED * 0.4
    assert rss - shown["cmo_memory_high_water_bytes", "pss"] > SHARED * 0.4
    assert shown["cmo_memory_high_water_bytes", "rss"] - pss > SHARED * 0.4
