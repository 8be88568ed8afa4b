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
from typing import TYPE_CHECKING, Any, Final

import yaml

from cmo_slo.compile import DEFAULT_SCRAPE_INTERVAL, compile_rules
from cmo_slo.objectives import (
    find_objectives,
    json_schema,
    load_objectives,
    objectives_hash,
    shipped_directory,
    shipped_names,
)
from cmo_slo.rule import as_document, as_operator_manifest
from cmo_slo.rule_tests import generate_rule_tests
from cmo_slo.text_file import UnreadableFileError, read_text_file, write_text_file

if TYPE_CHECKING:
    from cmo_slo.model import Objectives

SHIPPED_SCRAPE_INTERVALS: Final = (DEFAULT_SCRAPE_INTERVAL, "1s")
"""Intervals that rules are committed for: everyday use, and the demo."""

LARGEST_RULE_FILE_BYTES: Final = 10_000_000
"""Files of rules that are larger are not read; ours has 0.1 MB."""

RULE_TESTS: Final = "rule_tests"
"""The folder of the tests of compiled rules, beside theirs."""

_PROMTOOL_TIMEOUT_SECONDS: Final = 120
_COMPILED_FOR: Final = re.compile(r"# Compiled by `cmo rules build` .*, for a scrape interval of (\w+)\.$")


class _Dumper(yaml.SafeDumper):
    """Writes expressions as people write them: several lines as a literal block, and no anchors."""

    def ignore_aliases(self, data: object) -> bool:
        """Whether something that stands twice is written twice: always."""
        del data
        return True


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
    def holds_rules(self) -> bool:
        """Whether Prometheus or its Operator would load it; the schema and rule tests are for others."""
        return self.path.suffix in (".yml", ".yaml") and self.path.parent.name != RULE_TESTS

    @property
    def fresh(self) -> bool:
        """Whether the file is there and holds just that."""
        try:
            return read_text_file(self.path, LARGEST_RULE_FILE_BYTES) == self.content
        except (OSError, UnreadableFileError):
            return False

    @property
    def compiled_for(self) -> str | None:
        """The scrape interval in the head of the file that is there, ``None`` if it says none."""
        try:
            head, _, _ = read_text_file(self.path, LARGEST_RULE_FILE_BYTES).partition("\n")
        except (OSError, UnreadableFileError):
            return None
        said = _COMPILED_FOR.match(head)
        return said[1] if said else None

    def write(self) -> None:
        """Write the whole file or nothing, and its folder where that is missing.

        A file that is there keeps its mode, and a link still points to it. Pipes and devices are written to.

        Raises:
            OSError: it cannot be written; what was there before is still there.
        """
        write_text_file(self.path, self.content)


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
    """The compiled rules of one objectives file, as a rule file of Prometheus.

    Raises:
        CompileError: the interval is unusable.
    """
    return _head(objectives, scrape_interval) + _yaml(as_document(compile_rules(objectives, scrape_interval)))


def render_for_operator(objectives: Objectives, scrape_interval: str = DEFAULT_SCRAPE_INTERVAL) -> str:
    """The same as a ``PrometheusRule`` of the Prometheus Operator.

    Raises:
        CompileError: the interval is unusable.
    """
    manifest = as_operator_manifest(objectives.name, compile_rules(objectives, scrape_interval))
    return _head(objectives, scrape_interval) + _yaml(manifest)


def rendered_rule_tests(objectives: Objectives, directory: Path, rules: Path) -> list[GeneratedFile]:
    """The tests of every alert at the default scrape interval, for ``promtool test rules`` in ``directory``.

    ``rules`` is the compiled file that they test, from there.
    """
    head = f"# Generated by `cmo rules build` from {objectives.name}, for `promtool test rules`.\n"
    return [
        GeneratedFile(directory / f"{test.alert}.yml", head + _yaml(test.document(str(rules))))
        for test in generate_rule_tests(objectives, DEFAULT_SCRAPE_INTERVAL)
    ]


def _head(objectives: Objectives, scrape_interval: str) -> str:
    return (
        f"# Compiled by `cmo rules build` from the objectives {objectives.name} "
        f"({objectives_hash(objectives)}), for a scrape interval of {scrape_interval}.\n"
        "# Change the objectives and build again, with the same --runbooks-url and --dashboards-url.\n"
        "# docs/objectives.md says what each series means.\n"
    )


def _yaml(document: dict[str, Any]) -> str:
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
    return text


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
        compiled = rule_file_name(objectives, DEFAULT_SCRAPE_INTERVAL)
        files.append(GeneratedFile(rules / "kubernetes" / compiled, render_for_operator(objectives)))
        files += rendered_rule_tests(
            objectives, rules.parent / RULE_TESTS, Path("..") / rules.name / compiled
        )
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    files.append(GeneratedFile((schema_directory or shipped_directory()) / "schema.json", schema))
    return files


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
