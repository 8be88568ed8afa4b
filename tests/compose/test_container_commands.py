"""The small commands that containers run: a health check, Grafana's first password, waiting for scrapes."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

import pytest
from cmo_stack import answers, first_password, scraped
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cmo_stack.servers import Server


class _Handler(http.server.BaseHTTPRequestHandler):
    status: ClassVar[int] = 200
    body: ClassVar[str] = ""
    promised_bytes: ClassVar[int] = 0

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" or self.body else 404)
        self.send_header("Content-Length", str(self.promised_bytes or len(self.body)))
        self.end_headers()
        self.wfile.write(self.body.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(status: int, body: str = "", promised_bytes: int = 0) -> Iterator[str]:
    fields = {"status": status, "body": body, "promised_bytes": promised_bytes}
    handler = type("Handler", (_Handler,), fields)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_what_answers_with_200_is_healthy() -> None:
    with serving(200) as url:
        assert answers.main([f"{url}/readyz"]) == 0


def test_whatever_else_is_not_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(503) as url:
        assert answers.main([f"{url}/readyz"]) == 1
        assert "answered with 503" in capsys.readouterr().err
    assert answers.main([f"http://127.0.0.1:{free_port()}/readyz"]) == 1
    assert "Refused" in capsys.readouterr().err
    not_urls = ("http://127.0.0.1:port/", "http://127.0.0.1:99999/", "http://[::1/")
    for wrong in (
        [],
        ["readyz"],
        ["https://127.0.0.1/readyz"],
        ["http://a", "http://b"],
        *([url] for url in not_urls),
    ):
        assert answers.main(wrong) == 1
        assert "Expected one URL" in capsys.readouterr().err


def test_a_name_that_no_host_has_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert answers.main(["http://..:1/readyz"]) == 1
    assert "http://..:1/readyz: UnicodeError" in capsys.readouterr().err


def test_a_health_check_imports_little() -> None:
    """It runs every few seconds in every container."""
    program = "import cmo_stack.answers, sys; print('click' in sys.modules, 'yaml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_password_is_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, other = tmp_path / "password", tmp_path / "other"
    assert first_password.main([str(file)]) == 0
    made = file.read_text()
    assert len(made) == 32
    assert file.stat().st_mode & 0o777 == 0o400
    assert first_password.main([str(file)]) == 0
    assert file.read_text() == made
    assert first_password.ensure(other)
    assert other.read_text() != made
    assert made not in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "password"]


def test_of_several_at_once_one_makes_the_password_and_none_fails(tmp_path: Path) -> None:
    file, together = tmp_path / "password", threading.Barrier(8)

    def make() -> tuple[bool, str]:
        together.wait()
        return first_password.ensure(file), file.read_text()

    for _ in range(20):
        file.unlink(missing_ok=True)
        with ThreadPoolExecutor(8) as pool:
            done = [each.result() for each in [pool.submit(make) for _ in range(8)]]
        assert [made for made, _ in done].count(True) == 1
        assert {seen for _, seen in done} == {file.read_text()}
        assert [path.name for path in tmp_path.iterdir()] == ["password"]


def test_a_password_that_was_half_written_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "password.unfinished").write_text("half")
    assert first_password.ensure(tmp_path / "password")
    assert len((tmp_path / "password").read_text()) == 32


def test_what_is_no_password_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").touch()
    assert first_password.main([str(tmp_path / "empty")]) == 3
    assert "is empty. Remove it" in capsys.readouterr().err
    assert first_password.main([str(tmp_path / "nowhere/password")]) == 3
    assert "cannot be read, or not be written" in capsys.readouterr().err
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere/password")
    assert first_password.main([str(tmp_path / "dangling")]) == 3
    assert first_password.main([]) == 3


def test_it_waits_until_every_target_of_the_service_was_scraped_twice(
    prometheus_server: Server, tmp_path: Path
) -> None:
    with scraping(prometheus_server, tmp_path) as url:
        assert scraped.main([url]) == 0
        count = scraped.scrapes(url, "cmo", since=0)
        assert count >= 2
        assert scraped.scrapes(url, "nobody", since=0) == 0


def test_nothing_that_answers_has_scraped_nothing() -> None:
    assert scraped.scrapes(f"http://127.0.0.1:{free_port()}", "cmo", since=0) == 0
    with serving(200) as url:
        assert scraped.scrapes(url, "cmo", since=0) == 0
    for wrong in ("prometheus:9090", "http://", "http://prometheus:port", "http://[::1"):
        assert scraped.main([wrong]) == 3


@pytest.mark.parametrize(
    "body",
    ["[]", '{"data": null}', '{"data": {"result": [1]}}', '{"data": {"result": [{"value": [1, "NaN"]}]}}'],
)
def test_an_answer_that_is_none_of_prometheus_has_scraped_nothing(body: str) -> None:
    with serving(200, body) as url:
        assert scraped.scrapes(url, "cmo", since=0) == 0


def test_an_answer_that_breaks_off_has_scraped_nothing() -> None:
    with serving(200, "{", promised_bytes=100) as url:
        assert scraped.scrapes(url, "cmo", since=0) == 0


@contextmanager
def scraping(server: Server, folder: Path) -> Iterator[str]:
    """A Prometheus that scrapes itself every second, as if it were the service."""
    port = free_port()
    jobs = [{"job_name": "cmo", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}]
    configuration = folder / "prometheus.yml"
    configuration.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
    command = [
        str(server.path),
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    process = ManagedProcess(
        "prometheus",
        command,
        log_path=folder / "log",
        ready=lambda: answers.problem_of(f"http://127.0.0.1:{port}/-/ready") is None,
        environment=server.environment,
    )
    with process:
        yield f"http://127.0.0.1:{port}"
