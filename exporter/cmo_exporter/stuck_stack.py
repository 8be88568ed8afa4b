"""Where a thread is at this moment, as file, line and function of each frame and nothing else.

No values and no source lines: variables hold questions, and so may the text of a line. Of a library only the
innermost frame is told: `requests` and what it uses would fill the line before it comes to the service.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import CodeType, FrameType

_MOST_FRAMES: Final = 20
_LONGEST_NAME: Final = 60
_PATH_PARTS: Final = 3
_STANDARD_LIBRARY: Final = os.path.dirname(os.__file__)  # noqa: PTH120 - compared with file names as they are


def where_stuck(thread: int) -> str:
    """The frames of a thread, innermost first, as far out as the event loop."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - its public name
    if frame is None:
        return "a thread that Python does not know"
    places: list[str] = []
    library: str | None = None
    while frame is not None and not _is_the_loop(frame.f_code):
        of_library = _library(frame.f_code.co_filename)
        if of_library is None or of_library != library:
            if len(places) == _MOST_FRAMES:
                places.append("…")
                break
            places.append(_place(frame))
        library = of_library
        frame = frame.f_back
    return " < ".join(places) or "the event loop itself"


def _library(file: str) -> str | None:
    """What tells the libraries apart that a file may belong to; None for a file of the service itself."""
    for folder in ("/site-packages/", "/dist-packages/"):
        _, found, path = file.replace("\\", "/").partition(folder)
        if found:
            return path.partition("/")[0]
    return "the standard library" if file.startswith(_STANDARD_LIBRARY) else None


def _place(frame: FrameType) -> str:
    code = frame.f_code
    file = "/".join(code.co_filename.replace("\\", "/").split("/")[-_PATH_PARTS:])
    return f"{_tame(file)}:{frame.f_lineno} {_tame(code.co_name)}"


def _tame(name: str) -> str:
    """Code made at run time can have any name; none may break a log line or fill it."""
    kept = "".join(letter if letter.isprintable() else "?" for letter in name)
    return kept if len(kept) <= _LONGEST_NAME else f"…{kept[-_LONGEST_NAME:]}"


def _is_the_loop(code: CodeType) -> bool:
    return code.co_name == "_run" and code.co_filename.replace("\\", "/").endswith("asyncio/events.py")
