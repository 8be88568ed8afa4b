"""A demo that is ended in the middle of its load leaves no process and no listening socket behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import PATIENCE_SECONDS, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

CMO = Path(sys.executable).with_name("cmo")
PROGRESS = re.compile(r"\d+/\d+ operations, \d+ failed")
# How each process of a demo under load can be told from the others.
PARTS = {
    "the demo": r"/cmo demo$",
    "the load": r"-m locust ",
    "the service": r"-m cmo_oracle ",
    "the prober": r"-m cmo_stack\.cli probe ",
    "the upstream stub": r"-m cmo_oracle\.upstream ",
    "the pager": r"-m cmo_stack\.pager ",
    "redis": r"redis-server",
    "prometheus": r"--storage\.tsdb\.path",
    "alertmanager": r"--cluster\.listen-address",
}


def ctrl_c(demo: subprocess.Popen[str]) -> None:
    """What a terminal does: everything in the foreground is told, not the demo alone."""
    os.killpg(demo.pid, signal.SIGINT)


def crash(demo: subprocess.Popen[str]) -> None:
    demo.kill()


@pytest.mark.parametrize(("end", "status"), [(ctrl_c, 130), (crash, -signal.SIGKILL)])
def test_a_demo_ended_in_mid_load_leaves_nothing(
    end: Callable[[subprocess.Popen[str]], None], status: int, tmp_path: Path, index_directory: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (tmp_path / "index").symlink_to(index_directory)
    environment = {**os.environ, "CMO_STATE_DIR": str(tmp_path), "TMPDIR": str(scratch)}
    with subprocess.Popen(
        [CMO, "demo"], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as demo:
        try:
            assert demo.stderr is not None
            assert any(map(PROGRESS.search, demo.stderr)), "the load has made no progress"
            under_way = processes_of(tmp_path)
            lines = under_way.values()
            missing = [
                name for name, sign in PARTS.items() if not any(re.search(sign, line) for line in lines)
            ]
            assert not missing, under_way
            sockets = listening(under_way)
            assert len(sockets) >= len(PARTS) - 2, "all but the demo and the load listen"
            end(demo)
            demo.wait(PATIENCE_SECONDS)
        finally:
            demo.kill()
    assert demo.returncode == status
    if status == 130:
        assert not processes_of(tmp_path), "a demo that ends in order ends after its parts"
        assert not list(scratch.iterdir())
    wait_until("the end of every process", lambda: not processes_of(tmp_path))
    # A process that is being killed loses its environment before its sockets.
    wait_until("the end of every socket", lambda: not sockets & set(socket_table()))


def processes_of(state: Path) -> dict[int, str]:
    """The command lines of the processes that know of a state directory, by process id.

    Redis writes its title over its environment; it works in the directory.
    """
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            known = (folder / "environ").read_bytes() + bytes((folder / "cwd").readlink())
            if str(state).encode() in known:
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ").strip()
        except OSError:  # it has ended, or is another user's
            continue
    return found


def socket_table() -> list[str]:
    """The inodes of all listening sockets."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row[9] for row in rows if row[3] == "0A"]


def listening(processes: dict[int, str]) -> set[str]:
    """The inodes of the listening sockets of some processes."""
    links = set()
    for pid in processes:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                links.add(str(link.readlink()))
    return {link.removeprefix("socket:[").rstrip("]") for link in links} & set(socket_table())
