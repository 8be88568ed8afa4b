"""What a service may hand in when it is at its worst, and the books that have to balance all the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cmo_exporter import ExporterSettings, Price, catalogue
from hypothesis import strategies as st

if TYPE_CHECKING:
    from cmo_exporter import Exporter

SETTINGS = ExporterSettings(
    scenarios=("clinical_rush",),
    components=("llm",),
    models=(("llm", "stub", "cmo-stub"),),
    prices={"cmo-stub": Price(1, 1)},
    # A session is closed as soon as it is idle: one that is still open at the end was left behind.
    session_idle_timeout_seconds=1e-9,
    maximum_sessions=4,
)


class Spiteful(str):
    """A string that raises whatever it is asked."""

    __slots__ = ()

    def __hash__(self) -> int:
        raise RuntimeError("no hash")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __ne__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __len__(self) -> int:
        raise RuntimeError("no length")


class Unspeakable:
    """An object that raises whatever it is asked."""

    def __hash__(self) -> int:
        raise RuntimeError("no hash")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __float__(self) -> float:
        raise RuntimeError("no number")


# Hypothesis itself hashes and compares what it draws, so it draws a name for what cannot be.
HOSTILE: dict[str, object] = {
    "a spiteful string": Spiteful("live"),
    "an unspeakable object": Unspeakable(),
    "a list": [],
    "half a surrogate": "\ud800",
    "a long string": "x" * 10_000,
}
WORDS = st.one_of(
    st.sampled_from(
        (
            *catalogue.QUERY_OUTCOMES,
            *catalogue.SOURCES,
            *catalogue.CACHE_TIERS,
            *catalogue.CACHE_RESULTS,
            *catalogue.BREAKER_STATES,
            *catalogue.FEEDBACK_RATINGS,
        )
    ),
    st.sampled_from(("live", "clinical_rush", "llm", "_other", "", "stub", "cmo-stub")),
    st.sampled_from(tuple(HOSTILE)),
    st.text(max_size=10),
    st.none(),
    st.integers(),
    st.binary(max_size=3),
).map(lambda word: HOSTILE.get(word, word) if isinstance(word, str) else word)
AMOUNTS = st.one_of(
    st.floats(),
    st.integers(),
    st.sampled_from((None, "many", "an unspeakable object")),
).map(lambda amount: HOSTILE.get(amount, amount) if isinstance(amount, str) else amount)
SCENARIOS = st.one_of(st.just("live"), st.just("clinical_rush"), WORDS)


class Books:
    """What a scrape has read."""

    def __init__(self, exporter: Exporter) -> None:
        self._samples = [sample for family in exporter.registry.collect() for sample in family.samples]

    def total(self, name: str, **labels: str) -> float:
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def labels(self, name: str) -> list[dict[str, str]]:
        return [dict(sample.labels) for sample in self._samples if sample.name == name]

    def check_values(self) -> None:
        """Nothing is negative or spoiled, and every label value is in its list."""
        allowed = allowed_values()
        for sample in self._samples:
            assert sample.value >= 0, sample
            assert math.isfinite(sample.value), sample
            for label, value in sample.labels.items():
                assert value in allowed.get(label, (value,)), sample


def allowed_values() -> dict[str, set[str]]:
    """Every value that may appear, by label; the labels of HTTP, of process and of build are left out."""
    lists: dict[str, set[str]] = {
        "scenario": set(SETTINGS.all_scenarios),
        "component": set(SETTINGS.components),
        "provider": {"stub"},
        "model": {"cmo-stub"},
        "metric": set(catalogue.BY_NAME),
    }
    for metric in catalogue.CATALOGUE:
        for label, values in metric.labels.items():
            lists.setdefault(label, set()).update(values or ())
    return {label: values | {catalogue.OTHER} for label, values in lists.items() if values}
