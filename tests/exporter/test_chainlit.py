"""Chainlit's own application is wrapped as any other: its requests are counted, its messages are queries."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import httpx
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]
CHAT = """\
import chainlit as cl
from metrics import exporter


@cl.on_message
async def main(message: cl.Message) -> None:
    with exporter.query(session=cl.user_session.get("id")) as query:
        await cl.Message("A sugar.").send()
        query.answered("lightrag")
"""
METRICS = "from cmo_exporter import default_exporter\n\nexporter = default_exporter()\n"
SERVICE = """\
from chainlit.auth import ensure_jwt_secret
from chainlit.config import config, load_module
from cmo_exporter import instrument_asgi
from metrics import exporter

config.run.root_path = "/chat"
config.run.module_name = "chat.py"
load_module("chat.py")
ensure_jwt_secret()
from chainlit.server import app as chat

app = instrument_asgi(chat, exporter)
"""


def test_chainlit_s_own_application_is_measured(tmp_path: Path, chainlit_python: Path) -> None:
    for name, text in (("chat.py", CHAT), ("metrics.py", METRICS), ("service.py", SERVICE)):
        (tmp_path / name).write_text(text)
    port, metrics = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "exporter")]),
        "CHAINLIT_APP_ROOT": str(tmp_path),
        "CHAINLIT_ROOT_PATH": "/chat",
        "CMO_EXPORTER_PORT": str(metrics),
        "TRACELOOP_TELEMETRY": "false",
    }
    command = [str(chainlit_python), "-m", "uvicorn", "service:app", "--port", str(port)]
    with ManagedProcess(
        "chainlit",
        ["env", "-C", str(tmp_path), *command],
        log_path=tmp_path / "log",
        ready=lambda: _serves(f"{url}/chat/project/translations"),
        environment=environment,
    ):
        client = str(Path(__file__).parent / "chat_client.py")
        done = subprocess.run(
            [str(chainlit_python), client, url, "What is glucose?"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.stdout.strip() == "A sugar.", done.stderr
        text = httpx.get(f"http://127.0.0.1:{metrics}/metrics", timeout=60).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    queries = {s.labels["outcome"]: s.value for s in samples if s.name == "cmo_queries_total" and s.value}
    assert queries == {"success": 1}
    routes = {
        s.labels["http_route"]
        for s in samples
        if s.name == "http_server_request_duration_seconds_count"
        and s.labels["http_response_status_code"] == "200"
    }
    assert "/chat/project/translations" in routes


def _serves(url: str) -> bool:
    try:
        return httpx.get(url, timeout=60).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
