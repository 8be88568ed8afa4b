"""The ``cmo`` command: quick, complete, and never mistaken for a verdict."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
from cmo_slo.objectives import ObjectivesError
from cmo_stack import cli
from cmo_stack.exit_status import ExitStatus
from cmo_stack.servers import ServerMissingError

CMO = Path(sys.executable).with_name("cmo")


def _cmo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CMO, *arguments], env={**os.environ, **environment}, capture_output=True, text=True
    )


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> type[Exception]:
    """Makes ``cmo failing`` raise what the test puts into ``failing.error``."""

    class Failing(Exception):  # noqa: N818 - a box for an error
        error: BaseException

    def fail() -> None:
        raise Failing.error

    command = click.Command("failing", callback=fail)
    lazy = cli.LazyCommand("failing", "nowhere", "Fail.")
    monkeypatch.setitem(cli.COMMANDS, "failing", lazy)
    monkeypatch.setattr(cli.LazyCommand, "load", lambda _: command)
    return Failing


def test_help_imports_no_room() -> None:
    program = (
        "import sys; from cmo_stack import cli; status = cli.run(['--help']);"
        "heavy = [name for name in sys.modules if name.split('.')[0] in "
        "('pydantic', 'yaml', 'requests', 'fastapi', 'locust', 'cmo_slo', 'cmo_oracle', 'cmo_loadtest')];"
        "sys.exit(f'{status} {heavy}' if status or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in cli.COMMANDS:
        assert f"  {name}" in done.stdout


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_is_where_the_list_says(name: str) -> None:
    command = cli.COMMANDS[name].load()
    assert command.name == name
    assert cli.run([name, "--help"]) == 0


def test_the_version_is_the_distributions() -> None:
    done = _cmo("--version")
    assert (done.returncode, done.stdout) == (0, "cmo 0.1.0\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["--nonsense"],
        ["check", "--nonsense"],
        ["stack", "nonsense"],
        ["stack", "up", "--redis-port", "0"],
    ],
)
def test_wrong_usage_is_never_a_verdict(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) == ExitStatus.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Error:" in captured.err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (click.ClickException("no"), ExitStatus.USAGE),
        (ServerMissingError("no redis"), ExitStatus.USAGE),
        (ObjectivesError(()), ExitStatus.USAGE),
        (KeyboardInterrupt(), ExitStatus.INTERRUPTED),
        (BrokenPipeError(), ExitStatus.BROKEN_PIPE),
        (SystemExit(1), ExitStatus.FAULT),
        (OSError(errno.ENOSPC, "No space left on device"), ExitStatus.USAGE),
        (SystemExit(2), ExitStatus.FAULT),
        (SystemExit(0), ExitStatus.COMPLIANT),
        (ValueError("a\nb"), ExitStatus.FAULT),
        (click.exceptions.Exit(2), ExitStatus.INCONCLUSIVE),
    ],
    ids=repr,
)
def test_every_end_has_its_status(
    failing: type[Exception], error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failing, "error", error, raising=False)
    assert cli.run(["failing"]) == status


def test_an_error_that_claims_a_verdict_is_a_fault(
    failing: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Claiming(Exception):  # noqa: N818 - as above
        exit_status = 0

    monkeypatch.setattr(failing, "error", Claiming(), raising=False)
    assert cli.run(["failing"]) == ExitStatus.FAULT


def test_a_surprise_is_one_line_and_its_traceback_is_to_be_had(
    failing: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(failing, "error", ValueError("first\nsecond"), raising=False)
    cli.run(["failing"])
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "ValueError: first second" in line
    assert "report" in line
    monkeypatch.setenv(cli.DEBUG_VARIABLE, "1")
    cli.run(["failing"])
    assert "Traceback" in capsys.readouterr().err


def test_a_missing_extra_is_one_line_to_copy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    for name in [name for name in sys.modules if name.startswith("cmo_slo")]:
        monkeypatch.delitem(sys.modules, name)
    assert cli.run(["check"]) == ExitStatus.USAGE
    assert "pip install './cmo-observability[slo]'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["plan", "run"])
def test_so_is_one_that_is_missed_only_when_the_command_runs(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    for name in [name for name in sys.modules if name.startswith("cmo_loadtest")]:
        monkeypatch.delitem(sys.modules, name)
    assert cli.run(["loadtest", command, "--help"]) == ExitStatus.COMPLIANT
    assert cli.run(["loadtest", command]) == ExitStatus.USAGE
    assert "pip install './cmo-observability[loadtest]'" in capsys.readouterr().err


def test_a_demo_whose_port_is_busy_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMO_STATE_DIR", str(tmp_path / "state"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert cli.run(["demo", "--redis-port", str(taken.getsockname()[1])]) == ExitStatus.USAGE
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("command", ["demo", "stack up", "stack status", "stack down"])
def test_a_state_directory_that_cannot_be_had_is_wrong_usage(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CMO_STATE_DIR", str(tmp_path / "file/state"))
    assert cli.run(command.split()) == ExitStatus.USAGE
    assert "Not a directory. Set CMO_STATE_DIR to a folder" in capsys.readouterr().err


def test_a_missing_module_of_our_own_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.COMMANDS, "lost", cli.LazyCommand("lost", "cmo_slo.lost", "Lost."))
    assert cli.run(["lost"]) == ExitStatus.FAULT


def test_a_reader_who_leaves_is_no_verdict() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{CMO} --help | true; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    assert done.returncode in (0, ExitStatus.BROKEN_PIPE)
    assert done.stderr == ""


@pytest.mark.parametrize("words", ["check --run nowhere", "check", "stack down"])
def test_what_cannot_be_said_is_no_verdict(words: str, tmp_path: Path) -> None:
    """1 is what the interpreter ends with by itself, and means NON-COMPLIANT."""
    (tmp_path / "file").touch()
    with Path("/dev/full").open("w") as full:
        status = subprocess.run(
            [CMO, *words.split()],
            env={**os.environ, "CMO_STATE_DIR": str(tmp_path / "file/state")},
            stderr=full,
        ).returncode
    assert status == ExitStatus.USAGE


@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "ended by SIGTERM")]
)
def test_a_signal_unwinds_what_a_command_has_begun(number: signal.Signals, said: str) -> None:
    program = (
        "import os, signal, sys\n"
        "from cmo_stack import cli\n"
        "def command(_):\n"
        f"    try:\n        os.kill(os.getpid(), {number:d}); signal.pause()\n"
        "    finally:\n        print('unwound')\n"
        "cli._invoke = command\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "unwound\n", f"cmo: {said}\n")


def test_a_closed_standard_output_is_no_fault(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"'{CMO}' stack down >&-"],
        env={**os.environ, "CMO_STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "No stack is running.\n")


def test_the_shell_completes_commands() -> None:
    done = _cmo(COMP_WORDS="cmo lo", COMP_CWORD="1", _CMO_COMPLETE="bash_complete")
    assert done.stdout == "plain,loadtest\n"


def test_the_shell_completes_options_of_a_command() -> None:
    done = _cmo(COMP_WORDS="cmo check --prom", COMP_CWORD="2", _CMO_COMPLETE="bash_complete")
    assert "plain,--prometheus-url" in done.stdout


@pytest.fixture
def without_promtool(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH that has Python's own commands alone."""
    monkeypatch.setenv("PATH", str(CMO.parent))


