"""A user of the chat page: opens it, sends one message, prints the answer, and leaves.

Run beside Chainlit: ``python chat_client.py http://127.0.0.1:8000 "What is glucose?"``.
"""

import asyncio
import sys
import uuid

import socketio  # type: ignore[import-untyped]

_PATH = "/chat/ws/socket.io"
_DEADLINE_SECONDS = 45


async def ask(url: str, question: str) -> str:
    """The answer to a question, asked in a session of its own."""
    client = socketio.AsyncClient(reconnection=False)
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @client.on("new_message")  # type: ignore[untyped-decorator]
    async def read(step: dict[str, str]) -> None:
        if step["type"] == "assistant_message" and not answer.done():
            answer.set_result(step["output"])

    session = {"sessionId": str(uuid.uuid4()), "clientType": "webapp", "userEnv": "{}"}
    await client.connect(url, socketio_path=_PATH, transports=["websocket"], auth=session)
    message = {"id": str(uuid.uuid4()), "name": "user", "type": "user_message", "output": question}
    message["createdAt"] = "2025-08-09T12:00:00Z"
    try:
        await client.emit("connection_successful")
        await client.emit("client_message", {"message": message, "fileReferences": []})
        return await asyncio.wait_for(answer, _DEADLINE_SECONDS)
    finally:
        await client.emit("clear_session")
        await client.disconnect()


if __name__ == "__main__":
    print(asyncio.run(ask(sys.argv[1], sys.argv[2])))  # noqa: T201 - what it is for
