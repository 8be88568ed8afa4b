"""The command `cmo check`: its options, what goes where, and exit statuses that no library decides."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from cmo_slo import cli_check
from cmo_slo.exit_status import ExitStatus, status_of_error
from cmo_slo.manifest import ManifestError
from cmo_slo.objectives import ObjectivesError
from cmo_slo.prometheus import DataSourceError
from cmo_stack import cli
from cmo_stack.free_ports import free_port

from .exposition import Answers

ROOT = Path(__file__).resolve().parents[2]
CMO = str(Path(sys.executable).with_name("cmo"))
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    names = ("academic_research", "clinical_rush", "cache_effectiveness", "rag_intensive")
    scenarios = [
        {
            "name": name, "start": 1e9 + 20 * n, "end": 1e9 + 20 * n + 15, "held_start": 1e9 + 20 * n + 1,
            "held_end": 1e9 + 20 * n + 14, "offered": {"users": 50, "operations": 400},
        }
        for n, name in enumerate(names)
    ]  # fmt: skip
    file = tmp_path / "manifest.json"
    file.write_text(
        json.dumps(
            {
                "schema": "cmo.run-manifest/v1", "run_id": "r", "host": "elsewhere",
                "start": 1e9, "end": 1e9 + 80, "scenarios": scenarios,
            }
        )
    )  # fmt: skip
    return file


def run(captured: Captured, *arguments: object) -> tuple[int, str, str]:
    captured.readouterr()
    status = cli.run(["check", *map(str, arguments)])
    out, err = captured.readouterr()
    assert "Traceback" not in out + err
    return status, out, err


EMPTY = Answers(
    200,
    json.dumps({"status": "success", "data": {"resultType": "matrix", "result": []}}),
    {"Content-Type": "x"},
)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing option '--run'"),
        (["--run", "MANIFEST", "--colour"], "No such option"),
        (["--run", "MANIFEST", "--wait", "soon"], "is not a valid float"),
        (["--run", "MANIFEST", "--format", "pdf"], "'pdf' is no format"),
        (["--run", "MANIFEST", "--format", "json:"], "'json:' is no format"),
        (["--run", "MANIFEST", "--format", "json:/nowhere/x.json"], "there is no directory /nowhere"),
        (["--run", "MANIFEST", "--format", f"json:{'x' * 5000}/x.json"], "there is no directory xxx"),
        (["--run", "MANIFEST", "--format", "json:x", "--format", "text:./x"], "two formats go to"),
        (
            ["--run", "MANIFEST", "--format", "json", "--format", "text"],
            "only one format can go to standard output",
        ),
        *(
            (
                ["--run", "MANIFEST", "--prometheus-url", url],
                "this is no address of Prometheus; expected http://host:port",
            )
            for url in ("localhost:9090", "http://", "http://x:port", "http://x:99999", "https://[::1")
        ),
        (["--run", "MANIFEST", "--selector", "{}"], "has no matcher of labels"),
        (
            ["--run", "MANIFEST", "--scenario", "lunch"],
            "the objectives cmo-015 have no such scenario; they have",
        ),
        (["--run", "/nowhere/manifest.json"], "cannot be read"),
        (["--run", "MANIFEST", "--objectives", "cmo-016"], "cmo-016"),
    ],
    ids=str,
)
def test_wrong_usage_is_status_3_and_says_why(
    arguments: list[str], words: str, manifest: Path, capsys: Captured
) -> None:
    found = [str(manifest) if argument == "MANIFEST" else argument for argument in arguments]
    status, out, err = run(capsys, *found)
    assert (status, out) == (ExitStatus.USAGE, "")
    assert words in err


def test_a_typo_in_the_objectives_is_status_3_with_file_line_and_field(
    manifest: Path, tmp_path: Path, capsys: Captured
) -> None:
    text = (ROOT / "slo_rules/objectives/cmo-015.yml").read_text()
    file = tmp_path / "typo.yml"
    file.write_text(text.replace("cancelled_limit:", "canceled_limit:"))
    status, out, err = run(capsys, "--run", manifest, "--objectives", file)
    assert (status, out) == (ExitStatus.USAGE, "")
    line = 1 + text[: text.index("cancelled_limit:")].count("\n")
    assert f"{file}:{line}: canceled_limit" in err


def test_a_run_without_the_scenario_that_is_asked_for(manifest: Path, capsys: Captured) -> None:
    document = json.loads(manifest.read_text())
    document["scenarios"] = document["scenarios"][:1]
    manifest.write_text(json.dumps(document))
    status, _, err = run(capsys, "--run", manifest, "--scenario", "rag_intensive")
    assert status == ExitStatus.USAGE
    assert "holds none of the scenarios to be judged (rag_intensive); it holds academic_research" in err


def test_no_data_source_is_status_4(manifest: Path, capsys: Captured) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    status, out, err = run(capsys, "--run", manifest, "--prometheus-url", address)
    assert (status, out) == (ExitStatus.DATA_SOURCE, "")
    assert f"No connection to {address}: connection refused" in err


def test_the_address_can_come_from_the_environment(
    manifest: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("CMO_PROMETHEUS_URL", address)
    assert address in run(capsys, "--run", manifest)[2]


def test_reports_go_where_they_are_sent(manifest: Path, tmp_path: Path, capsys: Captured) -> None:
    text, document = tmp_path / "verdict.txt", tmp_path / "verdict.json"
    with EMPTY.serve() as url:
        status, out, err = run(
            capsys, "--run", manifest.parent, "--prometheus-url", url, "--format", f"text:{text}",
            "--format", f"json:{document}",
        )  # fmt: skip
    assert (status, out, err) == (ExitStatus.INCONCLUSIVE, "", "")
    assert text.read_text().startswith("INCONCLUSIVE  CMO-LIGHTRAG-015")
    assert json.loads(document.read_text())["verdict"] == "INCONCLUSIVE"


def test_the_queries_select_the_job_or_what_the_selector_says(manifest: Path, capsys: Captured) -> None:
    for arguments, wanted in (
        ((), 'up{job="cmo"}'),
        (("--job", 'a"b'), 'up{job="a\\"b"}'),
        (("--selector", '{job="x", replica="a"}'), 'up{job="x", replica="a"}'),
    ):
        with EMPTY.serve() as url:
            out = run(capsys, "--run", manifest, "--prometheus-url", url, "--format", "json", *arguments)[1]
        queries = [query["query"] for query in json.loads(out)["evidence"]["queries"]]
        assert queries[0].startswith(wanted)


def test_a_report_that_cannot_be_written_is_no_verdict(
    manifest: Path, tmp_path: Path, capsys: Captured
) -> None:
    with EMPTY.serve() as url:
        status, _, err = run(
            capsys, "--run", manifest, "--prometheus-url", url, "--format", f"json:{tmp_path}"
        )
        assert status == ExitStatus.USAGE
        assert str(tmp_path) in err
        file = tmp_path / ("x" * 300)
        status, _, err = run(capsys, "--run", manifest, "--prometheus-url", url, "--format", f"json:{file}")
    assert status == ExitStatus.USAGE
    assert "name too long" in err


def test_a_report_never_replaces_what_it_was_made_from(manifest: Path, capsys: Captured) -> None:
    before = manifest.read_text()
    for given in (manifest, manifest.parent):
        status, _, err = run(capsys, "--run", given, "--format", f"text:{manifest}")
        assert status == ExitStatus.USAGE
        assert "is read by this check" in err
    assert manifest.read_text() == before


def test_a_report_is_there_whole_or_not_at_all(
    manifest: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, link = tmp_path / "verdict.json", tmp_path / "link.json"
    file.write_text("the one before")
    file.chmod(0o640)
    link.symlink_to(file)
    held = file.open()
    with EMPTY.serve() as url:
        arguments = ("--run", manifest, "--prometheus-url", url, "--format", f"json:{link}")
        assert run(capsys, *arguments)[0] == ExitStatus.INCONCLUSIVE
        assert held.read() == "the one before"
        held.close()
        assert json.loads(file.read_text())["verdict"] == "INCONCLUSIVE"
        assert link.is_symlink()
        assert file.stat().st_mode & 0o777 == 0o640

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "replace", full)
        before = sorted(tmp_path.iterdir())
        status, _, err = run(capsys, *arguments)
    assert status == ExitStatus.USAGE
    assert "No space left on device" in err
    assert sorted(tmp_path.iterdir()) == sorted({*before} - {file})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ExitStatus.DATA_SOURCE),
        (["--scenario", "lunch"], ExitStatus.USAGE),
        (["--objectives", "cmo-016"], ExitStatus.USAGE),
        (["--run", "/nowhere/manifest.json"], ExitStatus.USAGE),
    ],
    ids=str,
)
def test_a_check_that_fails_leaves_no_verdict_of_an_earlier_one(
    arguments: list[str], expected: ExitStatus, manifest: Path, tmp_path: Path, capsys: Captured
) -> None:
    file, text, link = tmp_path / "verdict.json", tmp_path / "verdict.txt", tmp_path / "link.txt"
    file.write_text('{"verdict": "COMPLIANT"}')
    text.write_text("COMPLIANT")
    link.symlink_to(text)
    address = f"http://127.0.0.1:{free_port()}"
    outputs = ("--format", f"json:{file}", "--format", f"text:{link}")
    status, _, _ = run(capsys, "--run", manifest, "--prometheus-url", address, *outputs, *arguments)
    assert status == expected
    assert not file.exists()
    assert not text.exists()
    assert link.is_symlink()


def test_a_report_that_may_not_be_written_stays_and_is_told(
    manifest: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "verdict.json"
    file.write_text("kept")
    monkeypatch.setattr("os.access", lambda _file, mode: mode != os.W_OK)  # root may write to any file
    status, _, err = run(capsys, "--run", manifest, "--format", f"json:{file}")
    assert status == ExitStatus.USAGE
    assert f"{file}" in err
    assert "Permission denied" in err
    assert file.read_text() == "kept"


def test_a_standard_output_that_takes_nothing_is_no_fault_of_ours(manifest: Path) -> None:
    for redirection in (">/dev/full", ">&-"):
        with EMPTY.serve() as url:
            command = ["bash", "-c", f'"$@" {redirection}', "bash", CMO, "check"]
            done = subprocess.run(
                [*command, "--run", str(manifest), "--prometheus-url", url],
                capture_output=True, text=True, timeout=120,
            )  # fmt: skip
        assert "standard output" in done.stderr
        assert done.returncode == ExitStatus.USAGE, redirection


def test_a_standard_error_that_takes_nothing_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    with io.TextIOWrapper(Path("/dev/full").open("wb", buffering=0), write_through=True) as full:
        monkeypatch.setattr("sys.stderr", full)
        cli_check._tell("waiting up to 8 s ...")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ObjectivesError([]), ExitStatus.USAGE),
        (ManifestError("m"), ExitStatus.USAGE),
        (click.UsageError("u"), ExitStatus.USAGE),
        (DataSourceError("d"), ExitStatus.DATA_SOURCE),
        (KeyError("k"), ExitStatus.FAULT),
        (SystemError(), ExitStatus.FAULT),
        (RecursionError("deep\nand deeper"), ExitStatus.FAULT),
    ],
    ids=repr,
)
def test_every_error_has_its_status(error: Exception, expected: ExitStatus) -> None:
    assert status_of_error(error) is expected


def test_help_has_examples_and_exit_statuses(capsys: Captured) -> None:
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert "cmo check --run .cmo/runs/" in out
    assert "Exit status: 0 compliant" in out


def test_nothing_but_the_result_goes_to_standard_output_of_a_real_process(manifest: Path) -> None:
    with EMPTY.serve() as url:
        command = [CMO, "check", "--run", str(manifest), "--prometheus-url", url]
        done: Any = subprocess.run(
            [*command, "--format", "json"], capture_output=True, text=True, timeout=120
        )
    assert done.returncode == ExitStatus.INCONCLUSIVE
    assert done.stderr == ""
    assert json.loads(done.stdout)["schema"] == "cmo.verdict/v1"
