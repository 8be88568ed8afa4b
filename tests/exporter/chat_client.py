"""A user of the chat page: opens it, sends one message, prints the answer, and leaves.

Run beside Chainlit: ``python chat_client.py http://127.0.0.1:8000 "What is glucose?"``. With ``--stop`` the
user presses Stop as soon as the answer begins, and its first piece is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import uuid

import socketio  # type: ignore[import-untyped]

_PATH = "/chat/ws/socket.io"
_DEADLINE_SECONDS = 45


class User:
    """One user with a session of their own."""

    def __init__(self, *, stops: bool) -> None:
        self._stops = stops
        self._client = socketio.AsyncClient(reconnection=False)
        self._client.on("new_message", self._read)
        self._client.on("stream_start", self._read_first_piece)
        self._client.on("task_end", self._see_end)
        self._answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()

    async def ask(self, url: str, question: str) -> str:
        """The answer to a question, or its first piece."""
        session = {"sessionId": str(uuid.uuid4()), "clientType": "webapp", "userEnv": "{}"}
        await self._client.connect(url, socketio_path=_PATH, transports=["websocket"], auth=session)
        try:
            await self._client.emit("connection_successful")
            await self._client.emit("client_message", {"message": _message(question), "fileReferences": []})
            answer = await asyncio.wait_for(self._answer, _DEADLINE_SECONDS)
            await asyncio.wait_for(self._ended.wait(), _DEADLINE_SECONDS)
            return answer
        finally:
            await self._client.emit("clear_session")
            await self._client.disconnect()

    async def _read(self, step: dict[str, str]) -> None:
        if step["type"] == "assistant_message" and not self._answer.done():
            self._answer.set_result(step["output"])

    async def _read_first_piece(self, step: dict[str, str]) -> None:
        if self._stops:
            await self._read(step)
            self._ended.clear()
            await self._client.emit("stop")

    async def _see_end(self, _: object) -> None:
        self._ended.set()


def _message(question: str) -> dict[str, str]:
    known = {"name": "user", "type": "user_message", "createdAt": "2025-08-09T12:00:00Z"}
    return {**known, "id": str(uuid.uuid4()), "output": question}


async def main() -> None:
    """Ask what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("question")
    parser.add_argument("--stop", action="store_true")
    wanted = parser.parse_args()
    print(await User(stops=wanted.stop).ask(wanted.url, wanted.question))  # noqa: T201 - what it is for


if __name__ == "__main__":
    asyncio.run(main())
