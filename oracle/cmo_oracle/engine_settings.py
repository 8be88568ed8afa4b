"""What the engine is told, and how it says that it has no answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, get_args

from cmo_oracle.question import DEFAULT_MODE, Mode

if TYPE_CHECKING:
    from pathlib import Path

MODES: Final[tuple[str, ...]] = get_args(Mode)


class EngineError(Exception):
    """The engine has no answer, or no index to answer from.

    Attributes:
        reason: why, in the words of the metric catalogue's fallback reasons.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class EngineSettings:
    """All that the engine is told.

    Attributes:
        working_directory: where indexes are kept, one folder each.
        model_base_url: OpenAI-compatible, for answers and embeddings.
        api_key: the provider's key; never printed.
        model: the model that answers.
        embedding_model: the model that embeds.
        embedding_dimension: length of its vectors.
        provider: what the provider is called in the token and cost metrics.
        model_timeout_seconds: deadline of one model call.
        model_calls_at_once: places in each of LightRAG's queues: keywords, answers, embeddings. Streamed
            answers have as many places of their own.
        default_mode: retrieval mode of a question that names none.
        index_base_url: where the index is built; ``model_base_url`` if empty. The stub has a route for it
            that answers at once.
        index_calls_at_once: model calls at once while building.
        entities_per_query: entities or relations that a query retrieves.
        chunks_per_query: passages that a query retrieves.
        similarity_threshold: cosine below which nothing is retrieved. The default suits the stub's
            embeddings; a real model's vectors are closer together and want 0.2 or more.
    """

    working_directory: Path
    model_base_url: str
    api_key: str = field(repr=False)
    model: str = "cmo-stub"
    embedding_model: str = "cmo-stub-embedding"
    embedding_dimension: int = 1_024
    provider: str = "stub"
    model_timeout_seconds: float = 30.0
    model_calls_at_once: int = 4
    default_mode: str = DEFAULT_MODE
    index_base_url: str = ""
    index_calls_at_once: int = 8
    entities_per_query: int = 5
    chunks_per_query: int = 4
    similarity_threshold: float = 0.18

    def __post_init__(self) -> None:
        """Refuse settings that cannot work.

        Raises:
            ValueError: a setting is out of range; the message names it.
        """
        check_mode(self.default_mode)
        positive = ("model_timeout_seconds", "model_calls_at_once", "index_calls_at_once",
                    "embedding_dimension", "entities_per_query", "chunks_per_query")  # fmt: skip
        for name in positive:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: {getattr(self, name)}; expected more than 0")


def check_mode(mode: str) -> None:
    """Refuse a retrieval mode that does not exist.

    Raises:
        ValueError: the mode is not one of ``MODES``.
    """
    if mode not in MODES:
        raise ValueError(f"mode: '{mode}'; expected one of {', '.join(MODES)}")
