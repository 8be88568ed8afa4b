"""Compiled rules as files: how they are written, which are shipped, and whether those are fresh and sound.

The edge of the compiler: `cmo_slo.compile` turns objectives into plain data, and here it becomes YAML that a
reviewer can read, with a head that says where it came from.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml
from cmo_exporter import catalogue

from cmo_slo.compile import DEFAULT_SCRAPE_INTERVAL, as_document, compile_rules
from cmo_slo.objectives import (
    find_objectives,
    json_schema,
    load_objectives,
    objectives_hash,
    shipped_directory,
    shipped_names,
)

if TYPE_CHECKING:
    from cmo_slo.model import Objectives

SHIPPED_SCRAPE_INTERVALS: Final = (DEFAULT_SCRAPE_INTERVAL, "1s")
"""Intervals that rules are committed for: everyday use, and the demo."""

_METRIC: Final = re.compile(r"(?<![\w:])(?:cmo_|http_server_)\w+")
_PROMTOOL_TIMEOUT_SECONDS: Final = 120


class _Dumper(yaml.SafeDumper):
    """Writes expressions as people write them: one that has several lines as a literal block."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


@dataclass(frozen=True)
class GeneratedFile:
    """A file that is made from objectives, and what it has to hold."""

    path: Path
    content: str

    @property
    def fresh(self) -> bool:
        """Whether the file is there and holds just that."""
        try:
            return self.path.read_text(encoding="utf-8") == self.content
        except OSError:
            return False

    def write(self) -> None:
        """Write the file, and its folder where that is missing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(self.content, encoding="utf-8")


def shipped_rules_directory() -> Path:
    """The folder of the rules that this project ships: inside the package in a wheel, else beside it."""
    package = Path(__file__).resolve().parent
    inside = package / "rules"
    return inside if inside.is_dir() else package.parent / "rules"


def rule_file_name(objectives: Objectives, scrape_interval: str) -> str:
    """What a compiled file is called: ``cmo-015.yml`` at the default interval, else ``cmo-015-1s.yml``."""
    suffix = "" if scrape_interval == DEFAULT_SCRAPE_INTERVAL else f"-{scrape_interval}"
    return f"{objectives.name}{suffix}.yml"


def render(objectives: Objectives, scrape_interval: str = DEFAULT_SCRAPE_INTERVAL) -> str:
    """The compiled rules of one objectives file, as YAML.

    Raises:
        CompileError: the interval is unusable, or a page could never fire.
    """
    document = as_document(compile_rules(objectives, scrape_interval))
    head = (
        f"# Compiled by `cmo rules build` from the objectives {objectives.name} "
        f"({objectives_hash(objectives)}), for a scrape interval of {scrape_interval}.\n"
        "# Change the objectives and build again; docs/objectives.md says what each series means.\n"
    )
    body: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
    return head + body


def shipped_files(directory: Path | None = None, schema_directory: Path | None = None) -> list[GeneratedFile]:
    """Every file that this project commits and that objectives determine, with what it has to hold.

    Args:
        directory: where rules go; where they are shipped by default.
        schema_directory: where the JSON Schema of objectives files goes; beside them by default.

    Raises:
        ObjectivesError: shipped objectives are wrong.
        CompileError: they cannot be compiled.
    """
    rules = directory or shipped_rules_directory()
    files = []
    for name in shipped_names():
        objectives = load_objectives(find_objectives(name))
        files += [
            GeneratedFile(rules / rule_file_name(objectives, interval), render(objectives, interval))
            for interval in SHIPPED_SCRAPE_INTERVALS
        ]
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    files.append(GeneratedFile((schema_directory or shipped_directory()) / "schema.json", schema))
    return files


def unknown_metrics(text: str) -> list[str]:
    """Metrics that rules, given as text, read and that the catalogue does not have."""
    known = {series for metric in catalogue.CATALOGUE for series in metric.series_names}
    return sorted(set(_METRIC.findall(text)) - known)


def promtool_complaint(promtool: Path, rules: Path) -> str | None:
    """What ``promtool check rules`` says against a file, ``None`` if nothing."""
    try:
        done = subprocess.run(
            [str(promtool), "check", "rules", "--lint-fatal", str(rules)],
            capture_output=True,
            text=True,
            timeout=_PROMTOOL_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"cannot be run: {error}"
    return None if done.returncode == 0 else (done.stderr or done.stdout).strip()
