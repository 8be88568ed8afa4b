"""The parts of one instance of the service, put together from its settings, opened and closed together."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Final

from cmo_exporter import Exporter, ExporterSettings, Price

from cmo_oracle import guarded_engine, perplexity
from cmo_oracle.caches import CacheError, DiskTier, MemoryTier, RedisTier, RestingTier
from cmo_oracle.corpus import load_corpus
from cmo_oracle.engine import Engine
from cmo_oracle.engine_index import index_name
from cmo_oracle.engine_settings import EngineError, EngineSettings
from cmo_oracle.failures import describe
from cmo_oracle.guarded_engine import GuardedEngine
from cmo_oracle.model_client import ModelClient
from cmo_oracle.perplexity import Perplexity
from cmo_oracle.pipeline import Pipeline

if TYPE_CHECKING:
    from cmo_oracle.settings import Settings

VERSION: Final = metadata.version("cmo-observability")

_HOUSEKEEPING_SECONDS: Final = 1.0
_ENGINE_RETRY_SECONDS: Final = 2.0
_DISK, _REDIS = "cache_l2", "cache_l3"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Readiness:
    """Whether the engine is loaded, the state of the optional parts, and which of them do not work."""

    ready: bool
    parts: dict[str, str]

    @property
    def degraded(self) -> list[str]:
        """The parts that do not work, though queries are answered without them."""
        return [
            name for name, state in self.parts.items() if state not in ("ok", "loaded", "absent", "closed")
        ]


class Service:
    """One instance: its exporter, caches, engine, fallback and the pipeline through them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.exporter = Exporter(_exporter_settings(settings))
        self._tiers = _tiers(settings, self.exporter)
        self._engine = GuardedEngine(settings.profile.lightrag, self.exporter)
        self._perplexity = _perplexity(settings, self.exporter)
        self._tasks: list[asyncio.Task[None]] = []
        self.pipeline = Pipeline(
            exporter=self.exporter,
            limits=settings.profile.query,
            tiers=self._tiers,
            engine=self._engine,
            perplexity=self._perplexity,
            version=index_name(_engine_settings(settings), load_corpus()),
        )

    async def open(self) -> None:
        """Start serving metrics, loading the engine and looking after the caches.

        Queries can be answered from now on; while the engine is loading, by the fallbacks.
        """
        self.exporter.start()
        self._tasks = [asyncio.create_task(self._load_engine()), asyncio.create_task(self._keep_house())]

    async def close(self) -> None:
        """Stop everything; a part that cannot be closed cleanly is logged and left."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        closing = [tier.close() for tier in self._tiers]
        if self._perplexity is not None:
            closing.append(self._perplexity.close())
        if self._engine.engine is not None:
            closing.append(self._engine.engine.close())
        for result in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(result, Exception):
                _log.warning("closing a part of the service failed: %s", describe(result))
        await asyncio.to_thread(self.exporter.close)

    def readiness(self) -> Readiness:
        """What works at this moment, as far as the last use of each part has shown."""
        parts = {"engine": "loading" if self._engine.engine is None else "loaded"}
        parts |= dict.fromkeys(("cache_l1", _DISK, _REDIS), "absent")
        parts |= {f"cache_{tier.name}": "ok" if tier.problem is None else "error" for tier in self._tiers}
        parts["breaker"] = self._engine.breaker_state
        return Readiness(self._engine.engine is not None, parts)

    async def _load_engine(self) -> None:
        """Load or build the index, again and again until the upstream and the disk let it be."""
        while self._engine.engine is None:
            try:
                self._engine.engine = await Engine.open(_engine_settings(self._settings), self.exporter)
            except (EngineError, OSError) as error:
                _log.warning("the engine could not be loaded, trying again: %s", error)
                await asyncio.sleep(_ENGINE_RETRY_SECONDS)
            except Exception as error:  # noqa: BLE001 - whatever is wrong may be mended while the service runs
                _log.error("the engine could not be loaded, trying again: %s", describe(error))
                await asyncio.sleep(_ENGINE_RETRY_SECONDS)
        _log.info("the engine is loaded")

    async def _keep_house(self) -> None:
        """Report what the caches hold; this also notices tiers that are back while nobody asks."""
        while True:
            for tier in self._tiers:
                with suppress(CacheError):
                    self.exporter.cache_entries(tier.name, await tier.entries())
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)


def _tiers(settings: Settings, exporter: Exporter) -> list[RestingTier]:
    cache = settings.profile.cache
    tiers: list[MemoryTier | DiskTier | RedisTier] = [
        MemoryTier(cache.l1.entries, cache.l1.ttl_seconds, lambda n: exporter.cache_eviction("l1", n))
    ]
    if settings.cache_directory is not None:
        tiers.append(
            DiskTier(
                settings.cache_directory,
                entries=cache.l2.entries,
                ttl_seconds=cache.l2.ttl_seconds,
                timeout_seconds=cache.l2.timeout_seconds,
                on_eviction=lambda n: exporter.cache_eviction("l2", n),
            )
        )
    if settings.redis_url is not None:
        tiers.append(
            RedisTier(
                settings.redis_url,
                ttl_seconds=cache.l3.ttl_seconds,
                timeout_seconds=cache.l3.timeout_seconds,
                connections=cache.l3.connections,
            )
        )
    return [RestingTier(tier, rest_seconds=cache.rest_seconds) for tier in tiers]


def _perplexity(settings: Settings, exporter: Exporter) -> Perplexity | None:
    profile = settings.profile
    if not profile.perplexity.enabled:
        return None
    client = ModelClient(
        base_url=settings.fallback_url,
        api_key=settings.perplexity_key,
        model=profile.models.perplexity.name,
        timeout_seconds=profile.perplexity.timeout_seconds,
        max_connections=profile.perplexity.connections,
    )
    return Perplexity(
        client,
        profile.models.perplexity,
        timeout_seconds=profile.perplexity.timeout_seconds,
        exporter=exporter,
    )


def _engine_settings(settings: Settings) -> EngineSettings:
    profile = settings.profile
    return EngineSettings(
        working_directory=settings.index_directory,
        model_base_url=settings.upstream_url,
        index_base_url=settings.index_url,
        api_key=settings.upstream_key,
        provider=profile.models.answer.provider,
        model=profile.models.answer.name,
        embedding_model=profile.models.embedding.name,
        embedding_dimension=profile.models.embedding.dimension,
        similarity_threshold=profile.models.embedding.similarity_threshold,
        model_timeout_seconds=profile.lightrag.model_timeout_seconds,
        model_calls_at_once=profile.lightrag.model_calls_at_once,
    )


def _exporter_settings(settings: Settings) -> ExporterSettings:
    models = settings.profile.models
    # LightRAG's tokens are those of both models that it calls.
    used = (
        (guarded_engine.COMPONENT, models.answer),
        (guarded_engine.COMPONENT, models.embedding),
        (perplexity.COMPONENT, models.perplexity),
    )
    return ExporterSettings(
        scenarios=settings.scenarios,
        honour_scenario_header=bool(settings.scenarios),
        components=(
            "cache_l1",
            _DISK,
            _REDIS,
            guarded_engine.COMPONENT,
            perplexity.COMPONENT,
            "llm",
            "embedding",
        ),
        models=tuple((component, model.provider, model.name) for component, model in used),
        prices={
            model.name: Price(model.usd_per_million_tokens.input, model.usd_per_million_tokens.output)
            for _, model in used
        },
        host=settings.host,
        port=settings.metrics_port,
        shared_directory=settings.metrics_directory,
        version=VERSION,
        revision=settings.revision,
        query_log=True,
    )
