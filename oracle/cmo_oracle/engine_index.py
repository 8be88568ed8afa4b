"""The knowledge-graph index: built once from the corpus, kept between runs, never half-built.

An index lives in a folder named by a hash of all that its content depends on. It is built under another
name and renamed when it is complete, so a folder with the right name is a finished index, whatever was
killed before; and a lock keeps two processes from building the same one at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
import sys
import uuid
from typing import TYPE_CHECKING, Any, Final

import lightrag
from lightrag.utils import EmbeddingFunc, Tokenizer

from cmo_oracle.corpus import Passage, corpus_fingerprint
from cmo_oracle.engine_calls import (
    EngineTelemetry,
    QueuedLightRAG,
    Silence,
    embedding_function,
    model_function,
)
from cmo_oracle.engine_settings import EngineError, EngineSettings
from cmo_oracle.model_client import ModelClient
from cmo_oracle.upstream.answers import EXTRACTION_VERSION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LIGHTRAG_VERSION: Final = str(lightrag.__version__)

_READY_FILE: Final = "cmo-index.json"
_BUILDING: Final = "building_"
_LOCK_POLL_SECONDS: Final = 0.1
_BYTES_PER_TOKEN: Final = 4
_EMBEDDING_MAX_TOKENS: Final = 8_192
# LightRAG's deadlines stand behind the client's, and must never be the first to fire.
_SAFETY_SECONDS: Final = 30


class ByteTokenizer:
    """Counts four bytes as a token: reversible, without state, and nothing has to be downloaded for it."""

    def encode(self, content: str) -> list[int]:
        """Tokens of a text; the last is filled up with zero bytes."""
        data = content.encode()
        return memoryview(data + b"\0" * (-len(data) % _BYTES_PER_TOKEN)).cast("I").tolist()

    def decode(self, tokens: list[int]) -> str:
        """The text of tokens; a character cut in half at either end is dropped."""
        data = b"".join(token.to_bytes(_BYTES_PER_TOKEN, sys.byteorder) for token in tokens)
        return data.rstrip(b"\0").decode(errors="ignore")


def index_name(settings: EngineSettings, passages: tuple[Passage, ...]) -> str:
    """The folder's name: a hash of the corpus, the models, LightRAG's version and the stub's extraction."""
    parts = (
        corpus_fingerprint(passages),
        LIGHTRAG_VERSION,
        EXTRACTION_VERSION,
        settings.model,
        settings.embedding_model,
        str(settings.embedding_dimension),
    )
    return f"index_{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:16]}"


