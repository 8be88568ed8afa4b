"""docs/objectives.md, "Put Prometheus to work": the configuration loads, and commands do what is shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from cmo_slo.objectives import find_objectives, load_objectives
from cmo_stack import servers
from cmo_stack.topology import RETENTION

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "docs/objectives.md").read_text(encoding="utf-8")
SECTION: Final = PAGE.split("\n## Put Prometheus to work\n")[1].split("\n## ")[0]
LINKS: Final = re.findall(r"--(?:runbooks|dashboards)-url https://\S+", SECTION)


def block(language: str) -> str:
    (found,) = re.findall(rf"^   ```{language}\n(.*?)^   ```$", SECTION, re.DOTALL | re.MULTILINE)
    return textwrap.dedent(found)


def run(command: str, etc: Path, promtool: servers.Server) -> subprocess.CompletedProcess[str]:
    """A command of the page, with another /etc/prometheus, and with this promtool on PATH."""
    cmo = f'cmo() {{ {sys.executable} -m cmo_stack.cli "$@"; }}\n'
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CMO_")},
        **promtool.environment,
        "PATH": f"{promtool.path.parent}:{os.environ['PATH']}",
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", cmo + command.replace("/etc/prometheus", str(etc))],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """/etc/prometheus, with the rules built and the configuration written as the page says."""
    built = run(
        f"cmo rules build cmo-015 {' '.join(LINKS)} --output /etc/prometheus/rules/cmo-015.yml",
        tmp_path,
        servers.newest("promtool"),
    )
    assert built.returncode == 0, built.stderr
    (tmp_path / "prometheus.yml").write_text(block("yaml").replace("/etc/prometheus", str(tmp_path)))
    return tmp_path


def test_the_configuration_has_the_jobs_and_the_alertmanager_of_the_committed_one() -> None:
    shown, committed = (
        yaml.safe_load(text)
        for text in (block("yaml"), (ROOT / "prometheus/prometheus.yml").read_text(encoding="utf-8"))
    )
    for key in ("global", "alerting", "scrape_configs"):
        assert shown[key] == committed[key]
    scraped = [
        alert for alert in load_objectives(find_objectives("cmo-015")).alerts if alert.kind == "scrape"
    ]
    assert [list(alert.jobs) for alert in scraped] == [_jobs(shown)]


@pytest.mark.parametrize("promtool", servers.installed("promtool"), ids=lambda server: server.label)
def test_the_checks_find_nothing(etc: Path, promtool: servers.Server) -> None:
    (loads,) = re.findall("`(promtool check config [^`]+)`", SECTION)
    command, printed = _command()
    for each in (loads, command):
        done = run(each, etc, promtool)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).strip() == printed


def test_the_retention_is_needed_and_the_check_says_so(etc: Path) -> None:
    assert f"--storage.tsdb.retention.time={RETENTION}" in block("sh")
    command, _ = _command()
    assert f"--retention {RETENTION}" in command
    short = run(command.replace(RETENTION, "15d"), etc, servers.newest("promtool"))
    assert short.returncode == 1
    found = [line for line in short.stdout.splitlines() if line.endswith("[error windows]")]
    assert any("slo_coverage:ratio" in line for line in found)
    assert all("samples are kept for 15d" in line for line in found)


def test_the_search_for_another_name_or_job_finds_every_place() -> None:
    (command,) = re.findall(r"^    (grep -rl.*)$", PAGE, re.M)
    texts = {
        str(file.relative_to(ROOT)): file.read_text(encoding="utf-8")
        for file in (ROOT / "docs/runbooks").glob("*.md")
    }
    by_name = {file for file, text in texts.items() if "cmo-015" in text}
    by_job = {file for file, text in texts.items() if 'job="cmo"' in text}
    assert set(_listed(command)) == by_name | by_job
    assert by_name - by_job, "neither search finds all"
    assert by_job - by_name


def test_numbers_of_ones_own_are_built_and_checked_as_the_page_says(tmp_path: Path) -> None:
    own = PAGE.split("\n### Numbers of your own\n")[1].split("\n### ")[0]
    commands = re.findall(r"^    ((?:cp|cmo) .+)$", own, re.M)
    assert commands.pop().startswith("cmo check "), "which needs a run"
    folder = f"cd {tmp_path} && ln -s {ROOT}/slo_rules ."
    done = run("\n".join([folder, *commands]), tmp_path, servers.newest("promtool"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "my-dashboards/cmo-015.json").exists()
    assert "0 findings in 6 named dashboards." in done.stderr


def _listed(command: str) -> list[str]:
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def _command() -> tuple[str, str]:
    """The command of the section, and what it prints."""
    command, printed = block("console").replace("\\\n", "").splitlines()
    return command.removeprefix("$ "), printed


def _jobs(configuration: dict[str, Any]) -> list[str]:
    return [each["job_name"] for each in configuration["scrape_configs"]]
