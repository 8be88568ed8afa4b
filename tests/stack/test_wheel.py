"""The built wheel works away from the tree, with the data that the commands need inside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed in; nothing is fetched."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys, hatchling.build; print(hatchling.build.build_wheel(sys.argv[1]))"
    name = _run([sys.executable, "-c", build, str(folder)], cwd=ROOT).splitlines()[-1]
    target = folder / "installed"
    target.mkdir()
    _run([sys.executable, "-m", "zipfile", "-e", str(folder / name), str(target)], cwd=folder)
    return target


def _run(command: list[str], cwd: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _cmo(installed: Path, *arguments: str) -> str:
    program = (
        "import sys; import cmo_stack, cmo_slo; "
        f"assert cmo_stack.__file__.startswith({str(installed)!r}), cmo_stack.__file__; "
        f"assert cmo_slo.__file__.startswith({str(installed)!r}), cmo_slo.__file__; "
        "from cmo_stack.cli import run; sys.exit(run(sys.argv[1:]))"
    )
    return _run([sys.executable, "-c", program, *arguments], cwd=installed.parent, PYTHONPATH=str(installed))


def test_help_works(installed: Path) -> None:
    assert "demo" in _cmo(installed, "--help")
    assert "--prometheus-url" in _cmo(installed, "check", "--help")


def test_the_objectives_inside_compile_to_the_committed_rules(installed: Path) -> None:
    compiled = _cmo(installed, "rules", "build", "cmo-015", "--output", "-")
    assert compiled == (ROOT / "slo_rules/rules/cmo-015.yml").read_text()


@pytest.mark.parametrize(
    "path",
    [
        "cmo_slo/objectives/cmo-015.yml",
        "cmo_slo/rules/cmo-015-1s.yml",
        "cmo_stack/prometheus/prometheus.yml",
        "cmo_stack/alertmanager/alertmanager.yml",
        "cmo_oracle/profiles/report.yml",
        "cmo_loadtest/questions.yml",
    ],
)
def test_the_data_is_inside(installed: Path, path: str) -> None:
    assert (installed / path).is_file()


def test_the_set_up_is_not_inside(installed: Path) -> None:
    assert not (installed / "cmo_bootstrap").exists()
