"""The engine's index: built once, by whoever comes first, whatever was interrupted before."""

from __future__ import annotations

import asyncio
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cmo_oracle.corpus import Passage
from cmo_oracle.engine import EngineError, EngineSettings
from cmo_oracle.engine_index import ByteTokenizer, ensure_index, index_name

from .running_engine import ALWAYS, WAIT_SECONDS, opened, serve

if TYPE_CHECKING:
    from pathlib import Path

TINY = (
    Passage(
        "gout",
        "Uric acid in gout",
        "Xanthine oxidase makes it. Allopurinol inhibits xanthine oxidase.",
    ),
    Passage("sepsis", "Lactate in sepsis", "Lactate rises in septic shock. Metformin raises lactate too."),
)
BUILD = """
import asyncio, pathlib, sys
from cmo_oracle.engine import EngineSettings
from cmo_oracle.engine_index import ensure_index
from cmo_oracle.corpus import Passage
directory, model, index, *texts = sys.argv[1:]
settings = EngineSettings(pathlib.Path(directory), model, "key", index_base_url=index)
asyncio.run(ensure_index(settings, tuple(Passage(*texts[n : n + 3]) for n in range(0, len(texts), 3))))
"""


def _folders(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if path.is_dir()]


async def test_the_index_is_built_once_and_asks_no_model_again(tmp_path: Path) -> None:
    async with serve(error=ALWAYS) as stub:
        settings = stub.settings(tmp_path)
        name = await ensure_index(settings, TINY)
        asked = stub.upstream.ended["answered"]
        assert asked > 0
        assert await ensure_index(settings, TINY) == name
        assert stub.upstream.ended["answered"] == asked
    assert _folders(tmp_path) == [name]


def test_the_index_is_named_by_all_that_its_content_depends_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = EngineSettings(tmp_path, "http://127.0.0.1:1/v1", "key")
    name = index_name(settings, TINY)
    others = {
        index_name(settings, TINY[:1]),
        index_name(replace(settings, model="other"), TINY),
        index_name(replace(settings, embedding_model="other"), TINY),
        index_name(replace(settings, embedding_dimension=8), TINY),
    }
    for constant in ("EXTRACTION_VERSION", "LIGHTRAG_VERSION"):
        with monkeypatch.context() as patched:
            patched.setattr(f"cmo_oracle.engine_index.{constant}", "other")
            others.add(index_name(settings, TINY))
    assert len(others - {name}) == 6
    assert index_name(replace(settings, model_calls_at_once=99, similarity_threshold=0.5), TINY) == name


async def test_a_failed_build_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    async with serve(error=ALWAYS) as stub:
        settings = stub.settings(tmp_path)
        with pytest.raises(EngineError, match=r"2 of 2 passages could not be indexed"):
            await ensure_index(replace(settings, index_base_url=settings.model_base_url), TINY)
        assert not _folders(tmp_path)
        async with opened(settings, passages=TINY) as engine:
            assert await engine.retrieve("What does allopurinol inhibit?", "naive") == ["gout"]


async def test_an_interrupted_build_is_not_taken_for_a_finished_one(tmp_path: Path) -> None:
    async with serve() as stub:
        settings = stub.settings(tmp_path)
        name = await ensure_index(settings, TINY)
        # What a killed process leaves: its unfinished folder; and, at worst, a folder without the mark.
        (tmp_path / name).joinpath("cmo-index.json").unlink()
        shutil.copytree(tmp_path / name, tmp_path / "building_0123")
        (tmp_path / name / "vdb_chunks.json").write_text("{")
        async with opened(settings, passages=TINY) as engine:
            assert await engine.retrieve("What does allopurinol inhibit?", "hybrid") == ["gout"]
    assert _folders(tmp_path) == [name]


async def test_two_processes_build_one_index_between_them(tmp_path: Path) -> None:
    texts = [text for passage in TINY for text in (passage.name, passage.title, passage.body)]
    async with serve() as stub:
        settings = stub.settings(tmp_path)
        arguments = [str(tmp_path), settings.model_base_url, settings.index_base_url, *texts]
        builders = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", BUILD, *arguments) for _ in range(2)
        ]
        async with asyncio.timeout(WAIT_SECONDS):
            assert [await builder.wait() for builder in builders] == [0, 0]
        assert stub.upstream.asked_for["extraction"] == len(TINY)
        async with opened(settings, passages=TINY) as engine:
            assert await engine.retrieve("What does allopurinol inhibit?", "hybrid") == ["gout"]
    assert _folders(tmp_path) == [index_name(settings, TINY)]


@pytest.mark.parametrize("text", ["", "a", "uric acid", "β-hydroxybutyrate, 0.5 µmol/L", "日本語"])
def test_tokenizer_gives_back_what_it_was_given(text: str) -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(text)) == -(-len(text.encode()) // 4)
