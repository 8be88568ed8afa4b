"""A real Prometheus on a past that a test makes up: raw series first, then what rules would have recorded.

``promtool tsdb create-blocks-from rules`` asks a running Prometheus for each rule at each moment at which its
group would have been evaluated. A rule does not see what others record in the same pass, so there is a pass
for each layer of recorded series, and the server opens the new blocks in between.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import requests
import yaml
from cmo_slo.durations import SECOND, parse_duration
from cmo_stack import servers
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_ONE_BLOCK: Final = "--max-block-duration=24h"  # promtool reads a text, and asks for a rule, once a block
_RECORDED: Final = re.compile(r'\b([a-z_]+:[\w:]+)(?:{[^}]*?window="(\w+)")?')
Point = tuple[int, float]  # when, in Unix seconds, and what


@dataclass
class Past:
    """A Prometheus that scrapes nothing, on a folder of blocks; a context manager."""

    server: servers.Server
    folder: Path
    url: str = ""
    _process: ManagedProcess | None = field(default=None, repr=False)

    def __enter__(self) -> Past:
        (self.folder / "data").mkdir(parents=True)
        (self.folder / "prometheus.yml").write_text("global: {scrape_interval: 15s}\n")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def store(self, series: Mapping[str, list[Point]]) -> None:
        """Store series as they are, by their names and labels."""
        text = self.folder / "raw.om"
        with text.open("w", encoding="utf-8") as file:
            for name, points in series.items():
                file.write("".join(f"{name} {value!r} {at}\n" for at, value in points))
            file.write("# EOF\n")
        self._promtool(_ONE_BLOCK, "openmetrics", "--quiet", str(text), str(self.folder / "data"))
        self._reopen()

    def take_over(self, folder: Path) -> None:
        """Begin with what another one has stored and recorded in its folder, and has ended."""
        shutil.copytree(folder / "data", self.folder / "data", dirs_exist_ok=True)
        self._reopen()

    def evaluate(self, rules: dict[str, Any], start: int, end: int) -> None:
        """Record what the rules would have recorded, each group at its own interval."""
        for layer in _layers(rules):
            # Always the same name: the moments of evaluation follow from it, and from the group's.
            (self.folder / "rules.yml").write_text(yaml.safe_dump(layer))
            options = (f"--url={self.url}", f"--start={start}", f"--end={end}")
            self._promtool(_ONE_BLOCK, "rules", *options, f"--output-dir={self.folder / 'data'}", "rules.yml")
            self._reopen()

    def query(self, expression: str, start: int, end: int, step: str) -> list[dict[str, Any]]:
        """What an expression says at each step."""
        answer = requests.post(
            f"{self.url}/api/v1/query_range",
            data={"query": expression, "start": start, "end": end, "step": parse_duration(step) // SECOND},
            timeout=120,
        ).json()
        assert answer["status"] == "success", answer
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def _promtool(self, *arguments: str) -> None:
        tool = next(one for one in servers.installed("promtool") if one.version == self.server.version)
        done = subprocess.run(
            [str(tool.path), "tsdb", "create-blocks-from", *arguments],
            cwd=self.folder,
            env={**os.environ, **tool.environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)

    def _reopen(self) -> None:
        """A server sees the blocks that were there when it started."""
        self._stop()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._process = ManagedProcess(
            self.server.label,
            [
                str(self.server.path),
                f"--config.file={self.folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                "--storage.tsdb.retention.time=100y",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            log_path=self.folder / "log",
            ready=self._ready,
            environment=self.server.environment,
        ).start()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def _ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/-/ready", timeout=1).ok
        except requests.RequestException:
            return False


def _layers(rules: dict[str, Any]) -> list[dict[str, Any]]:
    """The recording rules by how many others they build on, one file a layer."""
    recording = [(group, rule) for group in rules["groups"] for rule in group["rules"] if "record" in rule]
    read = [_RECORDED.findall(rule["expr"]) for _, rule in recording]

    @cache
    def layer(number: int) -> int:
        below = (layer(other) for other, (_, rule) in enumerate(recording) if _records(rule, read[number]))
        return 1 + max(below, default=-1)

    found: dict[int, dict[str, dict[str, Any]]] = {}
    for number, (group, rule) in enumerate(recording):
        of_layer = found.setdefault(layer(number), {})
        of_layer.setdefault(group["name"], {**group, "rules": []})["rules"].append(rule)
    return [{"groups": list(groups.values())} for _, groups in sorted(found.items())]


def _records(rule: dict[str, Any], read: list[tuple[str, str]]) -> bool:
    """Whether a rule records any of these, of the window that is read, if one is named."""
    own = rule.get("labels", {}).get("window")
    return any(name == rule["record"] and window in ("", own) for name, window in read)