@pytest.mark.usefixtures("without_promtool")
def test_rules_are_checked_by_the_unpacked_promtool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CMO_SERVERS_DIR", str(tmp_path / "servers"))
    for release, version in (("old", "2.9.0"), ("new", "2.10.0")):
        promtool = tmp_path / "servers" / release / "usr/bin/promtool"
        promtool.parent.mkdir(parents=True)
        promtool.write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && echo "promtool, version {version}" && exit\n'
            f'echo "refused by {release}"\nexit 1\n'
        )
        promtool.chmod(0o755)
    rules = tmp_path / "rules.yml"
    rules.write_text("groups: []\n")
    assert cli.run(["rules", "check", str(rules)]) == 1
    assert "refused by new" in capfd.readouterr().out
    given = tmp_path / "servers/old/usr/bin/promtool"
    assert cli.run(["rules", "check", str(rules), "--promtool", str(given)]) == 1
    assert "refused by old" in capfd.readouterr().out


@pytest.mark.usefixtures("without_promtool")
def test_rules_are_checked_without_a_promtool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CMO_SERVERS_DIR", str(tmp_path))
    rules = tmp_path / "rules.yml"
    rules.write_text("groups: []\n")
    assert cli.run(["rules", "check", str(rules)]) == 0
    assert "no promtool was found" in capfd.readouterr().err
