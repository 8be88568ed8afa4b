"""The exposition of a service whose every part works: components, caches, a breaker, models, processes.

Two releases of it can be tested one after the other. As in the catalogue that this one extends, each scrape
under load is one step, and nothing moves by the clock.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from cmo_exporter import catalogue
from prometheus_client.core import GaugeMetricFamily

from .conftest import FAILING, MEGABYTE, OF_HTTP, RSS_LOADED, SCENARIOS, Exposed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prometheus_client.metrics_core import Metric as Family

    from .conftest import Labels


@dataclass(frozen=True)
class Release:
    """What one release does with the queries of a step, which are as many in each."""

    version: str
    successes: int
    slow_successes: int
    users: int
    growth_bytes: float


BEFORE: Final = Release("1.0.0", 90, slow_successes=18, users=40, growth_bytes=60 * MEGABYTE)
AFTER: Final = Release("1.1.0", 97, slow_successes=2, users=50, growth_bytes=45 * MEGABYTE)
REVISION: Final = "3f2a9c1"

FINISHED: Final = 100
"""Queries of each scenario that finish in a step."""
FAILING_SUCCESSES: Final = 80
"""Of them, real answers in one scenario, whatever the release."""
MEAN_SECONDS: Final = 2.0
"""Mean time of a query."""
SLOWEST_SECONDS: Final = 2.5
"""Bucket edge that holds every success."""
COMPONENTS: Final = ("cache_l1", "cache_l2", "cache_l3", "lightrag", "perplexity", "llm", "embedding")
CALLS: Final = {
    "cache_l1": {"success": 100},
    "cache_l2": {"success": 20},
    "cache_l3": {"success": 10, "error": 10},
    "lightrag": {"success": 12, "timeout": 4, "rejected": 4, "cancelled": 5},
    "perplexity": {"success": 8},
    "llm": {"success": 40},
    "embedding": {"success": 20},
}
"""Calls of each scenario in a step."""
CALL_SECONDS: Final = {"lightrag": 4.0, "perplexity": 5.0, "llm": 1.0, "embedding": 0.25}
"""Duration of each call; a look-up in a cache takes no time at all."""
WAIT_SECONDS: Final = {"llm": 0.5}
"""What each call waits for its turn."""
LOOK_UPS: Final = {
    "l1": {"hit": 80, "miss": 20},
    "l2": {"hit": 5, "miss": 15},
    "l3": {"hit": 1, "miss": 4, "error": 10},
}
ANSWERS: Final = {"cache": 80, "lightrag": 12, "perplexity": 5, "default": 3}
FALLBACKS: Final = {
    ("lightrag", "perplexity", "api_timeout"): 6,
    ("lightrag", "perplexity", "circuit_breaker_open"): 2,
    ("perplexity", "default", "rate_limit"): 3,
}
COST_USD: Final = 2.5
"""Cost of a step; all scenarios share it."""
TOKENS: Final = {"input": 900, "output": 100}
CPU_SECONDS: Final = {"user": 0.5, "system": 0.25}
LAG_SECONDS: Final = 0.1
"""How late the event loop is, at the most: the edge of the bucket that holds all of it."""
HTTP_SECONDS: Final = 2.0
FIRST_BYTE_SECONDS: Final = 0.5
"""Edges of the buckets that hold all requests."""
OPEN_FILES: Final = 256
MAX_FILES: Final = 1_024
RESTARTS: Final = 1
STARTED: Final = 1_770_000_000
"""When the worker did, in Unix seconds."""
_FAILURES: Final = ("error", "timeout", "rejected")


class Pipeline(Exposed):
    """The whole catalogue. ``release`` is the one that runs, ``breaker`` the state of LightRAG's."""

    closed_by_settings: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **Exposed.closed_by_settings,
        "component": COMPONENTS,
    }

    def __init__(self) -> None:
        self.release = BEFORE
        self.breaker = ""
        self._steps_of: Counter[Release] = Counter()
        super().__init__()

    def _step(self) -> None:
        super()._step()
        self._steps_of[self.release] += 1

    def _family(self, metric: catalogue.Metric) -> Family:
        if metric is not catalogue.BUILD_INFO:
            return super()._family(metric)
        family = GaugeMetricFamily(metric.name, metric.help, labels=list(metric.labels))
        family.add_metric([self.release.version, REVISION], 1)
        return family

    def _value(self, metric: catalogue.Metric, labels: Labels) -> float:
        of_queries: dict[str, Callable[[Labels], float]] = {
            catalogue.QUERIES.name: self._outcomes,
            catalogue.ANSWERS.name: lambda labels: ANSWERS.get(labels["source"], 0) * self.steps,
            catalogue.QUERIES_STARTED.name: lambda _labels: FINISHED * self.steps,
            catalogue.ACTIVE_USERS.name: lambda _labels: self.release.users if self.busy else 0,
            catalogue.ACTIVE_USER_SECONDS.name: lambda _labels: sum(
                release.users * steps for release, steps in self._steps_of.items()
            ),
        }
        if metric.name in of_queries:
            return of_queries[metric.name](labels)
        found = self._of_components(metric, labels)
        if found is None:
            found = self._of_processes(metric, labels)
        return super()._value(metric, labels) if found is None else found

    def _outcomes(self, labels: Labels) -> float:
        good = self._successes(labels["scenario"])
        return {"success": good, "error": FINISHED * self.steps - good}.get(labels["outcome"], 0)

    def _successes(self, scenario: str) -> float:
        if scenario == FAILING:
            return FAILING_SUCCESSES * self.steps
        return sum(release.successes * steps for release, steps in self._steps_of.items())

    def _of_components(self, metric: catalogue.Metric, labels: Labels) -> float | None:
        """Counters in steps; ``None`` for what is no business of components."""
        is_lightrag = labels.get("component") == "lightrag"
        if metric is catalogue.BREAKER_STATE:
            return float(is_lightrag and labels["state"] == self.breaker)
        each: dict[str, Callable[[], float]] = {
            catalogue.COMPONENT_CALLS.name: lambda: CALLS[labels["component"]].get(labels["outcome"], 0),
            catalogue.CACHE_REQUESTS.name: lambda: LOOK_UPS.get(labels["tier"], {}).get(labels["result"], 0),
            catalogue.FALLBACKS.name: lambda: FALLBACKS.get(
                (labels["source"], labels["target"], labels["reason"]), 0
            ),
            catalogue.BREAKER_TRANSITIONS.name: lambda: int(is_lightrag and labels["state"] == "open"),
            catalogue.BREAKER_REJECTIONS.name: lambda: 4 * int(is_lightrag and labels["state"] == "open"),
            catalogue.LLM_COST.name: lambda: COST_USD * is_lightrag,
            catalogue.LLM_TOKENS.name: lambda: TOKENS[labels["token_type"]] * is_lightrag,
        }
        return each[metric.name]() * self.steps if metric.name in each else None

    def _of_processes(self, metric: catalogue.Metric, labels: Labels) -> float | None:
        if metric is catalogue.CPU_SECONDS:
            return CPU_SECONDS[labels["mode"]] * self.steps
        if metric is catalogue.WORKER_RESTARTS:
            return RESTARTS if self.steps else 0
        if metric is catalogue.MEMORY_PEAK:
            # Kept from run to run: what was tested last decides, and not what is there now.
            tested = [release for release in (BEFORE, AFTER) if self._steps_of[release]]
            return RSS_LOADED + (tested[-1].growth_bytes if tested else 0.0)
        constant = {
            catalogue.OPEN_FILES.name: OPEN_FILES,
            catalogue.MAX_FILES.name: MAX_FILES,
            catalogue.MEMORY_HIGH_WATER.name: RSS_LOADED,
            catalogue.WORKER_START_TIME.name: STARTED,
        }
        return constant.get(metric.name)

    def _buckets(self, metric: catalogue.Metric, labels: Labels) -> list[tuple[str, float]]:
        counted = self._counted(metric, labels)
        edges = [
            (str(edge), sum(count for seconds, count in counted if seconds <= edge))
            for edge in metric.buckets
        ]
        return [*edges, ("+Inf", sum(count for _, count in counted))]

    def _seconds(self, metric: catalogue.Metric, labels: Labels) -> float:
        if metric is catalogue.QUERY_DURATION:
            return MEAN_SECONDS * sum(count for _, count in self._counted(metric, labels))
        return sum(seconds * count for seconds, count in self._counted(metric, labels))

    def _counted(self, metric: catalogue.Metric, labels: Labels) -> list[tuple[float, float]]:
        """What a histogram has counted: durations, and how many of each."""
        component = labels.get("component", "")
        if metric is catalogue.QUERY_DURATION:
            return self._query_durations(labels)
        if metric is catalogue.COMPONENT_DURATION:
            calls = CALLS[component]
            outcomes = {"failure": _FAILURES}.get(labels["outcome"], (labels["outcome"],))
            count = sum(calls.get(outcome, 0) for outcome in outcomes) * self.steps
            return [(CALL_SECONDS.get(component, 0.0), count)]
        if metric is catalogue.QUEUE_WAIT and component in WAIT_SECONDS:
            count = sum(CALLS[component].values()) * len(SCENARIOS) * self.steps
            return [(WAIT_SECONDS[component], count)]
        if metric is catalogue.EVENT_LOOP_LAG:
            return [(LAG_SECONDS, self.steps)]
        if metric in OF_HTTP:
            seconds = HTTP_SECONDS if metric is catalogue.HTTP_SERVER_REQUEST_DURATION else FIRST_BYTE_SECONDS
            return [(seconds, FINISHED * self.steps)]
        return []

    def _query_durations(self, labels: Labels) -> list[tuple[float, float]]:
        good = self._successes(labels["scenario"])
        slow = sum(release.slow_successes * steps for release, steps in self._steps_of.items())
        if labels["outcome"] == "success":
            return [(2.0, good - slow), (SLOWEST_SECONDS, slow)]
        return [(2.0, FINISHED * self.steps - good)] if labels["outcome"] == "failure" else []
