"""Which source this is, for ``cmo_build_info``: a run on changed sources should not pass for another."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

UNKNOWN: Final = "unknown"
_PATIENCE_SECONDS: Final = 2.0


def revision(root: Path | None = None) -> str:
    """The short hash of a checkout, with ``-dirty`` when its files have changed; else ``unknown``.

    Args:
        root: the checkout; by default the one that this code lies in. A repository around it does not count:
            an installed distribution may lie anywhere.
    """
    root = root or Path(__file__).resolve().parents[2]
    command = ["git", f"--git-dir={root / '.git'}", f"--work-tree={root}", "--no-optional-locks"]
    command += ["describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=root, timeout=_PATIENCE_SECONDS
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return UNKNOWN
    return done.stdout.strip() or UNKNOWN