def make_rag(
    settings: EngineSettings,
    client: ModelClient,
    telemetry: EngineTelemetry,
    workspace: str,
    calls_at_once: int,
) -> QueuedLightRAG:
    """LightRAG over the index in ``workspace``, with everything said that it would take from variables."""
    # It writes questions into its log, and has handlers of its own on it.
    logging.getLogger("lightrag").setLevel(logging.CRITICAL + 1)
    # nano-vectordb turns the root logger up to INFO on import, and every model call would be a line.
    for talkative in ("nano-vectordb", "httpx", "httpx2"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    deadline = math.ceil(settings.model_timeout_seconds) + _SAFETY_SECONDS
    return QueuedLightRAG(
        working_dir=str(settings.working_directory),
        workspace=workspace,
        kv_storage="JsonKVStorage",
        vector_storage="NanoVectorDBStorage",
        graph_storage="NetworkXStorage",
        doc_status_storage="JsonDocStatusStorage",
        tokenizer=Tokenizer("bytes", ByteTokenizer()),
        embedding_func=EmbeddingFunc(
            embedding_dim=settings.embedding_dimension,
            max_token_size=_EMBEDDING_MAX_TOKENS,
            func=embedding_function(client, settings, telemetry),
        ),
        embedding_func_max_async=calls_at_once,
        embedding_batch_num=32,
        default_embedding_timeout=deadline,
        llm_model_func=model_function(client, settings, telemetry),
        llm_model_name=settings.model,
        llm_model_max_async=calls_at_once,
        default_llm_timeout=deadline,
        enable_llm_cache=False,
        enable_llm_cache_for_entity_extract=False,
        entity_extraction_use_json=False,
        entity_extract_max_gleaning=0,
        max_parallel_insert=calls_at_once,
        cosine_better_than_threshold=settings.similarity_threshold,
        user_prompt_prefix="",
    )


async def close_rag(rag: QueuedLightRAG) -> None:
    """Close storages, and the queues' workers, which LightRAG itself leaves running."""
    await rag.finalize_storages()
    for queue in (*rag.role_llm_funcs.values(), rag.embedding_func.func):
        await queue.shutdown(graceful=False)


async def ensure_index(settings: EngineSettings, passages: tuple[Passage, ...]) -> str:
    """Make sure that the index exists, and say its name.

    Raises:
        EngineError: it could not be built.
        OSError: the working directory cannot be written.
    """
    name = index_name(settings, passages)
    folder = settings.working_directory / name
    if _is_ready(folder):
        return name
    settings.working_directory.mkdir(parents=True, exist_ok=True)
    async with _only_builder(settings.working_directory / ".building.lock"):
        if not _is_ready(folder):  # another process may have built it while this one waited
            _remove_remains(settings.working_directory, folder)
            await _build(settings, passages, folder)
    return name


async def _build(settings: EngineSettings, passages: tuple[Passage, ...], folder: Path) -> None:
    workspace = f"{_BUILDING}{uuid.uuid4().hex}"  # also new in memory, where LightRAG shares by workspace
    calls_at_once = settings.index_calls_at_once
    client = ModelClient(
        base_url=settings.index_base_url or settings.model_base_url,
        api_key=settings.api_key,
        model=settings.model,
        embedding_model=settings.embedding_model,
        timeout_seconds=settings.model_timeout_seconds,
        max_connections=2 * calls_at_once,
    )
    rag = make_rag(settings, client, Silence(), workspace, calls_at_once)
    building = settings.working_directory / workspace
    try:
        await rag.initialize_storages()
        names = [passage.name for passage in passages]
        await rag.ainsert(
            [passage.text for passage in passages], ids=names, file_paths=[f"{name}.md" for name in names]
        )
        await _check_complete(rag, names)
        await close_rag(rag)
        (building / _READY_FILE).write_text(
            json.dumps({"passages": len(names), "lightrag": LIGHTRAG_VERSION})
        )
        os.replace(building, folder)  # noqa: PTH105 - the atomic rename is the point
    except BaseException:
        with contextlib.suppress(Exception):
            await close_rag(rag)
        shutil.rmtree(building, ignore_errors=True)
        raise
    finally:
        await client.close()


async def _check_complete(rag: QueuedLightRAG, names: list[str]) -> None:
    statuses: dict[str, Any] = await rag.aget_docs_by_ids(names)
    missing = [name for name in names if _status_of(statuses.get(name)) != "processed"]
    if missing:
        raise EngineError(
            "service_unavailable",
            f"{len(missing)} of {len(names)} passages could not be indexed, the first being '{missing[0]}'. "
            f"Check that the model answers at the index's base URL, and start again.",
        )


def _status_of(document: Any) -> str:
    # A dictionary in 1.5.7, where the annotation promises an object.
    status = document.get("status") if isinstance(document, dict) else getattr(document, "status", "")
    return str(getattr(status, "value", status))


def _is_ready(folder: Path) -> bool:
    return (folder / _READY_FILE).is_file()


def _remove_remains(working_directory: Path, folder: Path) -> None:
    # Under the lock nobody else builds, so whatever is unfinished was left by a process that died.
    for remains in (*working_directory.glob(f"{_BUILDING}*"), folder):
        shutil.rmtree(remains, ignore_errors=True)


@contextlib.asynccontextmanager
async def _only_builder(lock_file: Path) -> AsyncIterator[None]:
    with lock_file.open("w") as lock:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            await asyncio.sleep(_LOCK_POLL_SECONDS)
        yield  # closing the file releases the lock, as does the end of the process
