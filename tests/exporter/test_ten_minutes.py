"""docs/instrument-your-service.md, done as its reader does it: every block run, every output compared."""

from __future__ import annotations

import contextlib
import gzip
import os
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from cmo_stack import servers
from cmo_stack.free_ports import free_port
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .walkthrough import Block, Chat, Shown, Span, Walk, alike, merged, rewritten, said_of, steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/instrument-your-service.md"
# For whoever changes the exporter or the page: what commands print now is written into the page.
REWRITING = bool(os.environ.get("CMO_REWRITE_PAGE"))
HERE = Path(__file__).parent
SECTIONS = ("A FastAPI service", "A Chainlit app")
SERVICE_PORT, METRICS_PORT, COLLECTOR_PORT = "8000", "9464", "4318"
# Every Python of the walk imports it: a connection to anywhere but this machine is refused, and written down.
LOOPBACK_ALONE = """\
import os, socket, sys

def watch(event, arguments):
    if event == "socket.connect" and arguments[0].family in (socket.AF_INET, socket.AF_INET6):
        host = arguments[1][0]
        if host not in ("127.0.0.1", "::1", "localhost"):
            with open(os.environ["STRANGERS"], "a") as file:
                file.write(host + "\\n")
            raise ConnectionRefusedError(host)

sys.addaudithook(watch)
"""


def test_the_fastapi_service_of_the_page_shows_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _walk(monkeypatch, tmp_path, SECTIONS[0], Path(sys.executable).parent, chat=_no_chat)


def test_the_chainlit_app_of_the_page_shows_what_the_page_shows(
    tmp_path: Path, chainlit_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (watching := tmp_path / "watching").mkdir()
    (watching / "sitecustomize.py").write_text(LOOPBACK_ALONE)
    monkeypatch.setenv("STRANGERS", str(strangers := tmp_path / "strangers"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(watching), str(ROOT / "exporter")]))
    monkeypatch.setenv("TRACELOOP_TELEMETRY", "false")

    def ask(url: str) -> Callable[[Chat], str]:
        def asked(chat: Chat) -> str:
            command = [str(chainlit_python), str(HERE / "chat_client.py"), url, chat.question]
            command += ["--stop"] if chat.stopped else []
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        return asked

    _walk(monkeypatch, tmp_path, SECTIONS[1], chainlit_python.parent, chat=ask)
    assert not strangers.exists(), strangers.read_text()


def _no_chat(_: str) -> Callable[[Chat], str]:
    def asked(chat: Chat) -> str:
        raise AssertionError(f"there is no chat to ask {chat.question!r} in")

    return asked


def _walk(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    section: str,
    programs: Path,
    chat: Callable[[str], Callable[[Chat], str]],
) -> None:
    ports = {port: str(free_port()) for port in (SERVICE_PORT, METRICS_PORT, COLLECTOR_PORT)}
    # The page leaves the metrics' port to its default, which may be taken on the machine of a test.
    monkeypatch.setenv("CMO_EXPORTER_PORT", ports[METRICS_PORT])
    (folder / "curl").symlink_to(HERE / "plain_curl.py")
    url = f"http://127.0.0.1:{ports[SERVICE_PORT]}"
    different: list[Shown] = []
    done: list[tuple[Block, list[Shown]]] = []
    with (
        _collector(int(ports[COLLECTOR_PORT])) as collected,
        Walk(folder, programs, ports, chat(url), collected, patient=not REWRITING) as reader,
    ):
        for step in steps(PAGE.read_text(), section=section):
            if isinstance(step, Block) and step.language in OF_NO_READER:
                OF_NO_READER[step.language](step, folder)
                continue
            shown = reader.do(step)
            done += [(step, shown)] if isinstance(step, Block) and shown else []
            if not (REWRITING and isinstance(step, Block)):
                different += [one for one in shown if not alike(one.expected, one.actual)]
    if REWRITING:
        PAGE.write_text(rewritten(PAGE.read_text(), done))
    assert not different, "\n".join(
        f"line {shown.line}: $ {shown.command}\nthe page:\n{shown.expected}\nin truth:\n{shown.actual}"
        for shown in different
    )


