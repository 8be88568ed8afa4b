"""``python -m cmo_oracle.measure_engine``: what a query costs this process in CPU, whatever the model takes.

It starts the upstream stub, asks the engine from many users at once and prints milliseconds of CPU a query,
here and in the stub. The stub answers at once, so nothing is measured but work.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from cmo_oracle.engine import MODES, Engine, EngineSettings

_QUESTIONS = (
    "What does TMAO tell us about cardiovascular risk?",
    "How is octanoylcarnitine used to detect MCAD deficiency?",
    "Why does lactate rise in sepsis?",
    "When is cystatin C better than creatinine?",
)
_START_SECONDS = 60.0


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print one line for each mode; 0 when it worked."""
    parser = argparse.ArgumentParser(prog="python -m cmo_oracle.measure_engine", description=__doc__)
    parser.add_argument("--users", type=int, default=80, help="questions at once (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=160, help="questions a mode (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=64, help="model calls at once (default: %(default)s)")
    options = parser.parse_args(arguments)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    stub = subprocess.Popen([sys.executable, "-m", "cmo_oracle.upstream", "--port", str(port)])
    try:
        _wait(f"http://127.0.0.1:{port}/healthz")
        asyncio.run(_measure(port, stub.pid, options.users, options.queries, options.calls))
    finally:
        stub.terminate()
        stub.wait()
    return 0


async def _measure(port: int, stub: int, users: int, queries: int, calls: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        settings = EngineSettings(
            Path(directory), f"http://127.0.0.1:{port}/ingest/v1", "none", model_calls_at_once=calls
        )
        began = time.monotonic()
        engine = await Engine.open(settings)
        sys.stdout.write(f"index built in {time.monotonic() - began:.1f} s\n")
        for mode in MODES:
            await engine.answer(_QUESTIONS[0], mode)  # so that what is made once is not counted
            here, there = time.process_time(), _cpu_seconds(stub)
            await _ask(engine, mode, users, queries)
            here, there = time.process_time() - here, _cpu_seconds(stub) - there
            per_query = 1000 / queries
            sys.stdout.write(
                f"{mode:7} {here * per_query:6.2f} ms here {there * per_query:6.2f} ms in the stub\n"
            )
        await engine.close()


async def _ask(engine: Engine, mode: str, users: int, queries: int) -> None:
    numbers = iter(range(queries))

    async def user() -> None:
        for number in numbers:
            await engine.answer(_QUESTIONS[number % len(_QUESTIONS)], mode)

    await asyncio.gather(*(user() for _ in range(users)))


def _cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _wait(url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own stub
            return
        time.sleep(0.05)
    raise TimeoutError(f"The stub did not answer at {url} within {_START_SECONDS:g} s.")


if __name__ == "__main__":
    sys.exit(main())
