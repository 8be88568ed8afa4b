"""Make an unpacked Alertmanager find its own templates.

Debian's Alertmanager reads its notification templates from a path under ``/usr/share`` that is fixed in the
program, no option names another, and without them it does not start. So the path in the unpacked copy is
replaced by one of the same length that leads through an open file descriptor, and a small script in the
program's place opens that descriptor on the unpacked folder. The copy then works for any user, from any
folder, wherever it is moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_SHARE: Final = "usr/share/prometheus/alertmanager"
_FIXED: Final = f"/{_SHARE}".encode()
_THROUGH_DESCRIPTOR: Final = b"/proc/self/fd/9".ljust(len(_FIXED), b"/")
_PROGRAM: Final = "usr/bin/prometheus-alertmanager"
_MOVED_PROGRAM: Final = "usr/lib/cmo/prometheus-alertmanager"
_SCRIPT: Final = f"""\
#!/bin/sh
# The program itself is in {_MOVED_PROGRAM}; it finds its templates through descriptor 9.
root=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd) || exit
exec 9<"$root/{_SHARE}" || exit
exec "$root/{_MOVED_PROGRAM}" "$@"
"""


def relocate_alertmanager(root: Path) -> bool:
    """Mend the Alertmanager unpacked in ``root``; False when there is none that needs it."""
    program = root / _PROGRAM
    moved = root / _MOVED_PROGRAM
    if moved.exists() or not program.is_file() or not (root / _SHARE).is_dir():
        return False
    content = program.read_bytes()
    if _FIXED not in content:
        return False
    moved.parent.mkdir(parents=True, exist_ok=True)
    moved.write_bytes(content.replace(_FIXED, _THROUGH_DESCRIPTOR))
    moved.chmod(0o755)
    program.unlink()
    program.write_text(_SCRIPT)
    program.chmod(0o755)
    return True
