"""PromQL over series that are written down: a test of promtool's that is made for the moment."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cmo_stack.servers import Server


def ask_promtool(
    promtool: Server,
    folder: Path,
    tests: Sequence[dict[str, Any]],
    *,
    evaluated_every: str = "15s",
    rule_files: Sequence[Path] = (),
) -> str:
    """What promtool has to say of some tests, as its test files have them; nothing where all hold."""
    document = {
        "rule_files": [str(path) for path in rule_files],
        "evaluation_interval": evaluated_every,
        "tests": list(tests),
    }
    (folder / "test.yml").write_text(yaml.safe_dump(document))
    done = subprocess.run(
        [str(promtool.path), "test", "rules", "test.yml"],
        cwd=folder,
        env={**os.environ, **promtool.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert said or done.returncode == 0
    return said if done.returncode else ""
