"""A small service that answers by script and writes down what it saw: the load test's target in tests.

Started as a process of its own on uvicorn, with a JSON object on the command line: ``port``, ``seen`` (path
of the log), ``ready`` (status of /readyz) and ``script``. A step of the script has ``every``: it applies to
each question whose number within its scenario is a multiple of it; the first that applies is taken. It says
what happens: ``latency_seconds``, ``status``, ``trail`` (changes of the usual one), ``body`` (raw, instead of
an answer), and ``cut``: ``reset`` drops the connection before the answer, ``half`` in the middle of it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import uvicorn

SUCCESS = {
    "outcome": "success",
    "source": "cache",
    "cache": "hit",
    "tiers": [["l1", "miss"], ["l2", "hit"]],
    "fallbacks": [],
}


class Target:
    """The ASGI application. One line in ``seen`` for each question, written when it has arrived."""

    def __init__(self, seen: Path, script: list[dict[str, Any]], ready: int) -> None:
        self._seen = seen.open("a", buffering=1)
        self._script = script
        self._ready = ready
        self._asked: Counter[str] = Counter()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/query":
            await self._answer(scope, receive, send)
        elif scope["type"] == "http":
            await _respond(send, self._ready if scope["path"] == "/readyz" else 404, b"{}")

    async def _answer(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        scenario = headers["x-cmo-scenario"]
        self._asked[scenario] += 1
        step = self._step(self._asked[scenario])
        port = scope["client"][1]
        seen = {"at": time.time(), "headers": headers, "body": json.loads(body), "port": port, "step": step}
        self._seen.write(json.dumps(seen) + "\n")
        await asyncio.sleep(step.get("latency_seconds", 0.0))
        if step.get("cut") == "reset":
            send.__self__.transport.abort()
            return
        answer = step.get("body") or json.dumps(
            {"answer": "An answer.", "trail": {**SUCCESS, **step.get("trail", {})}}
        )
        await _respond(send, step.get("status", 200), answer.encode(), half=step.get("cut") == "half")

    def _step(self, number: int) -> dict[str, Any]:
        return next((step for step in self._script if number % step.get("every", 1) == 0), {})


async def _respond(send: Any, status: int, body: bytes, *, half: bool = False) -> None:
    length = str(len(body)).encode()
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"application/json"), (b"content-length", length)],
        }
    )
    if half:
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        send.__self__.transport.abort()
        return
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    settings = json.loads(sys.argv[1])
    target = Target(Path(settings["seen"]), settings["script"], settings["ready"])
    uvicorn.run(
        target,
        host="127.0.0.1",
        port=settings["port"],
        lifespan="off",
        timeout_keep_alive=120,
        log_level="critical",
        access_log=False,
    )


if __name__ == "__main__":
    main()
