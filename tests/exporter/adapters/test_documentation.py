"""The page about the adapters: its code runs, it leaves none out, and its metrics are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cachetools
import diskcache
import openai
import purgatory
import pytest
import redis
from cmo_exporter import adapters, catalogue

if TYPE_CHECKING:
    from cmo_exporter import Exporter

PAGE = Path(__file__).parents[3] / "docs" / "adapters.md"
CODE = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


class Rag:
    """Has nothing of a LightRAG: what the real one does is tested in ``test_lightrag.py``."""


@pytest.mark.parametrize("code", CODE, ids=lambda code: re.findall(r"instrument_\w+", code)[0])
def test_the_code_runs(code: str, adapted: Exporter, tmp_path: Path) -> None:
    name = re.findall(r"instrument_(\w+)", code)[0]
    objects: dict[str, Any] = {}
    if name == "lightrag":
        objects["rag"] = Rag()
    elif name == "purgatory":
        objects["factory"] = purgatory.AsyncCircuitBreakerFactory()
    elif name in ("openai", "redis"):
        objects["client"] = openai.OpenAI(api_key="secret") if name == "openai" else redis.Redis()
    else:
        objects["cache"] = cachetools.TTLCache(3, 60) if name == "cachetools" else diskcache.Cache(tmp_path)
    exec(code, {"exporter": adapted, **objects})  # noqa: S102 - running it is the test
    errors = sum(
        sample.value
        for family in adapted.registry.collect()
        for sample in family.samples
        if sample.name == "cmo_instrumentation_errors_total"
    )
    assert errors == (name == "lightrag")


def test_every_adapter_is_on_the_page() -> None:
    assert [re.findall(r"instrument_\w+", code)[0] for code in CODE] == [
        "instrument_lightrag", "instrument_openai", "instrument_purgatory",
        "instrument_cachetools", "instrument_redis", "instrument_diskcache",
    ]  # fmt: skip
    assert len(CODE) == len(adapters.__all__)


def test_every_metric_on_the_page_is_in_the_catalogue() -> None:
    assert set(re.findall(r"`(cmo_[a-z_]+)`", PAGE.read_text())) <= set(catalogue.BY_NAME)
