"""One line, and no exporter: settings from the environment, started and closed with the application."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from cmo_exporter import ExporterSettings, Price, SettingsError
from cmo_exporter.defaults import DEFAULT_PORT, settings_from_environment

Eventually = Callable[[Callable[[], object]], None]

ONE_LINE = """
from cmo_exporter import instrument_fastapi
from fastapi import FastAPI

app = FastAPI()
exporter = instrument_fastapi(app)

@app.post("/query")
async def ask() -> str:
    exporter.current_query().answered("lightrag")
    return exporter.metrics_url
"""

PLAIN = """
from cmo_exporter import default_exporter, instrument_asgi

async def bare(scope, receive, send):
    assert scope["type"] == "http", "no lifespan here"
    default_exporter().current_query().answered("lightrag")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f'"{default_exporter().metrics_url}"'.encode()})

app = instrument_asgi(bare)
"""


def run(tmp_path: Path, code: str, **variables: str) -> subprocess.Popen[str]:
    """Serve the module with uvicorn, as its command does."""
    (tmp_path / "service.py").write_text(code)
    command = [sys.executable, "-m", "uvicorn", "service:app", "--port", "0"]
    environment = {**os.environ, **variables}
    return subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def url_of(server: subprocess.Popen[str], said: list[str]) -> str:
    """Where it serves, from what it says."""
    assert server.stdout is not None
    for line in server.stdout:
        said.append(line)
        found = re.search(r"running on (http://\S+)", line)
        if found:
            return found[1]
    raise AssertionError("".join(said))


def stop(server: subprocess.Popen[str]) -> str:
    """End it as a supervisor does; what it said at last."""
    server.send_signal(signal.SIGTERM)
    rest, _ = server.communicate(timeout=60)
    assert server.returncode in (0, -signal.SIGTERM)
    return rest


@pytest.mark.parametrize("code", [ONE_LINE, PLAIN], ids=["instrument_fastapi(app)", "instrument_asgi(app)"])
def test_one_line_is_enough(tmp_path: Path, eventually: Eventually, code: str) -> None:
    server = run(tmp_path, code, CMO_EXPORTER_PORT="0", CMO_EXPORTER_VERSION="9.8.7")
    try:
        url = url_of(server, [])
        metrics_url = httpx.post(f"{url}/query", timeout=60).json()
        success = re.compile(r'^cmo_queries_total{(?=.*"live")(?=.*"success").*} 1', re.MULTILINE)
        eventually(lambda: success.search(httpx.get(metrics_url, timeout=60).text))
        assert 'version="9.8.7"' in httpx.get(metrics_url, timeout=60).text
    finally:
        said = stop(server)
    assert "Traceback" not in said
    with pytest.raises(httpx.TransportError):
        httpx.get(metrics_url)


def test_a_service_whose_metrics_port_is_taken_serves_and_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = run(tmp_path, ONE_LINE, CMO_EXPORTER_PORT=str(port))
        said: list[str] = []
        try:
            assert httpx.post(f"{url_of(server, said)}/query", timeout=60).json() == ""
        finally:
            said.append(stop(server))
    assert f"/metrics cannot be served at 127.0.0.1, port {port}" in "".join(said)
    assert "as the port is, CMO_EXPORTER_PORT" in "".join(said)


def test_a_setting_that_cannot_work_is_said_where_the_service_is_made(tmp_path: Path) -> None:
    server = run(tmp_path, ONE_LINE, CMO_EXPORTER_PROT="9464")
    said, _ = server.communicate(timeout=60)
    assert server.returncode != 0
    assert "CMO_EXPORTER_PROT is no setting of the exporter. Known are: CMO_EXPORTER_SCENARIOS" in said


def test_settings_from_the_environment() -> None:
    assert settings_from_environment({"HOME": "/"}) == ExporterSettings(port=DEFAULT_PORT)
    found = settings_from_environment(
        {
            "CMO_EXPORTER_SCENARIOS": "rush, research",
            "CMO_EXPORTER_COMPONENTS": "llm",
            "CMO_EXPORTER_MODELS": "llm:openai:gpt-4o:mini",
            "CMO_EXPORTER_PRICES": "gpt-4o:mini=0.15/0.60",
            "CMO_EXPORTER_HONOUR_SCENARIO_HEADER": "Yes",
            "CMO_EXPORTER_PORT": "9000",
            "CMO_EXPORTER_SESSION_IDLE_TIMEOUT_SECONDS": "1.5",
            "CMO_EXPORTER_MAXIMUM_SESSIONS": "7",
            "CMO_EXPORTER_METRICS_TOKEN_FILE": "/run/secrets/token",
            "CMO_EXPORTER_METRICS_TLS_CERTIFICATE": "/run/secrets/metrics.pem",
            "CMO_EXPORTER_METRICS_TLS_KEY": "",
            "CMO_EXPORTER_SHARED_DIRECTORY": "/run/cmo",
            "CMO_EXPORTER_OTLP_ENDPOINT": "",
        }
    )
    assert found == ExporterSettings(
        scenarios=("rush", "research"),
        components=("llm",),
        models=(("llm", "openai", "gpt-4o:mini"),),
        prices={"gpt-4o:mini": Price(0.15, 0.60)},
        honour_scenario_header=True,
        port=9000,
        session_idle_timeout_seconds=1.5,
        maximum_sessions=7,
        metrics_token_file=Path("/run/secrets/token"),
        metrics_tls_certificate=Path("/run/secrets/metrics.pem"),
        shared_directory=Path("/run/cmo"),
    )


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("PORT", "many", "a whole number"),
        ("PORT", "70000", "must be 0"),
        ("SESSION_IDLE_TIMEOUT_SECONDS", "long", "a number"),
        ("HONOUR_SCENARIO_HEADER", "perhaps", "true or false"),
        ("MODELS", "llm:openai", "component:provider:model"),
        ("PRICES", "gpt=1", "model=input/output"),
        ("PRICES", "gpt=-1/1", "model=input/output"),
        ("SCENARIOS", "Rush", "lower-case"),
        ("", "x", "no setting"),
    ],
)
def test_a_variable_that_cannot_be_right_is_named(variable: str, text: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected) as raised:
        settings_from_environment({f"CMO_EXPORTER_{variable}": text})
    if "must be" not in str(raised.value) and "lower-case" not in str(raised.value):
        assert f"CMO_EXPORTER_{variable}" in str(raised.value)
