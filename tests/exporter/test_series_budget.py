"""However many values a service passes, a metric has no more than so many series, and the rest is counted.

Whoever can choose a label's value can otherwise fill the memory of Prometheus: a session id in the place of a
component, a model's name with a date in it. Each metric is driven twice: through the calls that a service
makes, and as a family, which also shows those whose values are the exporter's own.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from cmo_exporter import Exporter, ExporterSettings, Price, catalogue
from cmo_exporter.instruments import _MOST_UNUSUAL_SERIES, Family

from .series import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Labels = tuple[str, ...]

MANY = 2_000
MODELS = tuple(
    (component, provider, f"model_{number}")
    for component in ("lightrag", "llm")
    for provider in ("openai", "stub")
    for number in range(20)
)
SETTINGS = ExporterSettings(
    scenarios=tuple(f"scenario_{number}" for number in range(9)),
    components=("lightrag", "llm", *(f"component_{number}" for number in range(4))),
    models=MODELS,
    prices={model: Price(1, 1) for _, _, model in MODELS},
    maximum_http_series=30,
)


def query(exporter: Exporter, scenario: str, does: Callable[[Any], object] = lambda _: None) -> None:
    with exporter.query(scenario) as asked:
        does(asked)


def session(exporter: Exporter, scenario: str) -> None:
    with exporter.session("u1", scenario):
        pass


def call(exporter: Exporter, scenario: str, component: str, outcome: str = "cancelled") -> None:
    with exporter.query(scenario) as asked, asked.component(component) as made:
        made.outcome(outcome)


def abandon(exporter: Exporter, scenario: str) -> None:
    with exporter.query(scenario) as asked:
        asked.first_token()
        asked.cancelled()


def tokens(exporter: Exporter, component: str, provider: str, model: str) -> None:
    exporter.tokens(component, provider, model, input_tokens=1, output_tokens=1)


def conclude(exporter: Exporter, scenario: str, outcome: str) -> None:
    query(exporter, scenario, lambda asked: asked.concluded(outcome))


def fail(exporter: Exporter, metric: str) -> None:
    kind = catalogue.Kind.COUNTER if metric.endswith("_total") else catalogue.Kind.GAUGE
    exporter.errors.report(catalogue.Metric(metric, kind, "Perhaps none of ours."), ValueError())


def fall_back(exporter: Exporter, scenario: str, source: str, target: str, reason: str) -> None:
    query(exporter, scenario, lambda asked: asked.fallback(source=source, target=target, reason=reason))


# By the name of a metric: what records it with given values of its labels.
RECORDING: dict[str, Callable[..., None]] = {
    "cmo_queries_started_total": query,
    "cmo_queries_total": conclude,
    "cmo_query_duration_seconds": conclude,
    "cmo_query_time_to_first_token_seconds": abandon,
    "cmo_streams_abandoned_total": abandon,
    "cmo_feedback_total": lambda exporter, scenario, rating: exporter.feedback(rating, scenario),
    "cmo_answers_total": lambda exporter, scenario, source: query(
        exporter, scenario, lambda asked: asked.answered(source)
    ),
    "cmo_queries_in_progress": query,
    "cmo_oldest_query_age_seconds": query,
    "cmo_active_users": session,
    "cmo_active_user_seconds_total": session,
    "cmo_component_calls_total": call,
    "cmo_component_duration_seconds": call,
    "cmo_component_in_progress": lambda exporter, component: call(exporter, "live", component),
    "cmo_queue_wait_seconds": lambda exporter, component: exporter.queue_wait(component, 1),
    "cmo_queue_depth": lambda exporter, component: exporter.queue_depth(component, 1),
    "cmo_cache_requests_total": lambda exporter, scenario, tier, result: query(
        exporter, scenario, lambda asked: asked.cache_request(tier, result)
    ),
    "cmo_query_cache_results_total": lambda exporter, scenario, result: query(
        exporter, scenario, lambda asked: asked.cache_result(result)
    ),
    "cmo_cache_entries": lambda exporter, tier: exporter.cache_entries(tier, 1),
    "cmo_cache_evictions_total": lambda exporter, tier: exporter.cache_eviction(tier),
    "cmo_cache_expirations_total": lambda exporter, tier: exporter.cache_expiration(tier),
    "cmo_circuit_breaker_state": Exporter.breaker_state,
    "cmo_circuit_breaker_transitions_total": Exporter.breaker_state,
    "cmo_circuit_breaker_rejections_total": Exporter.breaker_rejection,
    "cmo_fallbacks_total": fall_back,
    "cmo_retries_total": Exporter.retry,
    "cmo_llm_tokens_total": tokens,
    "cmo_llm_cost_usd_total": tokens,
    "cmo_llm_time_to_first_token_seconds": lambda exporter, *model: exporter.llm_first_token(*model, 1),
    "cmo_instrumentation_errors_total": fail,
    "cmo_series_dropped_total": lambda exporter, metric: exporter.recorder.instruments.dropped(metric),
}
# No service and no user can choose what is in these, or they are in other tests (HTTP).
OUR_OWN = {
    *(metric.name for metric in catalogue.CATALOGUE if "worker" in metric.labels),
    "cmo_build_info",
    "cmo_gc_pause_seconds",
    "cmo_metrics_requests_total",
    "cmo_network_bytes_total",
    "cmo_query_log_lines_total",
    "http_server_active_requests",
    "http_server_request_duration_seconds",
    "http_server_time_to_first_byte_seconds",
}


def test_every_metric_with_labels_is_driven() -> None:
    labelled = {metric.name for metric in catalogue.CATALOGUE if metric.labels}
    assert RECORDING.keys() | OUR_OWN == labelled - catalogue.PROBE_METRICS
    assert not RECORDING.keys() & OUR_OWN


def listed(exporter: Exporter, metric: catalogue.Metric) -> list[tuple[str, ...]]:
    """The closed list of each label."""
    families = vars(exporter.recorder.instruments).values()
    for family in families:
        if isinstance(family, Family) and family.metric is metric:
            return [tuple(sorted(allowed or ())) for allowed in family._allowed]
    # Users are counted by what follows their sessions, and have no family.
    return [SETTINGS.all_scenarios for _ in metric.labels]


def label_sets(lists: list[tuple[str, ...]]) -> Iterator[Labels]:
    """Those of the lists in any combination, then very many of which one label, or all, are in no list."""
    yield from itertools.islice(itertools.product(*lists), MANY)
    for place in range(len(lists)):
        usual = itertools.cycle(itertools.product(*(values or ("usual",) for values in lists)))
        for number, values in zip(range(MANY), usual, strict=False):
            yield (*values[:place], f"unusual_{number}", *values[place + 1 :])
    for number in range(MANY):
        yield tuple(f"unusual_{number}_{place}" for place in range(len(lists)))


def series(exporter: Exporter, metric: catalogue.Metric) -> set[Labels]:
    """The label values of a metric's series, whatever histograms are made of left out."""
    return {
        tuple(sample.labels[label] for label in metric.labels)
        for family in exporter.registry.collect()
        for sample in family.samples
        if sample.name in metric.series_names
    }


