"""``cmo rules check`` on files that people have: what it prints where, and what it exits with."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from cmo_slo.cli_rules import rules
from cmo_stack import servers

from .checking import alert, group, record, rule_file
from .generators import sloth

if TYPE_CHECKING:
    from pathlib import Path

MINE = rule_file(
    group(
        {
            "alert": "ShopFailing",
            "expr": "up == 0",
            "for": "1m",
            "labels": {"severity": "page"},
            "annotations": {
                "summary": "The shop is down",
                "description": "It does not answer.",
                "runbook_url": "https://example.com/runbooks/ShopFailing.md",
                "dashboard_url": "/d/shop",
            },
        }
    )
)


@pytest.fixture
def promtool(monkeypatch: pytest.MonkeyPatch) -> Path:
    found = servers.newest("promtool")
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    return found.path


def check(*arguments: str | Path) -> Result:
    return CliRunner().invoke(rules, ["check", *(str(argument) for argument in arguments)])


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_good_file_exits_with_0_and_prints_nothing(tmp_path: Path, promtool: Path) -> None:
    result = check(write(tmp_path / "mine.yml", MINE), "--promtool", promtool)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "runbooks were not looked up (--runbooks DIR).",
        "inhibitions were not checked (--alertmanager-config FILE).",
        "1 file checked, nothing found.",
    ]


def test_findings_are_sorted_lines_on_standard_output(tmp_path: Path) -> None:
    file = write(tmp_path / "sloth.yml", sloth(0.7))
    result = check(file)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert all(line.startswith(f"{file}:") for line in lines)
    numbers = [int(line.removeprefix(f"{file}:").partition(":")[0]) for line in lines]
    assert numbers == sorted(numbers)
    assert sum(line.endswith("[error attainability]") for line in lines) == 4
    assert result.stderr.splitlines()[-1].endswith("warnings found.")


def test_severities_of_other_people_are_let_be(tmp_path: Path) -> None:
    assert (
        check(write(tmp_path / "mine.yml", MINE.replace("severity: page", "severity: critical"))).exit_code
        == 0
    )
    assert (
        check(write(tmp_path / "mine.yml", MINE.replace("severity: page", "severity: urgent"))).exit_code == 1
    )


def test_warnings_do_not_count_unless_strict(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.yml", MINE.replace("ShopFailing\n", "shop_failing\n"))
    lenient, strict = check(file), check(file, "--strict")
    assert lenient.stdout == strict.stdout
    assert "is not in CamelCase" in lenient.stdout
    assert (lenient.exit_code, strict.exit_code) == (0, 1)
    assert lenient.stderr.splitlines()[-1] == "0 errors and 1 warning found."
    assert check(write(tmp_path / "good.yml", MINE), "--strict").exit_code == 0


def test_a_check_can_be_left_out(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.yml", rule_file(group(record("a:b:c", "sum(a) / sum(b)"))))
    assert check(file).exit_code == 1
    assert check(file, "--disable", "guards").exit_code == 0
    assert check(file, "--disable", "names").exit_code == 1


def test_json_is_one_document_with_every_field(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.yml", rule_file(group(record("a:b:c", "sum(a) / sum(b)"))))
    result = check(file, "--format", "json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    (finding,) = document["findings"]
    assert (document["version"], document["files"], document["errors"], document["warnings"]) == (
        "cmo-rules-check/1", 1, 1, 0,
    )  # fmt: skip
    assert {name: finding[name] for name in ("file", "line", "group", "rule", "check", "severity")} == {
        "file": str(file),
        "line": 4,
        "group": "group",
        "rule": "a:b:c",
        "check": "guards",
        "severity": "error",
    }
    assert any("promtool" in note or "runbooks" in note for note in document["notes"])


def test_files_are_checked_as_loaded_together(tmp_path: Path) -> None:
    recording = write(tmp_path / "a.yml", rule_file(group(record("job:a:hourly", "sum(a)"), interval="1h")))
    reading = write(tmp_path / "b.yml", rule_file(group(record("job:a:now", "job:a:hourly"))))
    assert check(reading).exit_code == 0
    assert check(recording).exit_code == 0
    both = check(recording, reading)
    assert both.exit_code == 1
    assert both.stdout.startswith(f"{reading}:4: job:a:now: `job:a:hourly` is recorded every 1h")
    assert check(recording, recording).exit_code == 0, "the same file twice is one file"


def test_options_reach_the_checks(tmp_path: Path) -> None:
    def exits(rule: dict[str, object], *options: str | Path) -> int:
        return check(write(tmp_path / "rules.yml", rule_file(group(rule))), *options).exit_code

    rate = record("job:a:rate", "sum(rate(a[1m]))")
    assert exits(rate) == 0
    assert exits(rate, "--scrape-interval", "1m") == 1
    assert exits(rate, "--budget", "1599") == 1
    assert exits(rate, "--budget", "1600") == 0
    month = record("job:a:month", "sum(increase(a[30d]))")
    assert exits(month, "--budget", "1000000000") == 1
    assert exits(month, "--budget", "1000000000", "--retention", "31d") == 0


def test_the_time_to_page_is_an_option(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.yml", MINE)
    assert check(file, "--time-to-page", "1m").exit_code == 1
    assert check(file, "--time-to-page", "2m").exit_code == 0


def test_runbooks_are_looked_up_in_the_folder(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.yml", MINE)
    write(tmp_path / "runbooks/Other.md", "# Other")
    missing = check(file, "--runbooks", tmp_path / "runbooks")
    assert missing.exit_code == 1
    assert "is not fetched; expected ShopFailing.md among the runbooks; write it" in missing.stdout
    assert "runbooks were not looked up" not in missing.stderr
    write(tmp_path / "runbooks/ShopFailing.md", "# ShopFailing")
    assert check(file, "--runbooks", tmp_path / "runbooks").exit_code == 0


def test_inhibitions_are_held_against_the_alerts(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.yml", MINE)
    rule = "inhibit_rules: [{source_matchers: [severity=page], target_matchers: [role=cause], equal: [job]}]"
    config = write(tmp_path / "alertmanager.yml", rule)
    result = check(file, "--alertmanager-config", config)
    assert result.exit_code == 1
    assert f"{config}:1: inhibit_rules[0]: no alert is a target" in result.stdout
    write(config, "a: [")
    broken = check(file, "--alertmanager-config", config)
    assert broken.exit_code == 3
    assert f"{config}: not YAML" in broken.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [("groups: [", "not YAML"), ("", "the file is empty"), ("\x00", "not allowed in YAML")],
)
def test_a_file_that_is_no_rule_file_is_a_finding(tmp_path: Path, text: str, expected: str) -> None:
    result = check(write(tmp_path / "rules.yml", text))
    assert result.exit_code == 1
    assert expected in result.stdout


def test_a_file_that_is_no_text_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_bytes(b"\xff\xfe\x00")
    result = check(tmp_path / "rules.yml")
    assert result.exit_code == 3
    assert "rules.yml byte 0 is not UTF-8; save the file as UTF-8." in result.stderr
    folder = check(tmp_path)
    assert folder.exit_code == 3
    assert "is a directory; name a file in it." in folder.stderr


@pytest.mark.parametrize("options", [(), ("--objectives", "cmo-015")], ids=["alone", "fresh"])
def test_a_pipe_and_a_device_are_not_read(tmp_path: Path, options: tuple[str, ...]) -> None:
    os.mkfifo(tmp_path / "pipe.yml")
    (tmp_path / "zero.yml").symlink_to("/dev/zero")
    for name in ("pipe.yml", "zero.yml"):
        result = check(tmp_path / name, *options)
        assert result.exit_code == 3
        assert result.stderr.endswith(f"{name} is no regular file; save it as a file, and name that.\n")
    pipe = check(write(tmp_path / "mine.yml", MINE), "--alertmanager-config", tmp_path / "pipe.yml")
    assert pipe.exit_code == 3
    assert "is no regular file" in pipe.stderr


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "large.yml"
    with file.open("wb") as large:
        large.truncate(10**12)  # a hole, which takes no room on the disk
    for options in ((), ("--objectives", "cmo-015")):
        result = check(file, *options)
        assert result.exit_code == 3
        assert "is larger than 10 MB; check that it is the right file, or split it." in result.stderr


def test_promtool_is_asked_about_rule_files_and_not_about_manifests(tmp_path: Path, promtool: Path) -> None:
    texts = {"summary": "{{ $labels.job"}
    file = write(tmp_path / "rules.yml", rule_file(group(alert("up == 0", annotations=texts))))
    lines = check(file, "--promtool", promtool).stdout.splitlines()
    found = [line for line in lines if "[error promtool]" in line]
    assert len(found) == 1
    assert "FAILED" not in found[0]
    assert found[0].startswith(f'{file}:1: group "group", rule 1, "SomethingWrong": annotation "summary": ')
    disabled = check(file, "--promtool", promtool, "--disable", "promtool")
    assert "[error promtool]" not in disabled.stdout
    assert "promtool" not in disabled.stderr
    manifest = f"kind: PrometheusRule\nspec: {json.dumps({'groups': [group(alert('up == 0'))]})}"
    result = check(write(tmp_path / "manifest.yml", manifest), "--promtool", promtool)
    assert "[error promtool]" not in result.stdout
    assert "SomethingWrong" in result.stdout


def test_a_mistake_is_told_once_at_its_line_and_what_promtool_alone_knows_beside_it(
    tmp_path: Path, promtool: Path
) -> None:
    texts = {"summary": "{{ $labels.job"}
    rules = group(
        alert("sum(", "First"), alert("up == 0", "Second", annotations=texts), alert("a b", "Third")
    )
    file = write(tmp_path / "rules.yml", rule_file(rules))
    lines = check(file, "--promtool", promtool).stdout.splitlines()
    unreadable = [line for line in lines if "cannot be read" in line]
    assert [line.split(": ")[1] for line in unreadable] == ["First", "Third"]
    (other,) = [line for line in lines if "[error promtool]" in line]
    assert '"Second"' in other
    assert "could not parse expression" not in other


def test_what_promtool_says_of_a_line_is_told_at_that_line(tmp_path: Path) -> None:
    file = write(tmp_path / "rules.yml", MINE)
    said = f'  FAILED:\n{file}: 5:13: group "g": new in PromQL\nlint error\nMetric: a'
    tool = write(tmp_path / "promtool", f"#!/bin/sh\ncat >&2 <<'END'\n{said}\nEND\nexit 3\n")
    tool.chmod(0o755)
    assert check(file, "--promtool", tool).stdout.splitlines() == [
        f"{file}:1: lint error Metric: a; correct it, or Prometheus refuses the file [error promtool]",
        f'{file}:5: group "g": new in PromQL; correct it, or Prometheus refuses the file [error promtool]',
    ]
