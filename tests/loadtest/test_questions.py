"""What users ask: how varied it is decides what a cache can do."""

from __future__ import annotations

from collections import Counter

import pytest
from cmo_loadtest.offer import cold_hits, describe_offer
from cmo_loadtest.plan import PlannedOperation, PlannedScenario, PlannedUser, plan_scenarios
from cmo_loadtest.questions import asked, pool, share
from cmo_loadtest.scenarios import SCENARIOS, SHARED_QUESTIONS, Scenario


def test_the_pool_has_310_different_questions() -> None:
    questions = pool()
    assert len(questions) == len(set(questions)) == 310
    assert all("{" not in question for question in questions)


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_a_scenario_asks_each_of_its_questions(scenario: Scenario) -> None:
    questions = asked(scenario, 5)
    assert len(questions) == scenario.operations
    assert set(questions) == set(share(scenario, 5))
    assert len(set(questions)) == scenario.distinct_questions


@pytest.mark.parametrize("seed", [0, 1, 99])
def test_scenarios_share_some_questions_and_keep_the_rest_apart(seed: int) -> None:
    shares = [set(share(scenario, seed)) for scenario in SCENARIOS.values()]
    assert len(set.intersection(*shares)) == SHARED_QUESTIONS
    assert len(set.union(*shares)) == SHARED_QUESTIONS + sum(s.own_questions for s in SCENARIOS.values())


def test_fifteen_to_twenty_per_cent_of_a_run_are_distinct_questions() -> None:
    distinct = {question for scenario in SCENARIOS.values() for question in asked(scenario, 1)}
    operations = sum(scenario.operations for scenario in SCENARIOS.values())
    assert 0.15 <= len(distinct) / operations <= 0.20


def test_cache_effectiveness_repeats_most_and_rag_intensive_least() -> None:
    varied = {name: s.distinct_questions / s.operations for name, s in SCENARIOS.items()}
    assert min(varied, key=lambda name: varied[name]) == "cache_effectiveness"
    assert max(varied, key=lambda name: varied[name]) == "rag_intensive"


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_popular_questions_come_up_more_often(scenario: Scenario) -> None:
    counts = Counter(asked(scenario, 3))
    ranked = share(scenario, 3)
    quarter = len(ranked) // 4
    popular, rare = sum(counts[q] for q in ranked[:quarter]), sum(counts[q] for q in ranked[-quarter:])
    assert popular > 1.5 * rare


def test_a_seed_always_gives_the_same_questions_and_another_seed_others() -> None:
    scenario = SCENARIOS["rag_intensive"]
    assert asked(scenario, 1) == asked(scenario, 1)
    assert asked(scenario, 1) != asked(scenario, 2)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_cold_cache_can_hit_more_than_three_quarters(seed: int) -> None:
    planned = plan_scenarios(list(SCENARIOS.values()), seed)
    hits, operations = cold_hits(planned, answer_seconds=0.0)
    assert operations == 1820
    assert hits == 1820 - 280
    assert cold_hits(planned, answer_seconds=1.0)[0] / operations > 0.75


def test_a_question_misses_until_its_first_answer_is_there() -> None:
    first = _planned("one", [(0.0, "a"), (0.5, "a"), (1.0, "a"), (1.2, "b")])
    second = _planned("two", [(0.0, "b"), (0.1, "c"), (0.2, "c")])
    assert cold_hits([first], 1.0) == (1, 4)
    assert cold_hits([first], 0.4) == (2, 4)
    assert cold_hits([first, second], 0.4) == (3, 7)


def test_the_offer_is_described_with_its_totals() -> None:
    text = describe_offer(list(SCENARIOS.values()), 1)
    assert "1820" in text
    assert "0 s:  84.6 % (1540 of 1820)" in text


def test_a_scenario_that_is_not_known_is_refused() -> None:
    known = SCENARIOS["clinical_rush"]
    unknown = Scenario("surprise", known.users, known.pattern, known.operations, 1.0, 10, 1.0)
    with pytest.raises(ValueError, match="surprise: unknown scenario"):
        share(unknown, 1)


def _planned(name: str, asks: list[tuple[float, str]]) -> PlannedScenario:
    operations = tuple(PlannedOperation(f"{name}-{at}", at, question) for at, question in asks)
    return PlannedScenario(name, (PlannedUser(name, name, operations),))
