"""The reference service in several workers: one address, one target, and the sum of what both do."""

from __future__ import annotations

import itertools
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
from cmo_stack.answers import problem_of
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess

from .running_stack import wait_for

if TYPE_CHECKING:
    from pathlib import Path


def test_two_workers_are_one_service(tmp_path: Path) -> None:
    upstream, port, metrics = free_port(), free_port(), free_port()
    stub = ManagedProcess(
        "stub",
        [sys.executable, "-m", "cmo_oracle.upstream", "--port", str(upstream), "--calibration", "calm"],
        log_path=tmp_path / "stub.log",
        ready=lambda: problem_of(f"http://127.0.0.1:{upstream}/healthz") is None,
    )
    options = {
        "--profile": "healthy",
        "--workers": 2,
        "--port": port,
        "--metrics-port": metrics,
        "--upstream-url": f"http://127.0.0.1:{upstream}/v1",
        "--index-directory": tmp_path / "index",
    }
    service = ManagedProcess(
        "service",
        [sys.executable, "-m", "cmo_oracle", *(str(word) for option in options.items() for word in option)],
        log_path=tmp_path / "service.log",
        ready=lambda: problem_of(f"http://127.0.0.1:{port}/readyz") is None,
        ready_timeout_seconds=180,
    )

    def ask(number: int) -> int:
        body = {"question": f"What is metabolite number {number}?"}
        return httpx.post(
            f"http://127.0.0.1:{port}/query", json=body, timeout=120, trust_env=False
        ).status_code

    def page() -> str:
        return httpx.get(f"http://127.0.0.1:{metrics}/metrics", timeout=60, trust_env=False).text

    with stub, service:
        wait_for(
            lambda: len(re.findall(r"^cmo_worker_start_time_seconds\{", page(), re.M)) == 2, "two workers"
        )
        numbers = itertools.count()

        def both_have_answered() -> bool:
            # The kernel decides which of them takes a connection.
            with ThreadPoolExecutor(4) as pool:
                assert set(pool.map(ask, itertools.islice(numbers, 4))) == {200}
            return len(set(re.findall(r'"process": (\d+)', (tmp_path / "service.log").read_text()))) == 2

        wait_for(both_have_answered, "an answer of each worker")
        counted = rf'^cmo_queries_started_total\{{scenario="live"\}} {next(numbers)}\.0$'
        wait_for(
            lambda: re.search(counted, page(), re.M), "every query is counted, whoever is scraped", said=page
        )
    assert "Stopping parent process" in (tmp_path / "service.log").read_text()
