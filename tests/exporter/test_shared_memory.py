"""Memory that processes share is each one's resident memory, and is divided among them in PSS."""

from __future__ import annotations

import mmap
import multiprocessing
from typing import TYPE_CHECKING

from cmo_exporter.memory import proportional_bytes, resident_bytes

if TYPE_CHECKING:
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


def test_what_two_processes_share_is_counted_once_in_pss_and_twice_in_rss() -> None:
    ours, theirs = multiprocessing.Pipe()
    with mmap.mmap(-1, SHARED, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        block.write(b"x" * SHARED)  # memory that nobody has touched is nobody's
        child = multiprocessing.get_context("fork").Process(target=_in_child, args=(theirs,))
        child.start()
        try:
            assert ours.poll(WAIT), "the child has not answered"
            child_resident, child_proportional = ours.recv()
            resident, proportional = readings()
        finally:
            ours.send("enough")
            child.join(WAIT)
    assert child.exitcode == 0
    for rss, pss in ((resident, proportional), (child_resident, child_proportional)):
        assert rss > SHARED, "the block is resident in each"
        assert rss - pss > SHARED * 0.4, "half of it is the other's"
    assert resident + child_resident - proportional - child_proportional > SHARED * 0.9
    assert proportional + child_proportional > SHARED, "and between them they have all of it"