def dropped(exporter: Exporter) -> Counter[str]:
    return Counter(
        {
            sample.labels["metric"]: int(sample.value)
            for family in exporter.registry.collect()
            for sample in family.samples
            if sample.name == "cmo_series_dropped_total" and sample.value
        }
    )


@pytest.mark.parametrize("name", RECORDING)
def test_a_service_cannot_make_more_series_than_the_budget_allows(name: str) -> None:
    exporter, metric = Exporter(SETTINGS), catalogue.BY_NAME[name]
    before = series(exporter, metric)
    lists = listed(exporter, metric)[
        : 3 if name == "cmo_llm_tokens_total" else None
    ]  # which sort is no choice
    asked = Counter(label_sets(lists))
    for labels in asked.elements():
        RECORDING[name](exporter, *labels)
    after = series(exporter, metric)
    assert before <= after
    assert len(after - before) <= _MOST_UNUSUAL_SERIES + 1
    assert not [labels for labels in after if any(value.startswith("unusual") for value in labels)]
    shown = {labels[: len(lists)] for labels in after}
    not_shown = sum(number for labels, number in asked.items() if labels not in shown)
    assert not_shown >= MANY
    assert dropped(exporter).total() >= not_shown
    assert errors(exporter) == (asked.total() if name == "cmo_instrumentation_errors_total" else 0)


def families() -> list[str]:
    instruments = Exporter(SETTINGS).recorder.instruments
    return [
        name
        for name, family in vars(instruments).items()
        if isinstance(family, Family) and family.metric.labels and name != "series_dropped"
    ]


@pytest.mark.parametrize("name", families())
def test_a_family_keeps_its_budget_and_counts_what_it_drops(name: str) -> None:
    exporter = Exporter(SETTINGS)
    family: Family[Any] = getattr(exporter.recorder.instruments, name)
    metric = family.metric
    before = series(exporter, metric)
    budget = SETTINGS.maximum_http_series if name.startswith(("http_d", "http_f")) else _MOST_UNUSUAL_SERIES
    not_shown = 0
    for labels in label_sets(listed(exporter, metric)):
        family.child(*labels)
        not_shown += not family.has(*labels)
    assert len(series(exporter, metric) - before) <= budget + 1
    assert not_shown >= MANY
    assert dropped(exporter)[metric.name] >= not_shown


def test_names_that_are_in_no_list_are_not_kept() -> None:
    """A series is not all that a name can cost: the books by which series are found would grow as well."""
    exporter = Exporter(SETTINGS)
    ledger = exporter.recorder.ledger
    call(exporter, "unusual", "unusual")
    before = len(ledger._scenarios), len(ledger._components)
    for number in range(MANY):
        call(exporter, f"unusual_{number}", f"unusual_{number}")
    assert (len(ledger._scenarios), len(ledger._components)) == before
