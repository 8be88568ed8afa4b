"""Several worker processes counted as one service: the directory through which they find each other.

Each worker keeps its numbers in a file of the directory, and whichever worker is scraped adds up all of them.
A worker takes the lowest free place. If somebody was in it before and is gone, killed or not, what is in
their file goes on being counted and their gauges are gone. When nobody is left the directory begins anew, as
a single process would.

A process is known by its id and start time, so a directory serves the workers of one machine, or of one
container, and no others.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import re
import secrets
from typing import TYPE_CHECKING, Final

from cmo_exporter.errors import SharedDirectoryError
from cmo_exporter.memory import process_start_ticks
from cmo_exporter.values import BLOCK_BYTES, PROCESS_ID, PROCESS_START, RESTARTS, Block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from cmo_exporter.values import Series, Values

_LOCK: Final = "lock"
# Whatever else lies in the directory is somebody else's and is left alone.
_OURS: Final = re.compile(r"[a-z0-9]+\.[0-9a-f]{12}(\.values|\.unfinished-[0-9a-f]{8})?")
_MOST_PLACES: Final = 1024


class SharedDirectory:
    """The workers of one service, as one of them sees them.

    Args:
        path: the directory; made, for this user alone, if it is not there.
        version: what workers must have in common to be added up: their metrics and closed lists.

    Raises:
        SharedDirectoryError: the directory cannot be used; the message says why and how to mend it.
    """

    def __init__(self, path: Path, version: str) -> None:
        self.path = path
        self._version = version
        self._blocks: dict[Path, tuple[int, Block]] = {}
        self.has_place = False
        """Whether this process is one of the workers."""
        self._prepare()

    def _prepare(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.path.stat()
        except OSError as error:
            raise SharedDirectoryError(
                f"shared_directory {self.path} cannot be made: {error.strerror}. "
                "Name a directory that the service may write in."
            ) from error
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise SharedDirectoryError(
                f"shared_directory {self.path} can be written by others than user {os.geteuid()}. "
                "Name a directory that belongs to the service alone (mode 0700)."
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory: nobody joins, leaves or is found missing meanwhile."""
        try:
            lock_file = self.path / _LOCK
            lock_file.touch(mode=0o600)
            with lock_file.open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                try:
                    yield
                finally:
                    # Closing would not do: a process forked meanwhile has the file, and with it the lock.
                    fcntl.flock(lock, fcntl.LOCK_UN)
        except OSError as error:
            raise SharedDirectoryError(
                f"shared_directory {self.path} cannot be used: {error.strerror}. "
                "Name a directory that the service may write in, with room for a few megabytes."
            ) from error
        except (ValueError, TypeError, OverflowError) as error:  # what reading a damaged file comes to
            raise SharedDirectoryError(
                f"shared_directory {self.path} holds a damaged file ({type(error).__name__}). "
                "Stop the service's workers, empty the directory and start them again."
            ) from error

    def begin_anew_if_empty(self) -> bool:
        """Remove what workers have left of whom none is there any more; hold the directory meanwhile.

        Returns:
            Whether nobody was there.
        """
        files = [file for file in self.path.iterdir() if _OURS.fullmatch(file.name)]
        if any(_alive(self._block(file)) for file in files if file.suffix == ".values"):
            return False
        for file in files:
            file.unlink()
        self._blocks.clear()
        return True

    def join(self, values: Values, counted: Callable[[Series], bool]) -> int:
        """Take the lowest free place and go on there; hold the directory meanwhile.

        Args:
            values: the block of this process.
            counted: whether a series of who was in the place before outlives them.

        Returns:
            The number of the place.
        """
        for place in range(_MOST_PLACES):
            file = self._file(place)
            before = self._block(file) if file.exists() else None
            if before is None or not _alive(before):
                self._take(file, values, before, counted)
                return place
        raise SharedDirectoryError(
            f"shared_directory {self.path} already serves {_MOST_PLACES} workers. "
            "Give another service its own."
        )

    def leave(self, values: Values, keep: Callable[[Series], bool]) -> None:
        """Give the place back; what was counted stays, but for the series that are to be kept."""
        self.has_place = False
        with values.lock:
            # First: of a worker that has left nobody waits for a change to end.
            values.journal.post()
            values.numbers[PROCESS_ID] = 0.0
            values.move_out(keep)

    def blocks(self) -> list[tuple[str, Block, bool]]:
        """Every worker's place, its block, and whether the worker is alive."""
        files = sorted(self.path.glob(f"*.{self._version}.values"), key=_place)
        found = []
        for file in files:
            with contextlib.suppress(FileNotFoundError):  # somebody is just taking the place
                block = self._block(file)
                found.append((str(_place(file)), block, _alive(block)))
        return found

    def file(self, name: str) -> Path:
        """A file of the directory, there for this user alone, that goes when the directory begins anew."""
        file = self.path / f"{name}.{self._version}"
        file.touch(mode=0o600)
        return file

    def memory(self, name: str, size_bytes: int) -> mmap.mmap:
        """A file of the directory as memory, zeros when it is new; hold the directory meanwhile.

        Raises:
            OSError: there is no room for it on the disk. Unnoticed, the first write would kill the service.
        """
        descriptor = os.open(self.file(name), os.O_RDWR | os.O_CLOEXEC)
        return _mapped(descriptor, size_bytes)

    def _take(
        self, file: Path, values: Values, before: Block | None, counted: Callable[[Series], bool]
    ) -> None:
        unfinished = file.with_suffix(f".unfinished-{secrets.token_hex(4)}")
        descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            shared = _mapped(descriptor, BLOCK_BYTES)
            values.move_into(shared, _inherited(before, counted))
            values.numbers[RESTARTS] = 0.0 if before is None else before.restarts + 1.0
            values.numbers[PROCESS_START] = float(process_start_ticks(os.getpid()) or 0)
            values.numbers[PROCESS_ID] = float(os.getpid())
            unfinished.replace(file)
            self.has_place = True
        except BaseException:
            if values.is_shared:
                values.move_out()
            unfinished.unlink(missing_ok=True)
            raise

    def _file(self, place: int) -> Path:
        return self.path / f"{place}.{self._version}.values"

    def _block(self, file: Path) -> Block:
        """The block of a file; the one that was mapped before, unless another file is there by now."""
        inode = file.stat().st_ino
        known = self._blocks.get(file)
        if known is None or known[0] != inode:
            descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
            known = self._blocks[file] = (inode, Block(_mapped(descriptor, BLOCK_BYTES)))
        return known[1]


def _place(file: Path) -> int:
    return int(file.name.partition(".")[0])


def _mapped(descriptor: int, size_bytes: int) -> mmap.mmap:
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
        return mmap.mmap(descriptor, size_bytes)
    finally:
        os.close(descriptor)


def _alive(block: Block) -> bool:
    process, start = block.process
    return process != 0 and process_start_ticks(process) == start


def _inherited(
    before: Block | None, counted: Callable[[Series], bool]
) -> Iterable[tuple[Series, list[float]]]:
    if before is None:
        return
    numbers = list(before.read())
    for series in before.series:
        if counted(series):
            yield series, numbers[series.base : series.base + series.width]
