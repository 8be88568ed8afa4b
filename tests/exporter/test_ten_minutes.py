"""docs/instrument-your-service.md, done as its reader does it: every block run, every output compared."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from cmo_stack.free_ports import free_port

from .walkthrough import Block, Shown, Walk, alike, merged, rewritten, steps

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/instrument-your-service.md"
# For whoever changes the exporter or the page: what commands print now is written into the page.
REWRITING = bool(os.environ.get("CMO_REWRITE_PAGE"))
HERE = Path(__file__).parent
SECTIONS = ("A FastAPI service", "A Chainlit app")
SERVICE_PORT, METRICS_PORT = "8000", "9464"
QUIET = {"HAYSTACK_TELEMETRY_ENABLED": "false", "TRACELOOP_TELEMETRY": "false"}


def test_the_fastapi_service_of_the_page_shows_what_the_page_shows(tmp_path: Path) -> None:
    _walk(tmp_path, SECTIONS[0], Path(sys.executable).parent, chat=_no_chat)


def test_the_chainlit_app_of_the_page_shows_what_the_page_shows(
    tmp_path: Path, chainlit_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "exporter"))

    def ask(url: str) -> Callable[[str], str]:
        def asked(question: str) -> str:
            command = [str(chainlit_python), str(HERE / "chat_client.py"), url, question]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        return asked

    _walk(tmp_path, SECTIONS[1], chainlit_python.parent, chat=ask)


def _no_chat(_: str) -> Callable[[str], str]:
    def asked(question: str) -> str:
        raise AssertionError(f"there is no chat to ask {question!r} in")

    return asked


def _walk(folder: Path, section: str, programs: Path, chat: Callable[[str], Callable[[str], str]]) -> None:
    ports = {SERVICE_PORT: str(free_port()), METRICS_PORT: str(free_port())}
    (folder / "curl").symlink_to(HERE / "plain_curl.py")
    url = f"http://127.0.0.1:{ports[SERVICE_PORT]}"
    reader = Walk(folder, programs, ports, chat(url), patient=not REWRITING)
    different = []
    with reader:
        for step in steps(PAGE.read_text(), section=section):
            if isinstance(step, Block) and step.language == "sh":
                _is_how_this_project_is_installed(step)
                continue
            different += [shown for shown in reader.do(step) if not alike(shown.expected, shown.actual)]
    if REWRITING:
        PAGE.write_text(rewritten(PAGE.read_text(), different))
        return
    assert not different, "\n".join(
        f"line {shown.line}: $ {shown.command}\nthe page:\n{shown.expected}\nin truth:\n{shown.actual}"
        for shown in different
    )


def _is_how_this_project_is_installed(step: Block) -> None:
    """From a checkout; that its wheel works elsewhere is said by tests/stack/test_wheel.py."""
    name = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"]
    assert step.text == f"pip install ./{name}\n"


def test_a_change_takes_the_place_of_what_it_changes() -> None:
    before = "import os\n\nA = 1\n\n\n@mark\ndef one() -> None:\n    pass\n\n\none()\n"
    after = merged(
        before, "import sys\nA = 2\n\n\ndef one() -> int:\n    return 1\n\n\ndef two() -> None: ...\n"
    )
    assert after.splitlines() == [
        *("import sys", "import os", "A = 2", "def one() -> int:", "    return 1", "one()"),
        "def two() -> None: ...",
    ]


def test_outputs_differ_in_what_is_said_and_not_in_what_varies() -> None:
    assert alike("sum 0.0101616 1.2e-05\n", "sum 0.2349 3.1e-06")
    assert not alike("cmo_queries_total 1.0", "cmo_queries_total 2.0")
    assert not alike("sum 0.0101616", "sum 0.0")


def test_a_page_is_rewritten_where_it_is_wrong_alone() -> None:
    page = "## One\n\n```console\n$ echo 1\n2\n$ echo 3\n3\n```\n"
    (block,) = steps(page, section="One")
    assert isinstance(block, Block)
    wrong = Shown(block.line, "echo 1", "2\n", "1\n")
    assert rewritten(page, [wrong]) == "## One\n\n```console\n$ echo 1\n1\n$ echo 3\n3\n```\n"


def test_no_block_of_the_page_is_outside_the_sections_that_are_walked() -> None:
    text = PAGE.read_text()
    walked = [step for section in SECTIONS for step in steps(text, section=section)]
    assert sum(isinstance(step, Block) for step in walked) * 2 == text.count("\n```")
