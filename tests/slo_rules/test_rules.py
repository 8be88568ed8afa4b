"""The committed rules and the commands around them: fresh, and accepted by promtool."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from cmo_slo.cli_rules import rules
from cmo_slo.objectives import find_objectives
from cmo_slo.rulefile import (
    GeneratedFile,
    promtool_complaint,
    shipped_files,
    shipped_rules_directory,
)
from cmo_stack import servers

SHIPPED = find_objectives("cmo-015").read_text(encoding="utf-8")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(rules, [str(argument) for argument in arguments])


@pytest.fixture
def promtool(monkeypatch: pytest.MonkeyPatch) -> Path:
    found = servers.newest("promtool")
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    return found.path


def test_committed_files_are_what_the_objectives_compile_to() -> None:
    stale = [str(file.path) for file in shipped_files() if not file.fresh]
    assert stale == [], "run `cmo rules build`"


def test_both_scrape_intervals_ship() -> None:
    assert {path.name for path in shipped_rules_directory().glob("*.yml")} == {
        "cmo-015.yml",
        "cmo-015-1s.yml",
    }


def test_check_finds_nothing_in_what_is_committed(promtool: Path) -> None:
    result = run("check", "--promtool", promtool)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert result.stderr == "28 files checked, nothing found.\n"


def test_build_writes_a_file_that_check_accepts_and_a_change_makes_stale(tmp_path: Path) -> None:
    objectives, compiled = tmp_path / "own.yml", tmp_path / "rules/own.yml"
    objectives.write_text(SHIPPED.replace("name: cmo-015\n", "name: own\n"), encoding="utf-8")

    assert run("build", objectives, "--scrape-interval", "5s", "--output", compiled).exit_code == 0
    assert yaml.safe_load(compiled.read_text())["groups"][0]["interval"] == "5s"
    own: list[str | Path] = ["check", compiled, "--objectives", objectives, "--retention", "40d"]
    assert run(*own, "--scrape-interval", "5s").exit_code == 0

    stale = run(*own)
    assert stale.exit_code == 1
    assert (
        "is not what the objectives compile to; it was compiled for scrapes every 5s: give "
        "--scrape-interval 5s [" in stale.stdout
    )
    head, _, rest = compiled.read_text().partition("\n")
    compiled.write_text(f"{head}\n{rest.replace('interval: 5s', 'interval: 6s')}")
    changed = run(*own, "--scrape-interval", "5s")
    assert (
        "; run `cmo rules build --scrape-interval 5s`, or give the --runbooks-url and --dashboards-url that "
        "it was built with [" in changed.stdout
    )
    compiled.write_text(rest)
    headless = run(*own)
    assert (
        "; run `cmo rules build`, or give the --scrape-interval, --runbooks-url and --dashboards-url that it "
        "was built with [" in headless.stdout
    )
    compiled.unlink()
    missing = run(*own)
    assert missing.exit_code == 1
    assert "is missing; run `cmo rules build`" in missing.stdout


def test_an_interval_has_one_spelling_in_what_is_built_and_what_is_checked(tmp_path: Path) -> None:
    compiled = tmp_path / "cmo-015.yml"
    assert run("build", "cmo-015", "--scrape-interval", "60s", "--output", compiled).exit_code == 0
    assert compiled.read_text().splitlines()[0].endswith(", for a scrape interval of 1m.")
    checked = run("check", compiled, "--objectives", "cmo-015", "--scrape-interval", "60s")
    assert "[error fresh]" not in checked.stdout


def test_rules_are_not_written_over_their_objectives(tmp_path: Path) -> None:
    objectives = tmp_path / "my.yml"
    objectives.write_bytes(find_objectives("cmo-015").read_bytes())
    result = run("build", objectives, "--output", tmp_path / "." / "my.yml")
    assert result.exit_code == 3
    assert "would be written over the objectives that it is made of" in result.stderr
    assert objectives.read_bytes() == find_objectives("cmo-015").read_bytes()


def test_build_prints_nothing_but_rules_on_standard_output() -> None:
    result = run("build", "cmo-015", "--output", "-")
    assert result.exit_code == 0
    assert result.stdout == (shipped_rules_directory() / "cmo-015.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["build", "cmo-15"], "no such objectives"),
        (["build", "cmo-015", "--scrape-interval", "soon", "--output", "-"], "'soon' is no duration"),
        (["check", "x.yml", "--objectives", "none.yml"], "no such objectives"),
        (["check", "x.yml"], "x.yml cannot be read: No such file or directory; check the path"),
    ],
)
def test_wrong_input_exits_with_3_and_says_why(arguments: list[str], expected: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 3
    assert expected in result.stderr
    assert result.stdout == ""


def test_wrong_objectives_are_listed_line_by_line(tmp_path: Path) -> None:
    objectives = tmp_path / "own.yml"
    objectives.write_text(SHIPPED.replace("target: 50", "traget: 50"), encoding="utf-8")
    result = run("build", objectives, "--output", "-")
    assert result.exit_code == 3
    assert f"{objectives}:20: objectives[0].traget: unknown field" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "--output", "-"],
        ["check", "--objectives", "cmo-015"],
        ["check", "a.yml", "b.yml", "--objectives", "cmo-015"],
        ["check", "--scrape-interval", "5s"],
        ["check", "a.yml", "--retention", "soon"],
        ["check", "a.yml", "--time-to-page", "0"],
        ["check", "a.yml", "--disable", "nothing"],
        ["check", "a.yml", "--budget", "0"],
    ],
)
def test_arguments_that_belong_together_are_asked_for(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, "click's own status for usage, which the entry point maps to 3"
    assert "Usage:" in result.stderr


def test_a_path_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("build", "cmo-015", "--output", tmp_path / "file/rules.yml")
    assert result.exit_code == 3
    assert "cannot be written" in result.stderr


def test_a_full_disk_leaves_the_good_rules_and_nothing_else(tmp_path: Path) -> None:
    """In a process that may write no file of more than 5,000 bytes; the rules have more."""
    good = tmp_path / "cmo-015.yml"
    good.write_text("groups: []\n")
    command = (
        "import resource; from cmo_slo.cli_rules import rules; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)); "
        f"rules(['build', 'cmo-015', '--output', {str(good)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert done.returncode == 3
    assert f"{good} cannot be written: File too large; check the path" in done.stderr
    assert done.stderr.endswith("What was there is unchanged.\n")
    assert "Traceback" not in done.stderr
    assert good.read_text() == "groups: []\n"
    assert list(tmp_path.iterdir()) == [good]


def test_a_file_that_is_replaced_keeps_its_mode_and_is_never_half_there(tmp_path: Path) -> None:
    old, link, new = tmp_path / "old.yml", tmp_path / "link.yml", tmp_path / "new.yml"
    old.write_text("groups: []\n")
    old.chmod(0o640)
    link.symlink_to(old)
    with old.open() as reader:
        GeneratedFile(link, "new").write()
        assert reader.read() == "groups: []\n", "who reads it meanwhile reads all of the old one"
    assert link.is_symlink()
    assert old.read_text() == "new"
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    GeneratedFile(new, "new").write()
    (tmp_path / "any").touch()
    assert new.stat().st_mode == (tmp_path / "any").stat().st_mode


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    sink = tmp_path / "sink"
    sink.symlink_to(os.devnull)
    assert run("build", "cmo-015", "--output", sink).exit_code == 0
    sink.unlink()
    sink.symlink_to("/dev/full")
    result = run("build", "cmo-015", "--output", sink)
    assert result.exit_code == 3
    assert f"{sink} cannot be written: No space left on device" in result.stderr
    for device in (os.devnull, "/dev/full"):
        assert Path(device).is_char_device()


def test_promtool_complains_of_rules_that_are_none(tmp_path: Path, promtool: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text("groups: [{name: a, rules: [{record: a, expr: 'sum('}]}]")
    complaint = promtool_complaint(promtool, broken)
    assert complaint is not None
    assert "sum(" in complaint or "parse error" in complaint
    assert promtool_complaint(tmp_path / "none", broken) is not None
