"""Profiles: the settings by which one release of the service differs from another, in one YAML file.

A profile holds nothing of the machine it runs on (ports, paths, addresses, keys: ``settings.py``), so that
two runs that differ only in their profile differ only in the service. Every key must be there and
every key must be known: a misspelt setting that silently falls back to a default would make a load test
measure something else than its name says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

PROFILE_NAMES: Final = ("report", "healthy")

Seconds = Annotated[float, Field(gt=0, le=3600)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$", max_length=100)]


class ProfileError(Exception):
    """A profile cannot be used; the message names file, line and field, and what was expected."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class QueryLimits(_Part):
    """``deadline_seconds`` ends a query as a time-out; above ``at_once`` queries, one more is rejected."""

    deadline_seconds: Seconds
    at_once: Count
    characters: Count


class MemoryTier(_Part):
    """L1, in the memory of the process."""

    entries: Count
    ttl_seconds: Seconds


class DiskTier(_Part):
    """L2, in a file. ``timeout_seconds`` is the longest that a query waits for it."""

    entries: Count
    ttl_seconds: Seconds
    timeout_seconds: Seconds


class RedisTier(_Part):
    """L3, in Redis. How much it holds is the server's own setting."""

    ttl_seconds: Seconds
    timeout_seconds: Seconds
    connections: Count


class Cache(_Part):
    """A tier that has failed is not asked again for ``rest_seconds``: its look-ups are errors at once."""

    l1: MemoryTier
    l2: DiskTier
    l3: RedisTier
    rest_seconds: Seconds


class Retries(_Part):
    """Exponential waits with jitter between attempts, all of them inside LightRAG's time-out."""

    times: Annotated[int, Field(ge=0, le=10)]
    first_wait_seconds: Seconds
    longest_wait_seconds: Seconds


class BreakerLimits(_Part):
    """Failures in a row that open the breaker, and how long it stays open before it lets a probe through."""

    failure_threshold: Count
    recovery_seconds: Seconds


class LightRAG(_Part):
    """The engine. ``timeout_seconds`` bounds one call with its retries, the model time-out one model call."""

    timeout_seconds: Seconds
    model_calls_at_once: Count
    model_timeout_seconds: Seconds
    retries: Retries
    breaker: BreakerLimits


class Perplexity(_Part):
    """The first fallback."""

    enabled: bool
    timeout_seconds: Seconds
    connections: Count


class TokenPrice(_Part):
    """US dollars per million tokens."""

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]


class Model(_Part):
    """A model: who serves it, its name there, and its price."""

    provider: Word
    name: Word
    usd_per_million_tokens: TokenPrice


class EmbeddingModel(Model):
    """A model that embeds: the length of its vectors, and the cosine below which nothing is retrieved."""

    dimension: Count
    similarity_threshold: Annotated[float, Field(ge=0, le=1)]


class Models(_Part):
    """The three models that the service calls."""

    answer: Model
    embedding: EmbeddingModel
    perplexity: Model


class Profile(_Part):
    """A whole profile. ``upstream_calibration`` is how the stack starts the upstream stub for it."""

    version: Literal["cmo-oracle/v1"]
    name: Word
    upstream_calibration: Literal["busy", "calm"]
    query: QueryLimits
    cache: Cache
    lightrag: LightRAG
    perplexity: Perplexity
    models: Models

    @model_validator(mode="after")
    def _deadline_is_longest(self) -> Profile:
        if self.query.deadline_seconds < self.lightrag.timeout_seconds:
            raise ValueError(
                "query.deadline_seconds must be at least lightrag.timeout_seconds, or LightRAG's time-outs "
                "would all be queries' time-outs and never reach the fallback"
            )
        return self


def profiles_directory() -> Path:
    """Where the profiles are: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "profiles"  # looked for first: beside an installed package lie other people's
    return inside if inside.is_dir() else package.parent / "profiles"


def load_profile(name_or_file: str, changes: tuple[str, ...] = ()) -> Profile:
    """Read a profile by its name, or from a file, and apply ``changes`` such as ``cache.l1.entries=10``.

    Raises:
        ProfileError: there is no such profile, or it or a change cannot be used.
    """
    path = _find(name_or_file)
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}{_yaml_line(error)}: is not YAML: {_yaml_problem(error)}.") from None
    if not isinstance(content, dict):
        raise ProfileError(
            f"{path}:1: a profile is a mapping of settings. Start from {PROFILE_NAMES[0]}.yml."
        )
    changed = [_apply(content, change) for change in changes]
    try:
        return Profile.model_validate(content)
    except ValidationError as error:
        raise ProfileError(_explain(path, root, error, changed)) from None


def _find(name_or_file: str) -> Path:
    if name_or_file in PROFILE_NAMES:
        return profiles_directory() / f"{name_or_file}.yml"
    path = Path(name_or_file)
    if not path.is_file():
        known = ", ".join(PROFILE_NAMES)
        raise ProfileError(
            f"There is no profile or file {name_or_file!r}. Give one of {known}, or a YAML file."
        )
    return path


def _apply(content: dict[str, object], change: str) -> str:
    """Set one field by its dotted name; the value is read as YAML. Returns the field's name."""
    field, equals, value = change.partition("=")
    keys = field.strip().split(".")
    where: object = content
    for key in keys[:-1]:
        where = where.get(key) if isinstance(where, dict) else None
    if not equals or not isinstance(where, dict) or keys[-1] not in where:
        raise ProfileError(f"--set {change}: expected FIELD=VALUE with a field of the profile, for example "
                           "--set cache.l1.entries=15000.")  # fmt: skip
    try:
        where[keys[-1]] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ProfileError(f"--set {change}: the value is not YAML.") from None
    return ".".join(keys)


def _explain(path: Path, root: yaml.Node | None, error: ValidationError, changed: list[str]) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_context=False):
        location = tuple(str(key) for key in problem["loc"])
        field = ".".join(location) or "the profile"
        expected = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            expected = "is not a setting; remove it or correct its name"
        elif problem["type"] == "missing":
            expected = "is missing"
        elif problem["type"] != "value_error":
            expected = f"{expected}, not {problem['input']!r}"
        where = "--set" if field in changed else f"{path}:{_line(root, location)}"
        lines.append(f"{where}: {field}: {expected}.")
    return "\n".join(lines)


def _line(node: yaml.Node | None, location: tuple[str, ...]) -> int:
    """The line, from 1, of a field; of the nearest mapping around it when the field is missing."""
    line = 1 if node is None else node.start_mark.line + 1
    for key in location:
        found = None
        if isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == key), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _yaml_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f":{mark.line + 1}" if mark is not None else ""


def _yaml_problem(error: Exception) -> str:
    return str(getattr(error, "problem", None) or error).splitlines()[0]
