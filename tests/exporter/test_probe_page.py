"""docs/probe.md shows a prober in production: every command line in it is one that `cmo probe` takes."""

from __future__ import annotations

import configparser
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from cmo_probe.cli import probe

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "docs/probe.md").read_text(encoding="utf-8")
SECTION: Final = PAGE.partition("\n## In production\n")[2].partition("\n## ")[0]
PROGRAM: Final = ["/opt/cmo-probe/bin/cmo", "probe"]


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", SECTION, re.M | re.S)
    assert found
    return found[1].replace("\\\n", " ")


def options(line: str) -> dict[str, Any]:
    """What the command's own parser makes of a line."""
    program, arguments = shlex.split(line)[:2], shlex.split(line)[2:]
    assert program == PROGRAM
    return probe.make_context("probe", arguments).params


@pytest.fixture
def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(block("ini"))
    return parser


def test_the_unit_starts_a_prober_that_another_machine_can_scrape(unit: configparser.ConfigParser) -> None:
    given = options(unit["Service"]["ExecStart"])
    assert not given["once"]
    assert given["token_file"] == Path("%d/token")
    assert unit["Service"]["LoadCredential"] == "token:/etc/cmo-probe/token"
    jobs = yaml.safe_load(block("yaml"))["scrape_configs"]
    (target,) = jobs[0]["static_configs"][0]["targets"]
    assert (jobs[0]["job_name"], target) == ("probe", f"{given['metrics_host']}:{given['metrics_port']}")
    assert f"curl http://{target}/metrics" in SECTION


def test_the_trial_before_it_asks_the_same(unit: configparser.ConfigParser) -> None:
    (line,) = [line for line in block("sh").splitlines() if "cmo probe" in line]
    trial, lasting = options(line), options(unit["Service"]["ExecStart"])
    assert trial["once"]
    assert trial["token_file"] == Path("/etc/cmo-probe/token")
    assert [trial[name] for name in ("url", "canaries_file")] == [
        lasting[name] for name in ("url", "canaries_file")
    ]


def test_it_is_installed_from_the_checkout_in_which_that_is_typed() -> None:
    typed = re.findall(r"in the\s+checkout:\s.*?pip install '(.+?)\[(\w+)\]'", PAGE, re.S)
    assert len(typed) == PAGE.count("pip install") == 2
    for folder, extra in typed:
        project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert extra in project["optional-dependencies"]