@contextlib.contextmanager
def _collector(port: int) -> Iterator[Callable[[], list[str]]]:
    """A receiver of OTLP; the value tells the names of the spans that it has got."""
    names: list[str] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent = ExportTraceServiceRequest.FromString(
                gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            )
            names.extend(
                span.name for one in sent.resource_spans for scope in one.scope_spans for span in scope.spans
            )
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", port), Receiver)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield lambda: list(names)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _is_how_this_project_is_installed(step: Block, _: Path) -> None:
    """From a checkout; that its wheel works elsewhere is said by tests/stack/test_wheel.py."""
    name = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"]
    assert step.text == f"pip install ./{name}\n"


def _is_a_configuration_of_prometheus(step: Block, folder: Path) -> None:
    (folder / "prometheus.yml").write_text(step.text)
    promtool = servers.newest("promtool")
    command = [str(promtool.path), "check", "config", str(folder / "prometheus.yml")]
    environment = {**os.environ, **promtool.environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"localhost:{METRICS_PORT}" in step.text


# Blocks that are not done where the service is.
OF_NO_READER = {"sh": _is_how_this_project_is_installed, "yaml": _is_a_configuration_of_prometheus}


def test_a_change_takes_the_place_of_what_it_changes() -> None:
    before = "import os\n\nA = 1\n\n\n@mark\ndef one() -> None:\n    pass\n\n\none()\n"
    after = merged(
        before, "import sys\nA = 2\n\n\ndef one() -> int:\n    return 1\n\n\ndef two() -> None: ...\n"
    )
    assert after.splitlines() == [
        *("import sys", "import os", "A = 2", "def one() -> int:", "    return 1", "one()"),
        "def two() -> None: ...",
    ]
    assert merged(after, "B = A\none()\n") == after.replace("A = 2\n", "A = 2\nB = A\n")


def test_what_gunicorn_begins_its_lines_with_differs_from_run_to_run() -> None:
    wanted = "[2026-11-25 07:00:03 +0000] [7703] [INFO] Application startup complete."
    log = "[2031-01-01 00:00:00 +0100] [9] [INFO] Application startup complete.\n"
    assert said_of([wanted], log) == [wanted]
    assert said_of([wanted, wanted], log) == []
    assert said_of([wanted.replace("complete", "begun")], log) == []


def test_outputs_differ_in_what_is_said_and_not_in_what_varies() -> None:
    assert alike("sum 0.0101616 1.2e-05 1.79e+09\n", "sum 0.2349 3.1e-06 1.78e+09")
    assert not alike("cmo_queries_total 1.0", "cmo_queries_total 2.0")
    assert not alike("sum 0.0101616", "sum 0.0")
    assert alike('a{b="c"} 1.0\nd{b="c"} 2.0', 'd{b="c"} 2.0\na{b="c"} 1.0')
    assert not alike("one\ntwo", "two\none"), "only metrics have no order"


def test_a_page_is_rewritten_where_it_is_wrong_alone() -> None:
    page = "## One\n\n```console\n$ echo 1\n2\n$ echo 3\n3\n```\n"
    (block,) = steps(page, section="One")
    assert isinstance(block, Block)
    wrong = Shown(block.line, "echo 1", "2\n", "1\n")
    right = Shown(block.line, "echo 3", "3\n", "3\n")
    assert rewritten(page, [(block, [wrong, right])]) == page.replace("2\n", "1\n")


def test_every_page_can_be_found_from_the_first_one() -> None:
    first = (ROOT / "README.md").read_text()
    pages = [f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")]
    assert pages
    assert not [page for page in pages if f"[{page}]({page})" not in first]


def test_nothing_on_the_page_is_left_out_of_the_walk() -> None:
    text = PAGE.read_text()
    walked = [step for section in SECTIONS for step in steps(text, section=section)]
    assert sum(isinstance(step, Block) for step in walked) * 2 == text.count("\n```")
    assert sum(isinstance(step, Chat) for step in walked) == text.count("in the chat")
    assert sum(isinstance(step, Span) for step in walked) == text.count("gets the span")
