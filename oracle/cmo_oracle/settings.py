"""Where the service runs: addresses, folders and keys. How it behaves is in its profile."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from cmo_oracle.profile import Profile

UPSTREAM_KEY: Final = "CMO_MODEL_API_KEY"
PERPLEXITY_KEY: Final = "CMO_PERPLEXITY_API_KEY"
_FILE_SUFFIX: Final = "_FILE"
_NO_KEY: Final = "none"
_STUB: Final = "stub"
_HTTP_SCHEMES: Final = ("http", "https")
_REDIS_SCHEMES: Final = ("redis", "rediss", "unix")


class SettingsError(Exception):
    """A setting cannot be used; the message says which, and how to mend it."""


@dataclass(frozen=True)
class Settings:
    """Everything that an instance of the service needs to know.

    Attributes:
        profile: how it behaves.
        upstream_url: base URL of the OpenAI-compatible API for answers and embeddings, up to ``/v1``.
        perplexity_url: base URL of Perplexity's; None: the stub's, or the upstream's if that is no stub.
        index_directory: where the knowledge-graph index is kept between runs.
        cache_directory: where L2 is; None: there is no L2.
        redis_url: where L3 is; None: there is no L3.
        host: address of the service and of its metrics.
        port: port of the service.
        metrics_port: port of ``/metrics``; 0: a free one.
        metrics_directory: where workers of one instance find each other's metrics; None: it is one process.
        scenarios: load-test scenarios that a request may name in its header; none: the header is ignored.
        timing_log: file of the independent timer; None: there is no timer.
        upstream_key: API key of the upstream.
        perplexity_key: API key of Perplexity.
        revision: source revision, for ``cmo_build_info``.
    """

    profile: Profile
    upstream_url: str
    index_directory: Path
    perplexity_url: str | None = None
    cache_directory: Path | None = None
    redis_url: str | None = field(default=None, repr=False)
    host: str = "127.0.0.1"
    port: int = 8000
    metrics_port: int = 9464
    metrics_directory: Path | None = None
    scenarios: tuple[str, ...] = ()
    timing_log: Path | None = None
    upstream_key: str = field(default=_NO_KEY, repr=False)
    perplexity_key: str = field(default=_NO_KEY, repr=False)
    revision: str = "unknown"

    def __post_init__(self) -> None:
        """Refuse addresses that cannot work.

        Raises:
            SettingsError: the message names the setting, and never the address: it may hold a password.
        """
        _check_url("--upstream-url", self.upstream_url, _HTTP_SCHEMES, "http://127.0.0.1:8090/v1")
        if self.perplexity_url is not None:
            _check_url("--perplexity-url", self.perplexity_url, _HTTP_SCHEMES, "https://127.0.0.1:8443/v1")
        if self.redis_url is not None:
            _check_url("--redis-url", self.redis_url, _REDIS_SCHEMES, "redis://127.0.0.1:6379/0")

    @property
    def fallback_url(self) -> str:
        """Where Perplexity is; the upstream stub has a place of its own for it."""
        if self.perplexity_url is not None:
            return self.perplexity_url
        return self._stub_route("perplexity") if self._is_stub("perplexity") else self.upstream_url

    @property
    def index_url(self) -> str:
        """Where the index is built; the upstream stub has a place for it that answers at once."""
        return self._stub_route("ingest") if self._is_stub("answer") else self.upstream_url

    def _is_stub(self, model: str) -> bool:
        return bool(getattr(self.profile.models, model).provider == _STUB)

    def _stub_route(self, name: str) -> str:
        return f"{self.upstream_url.rstrip('/').removesuffix('/v1')}/{name}/v1"


def secret(variable: str) -> str:
    """A key, from the environment variable or from the file that ``<variable>_FILE`` names.

    Raises:
        SettingsError: the file cannot be read or is empty. The message never holds a key.
    """
    value = os.environ.get(variable, "").strip()
    path = os.environ.get(variable + _FILE_SUFFIX)
    if value or not path:
        return value or _NO_KEY
    try:
        value = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"{variable}{_FILE_SUFFIX}: {path} cannot be read.") from None
    if not value:
        raise SettingsError(f"{variable}{_FILE_SUFFIX}: {path} is empty; it must hold the key.")
    return value


def _check_url(setting: str, url: str, schemes: tuple[str, ...], example: str) -> None:
    try:
        parts = urlsplit(url)
        place = parts.path if parts.scheme == "unix" else parts.hostname
        usable = parts.scheme in schemes and bool(place) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise SettingsError(f"{setting} is no address that can be used. Expected one such as {example}.")
