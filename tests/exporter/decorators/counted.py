"""What an exporter has counted, held against its other books."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmo_exporter import catalogue

if TYPE_CHECKING:
    from cmo_exporter import Exporter

Scrape = dict[tuple[str, frozenset[tuple[str, str]]], float]


def count(exporter: Exporter, name: str, **labels: str) -> float:
    value = exporter.registry.get_sample_value(name, labels)
    assert value is not None, f"there is no series {name}{labels}"
    return value


def scrape(exporter: Exporter) -> Scrape:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in exporter.registry.collect()
        for sample in family.samples
    }


def total(scraped: Scrape, name: str, **labels: str) -> float:
    return sum(
        value for (found, has), value in scraped.items() if found == name and labels.items() <= set(has)
    )


def outcomes(exporter: Exporter, scenario: str = "live") -> dict[str, float]:
    """Finished queries by outcome, the zeros left out; checked against the other books."""
    scraped = scrape(exporter)
    found = {
        outcome: total(scraped, "cmo_queries_total", scenario=scenario, outcome=outcome)
        for outcome in catalogue.QUERY_OUTCOMES
    }
    finished = sum(found.values())
    in_progress = total(scraped, "cmo_queries_in_progress", scenario=scenario)
    assert total(scraped, "cmo_queries_started_total", scenario=scenario) == finished + in_progress
    assert total(scraped, "cmo_query_duration_seconds_count", scenario=scenario) == finished
    assert total(scraped, "cmo_query_cache_results_total", scenario=scenario) == finished
    return {outcome: number for outcome, number in found.items() if number}


def calls(exporter: Exporter, component: str = "lightrag") -> dict[str, float]:
    """Finished component calls by outcome, the zeros left out."""
    scraped = scrape(exporter)
    found = {
        outcome: total(scraped, "cmo_component_calls_total", component=component, outcome=outcome)
        for outcome in catalogue.QUERY_OUTCOMES
    }
    timed = total(scraped, "cmo_component_duration_seconds_count", component=component)
    assert timed == sum(found.values())
    return {outcome: number for outcome, number in found.items() if number}


def component_calls_in_progress(exporter: Exporter, component: str = "lightrag") -> float:
    return count(exporter, "cmo_component_in_progress", component=component)


def abandoned(exporter: Exporter) -> float:
    return count(exporter, "cmo_streams_abandoned_total", scenario="live")


def first_tokens(exporter: Exporter) -> float:
    return count(exporter, "cmo_query_time_to_first_token_seconds_count", scenario="live")
