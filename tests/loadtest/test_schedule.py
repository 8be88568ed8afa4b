"""When users ask: exact numbers, held users, and a shape for each pattern."""

from __future__ import annotations

from collections import Counter

import pytest
from cmo_loadtest.scenarios import SCENARIOS, SHARED_QUESTIONS, Pattern, Scenario, quotas
from cmo_loadtest.schedule import opening_seconds, schedule
from hypothesis import given
from hypothesis import strategies as st


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    users = draw(st.integers(1, 90))
    operations = draw(st.integers(max(2 * users, SHARED_QUESTIONS), 10 * users + SHARED_QUESTIONS))
    duration = draw(st.floats(0.05, 3600.0))
    return Scenario("any", users, draw(st.sampled_from(Pattern)), operations, duration, 0, 1.0)


def test_the_scenarios_are_those_of_the_requirement() -> None:
    offered = [
        (s.name, s.users, s.pattern.value, s.operations, s.duration_seconds) for s in SCENARIOS.values()
    ]
    assert offered == [
        ("academic_research", 50, "sustained", 400, 20.0),
        ("clinical_rush", 60, "burst", 300, 9.0),
        ("cache_effectiveness", 80, "realistic", 640, 12.0),
        ("rag_intensive", 60, "sustained", 480, 18.0),
    ]


@given(operations=st.integers(0, 10_000), users=st.integers(1, 500))
def test_quotas_add_up_and_differ_by_one_at_most(operations: int, users: int) -> None:
    shares = quotas(operations, users)
    assert sum(shares) == operations
    assert len(shares) == users
    assert max(shares) - min(shares) <= 1


@given(scenario=scenarios(), seed=st.integers())
def test_every_user_asks_its_quota_in_rising_order_within_the_duration(scenario: Scenario, seed: int) -> None:
    offsets = schedule(scenario, seed)
    assert Counter(map(len, offsets)) == Counter(quotas(scenario.operations, scenario.users))
    for own in offsets:
        assert list(own) == sorted(own)
        assert own[0] >= 0.0
        assert own[-1] < scenario.duration_seconds


@given(scenario=scenarios(), seed=st.integers())
def test_all_users_are_held_for_most_of_the_duration(scenario: Scenario, seed: int) -> None:
    offsets = schedule(scenario, seed)
    last_first = max(own[0] for own in offsets)
    first_last = min(own[-1] for own in offsets)
    assert last_first < opening_seconds(scenario) <= min(1.0, 0.1 * scenario.duration_seconds)
    assert first_last - last_first >= 0.6 * scenario.duration_seconds


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_a_seed_always_gives_the_same_schedule_and_another_seed_another(scenario: Scenario) -> None:
    assert schedule(scenario, 7) == schedule(scenario, 7)
    assert schedule(scenario, 7) != schedule(scenario, 8)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sustained_asks_at_an_even_rate(seed: int) -> None:
    shares = _shares(SCENARIOS["academic_research"], seed, parts=6)
    assert max(shares) < 1.25 / 6
    assert min(shares) > 0.75 / 6


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_burst_asks_mostly_in_three_short_stretches(seed: int) -> None:
    shares = _shares(SCENARIOS["clinical_rush"], seed, parts=15)
    assert sum(sorted(shares)[-3:]) > 0.7
    assert all(share < 0.1 for share in sorted(shares)[:-3])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_realistic_has_a_quiet_night_and_two_peaks(seed: int) -> None:
    hours = _shares(SCENARIOS["cache_effectiveness"], seed, parts=24)
    night, morning, noon, afternoon = hours[:6], hours[8:12], hours[12:14], hours[14:18]
    assert sum(night) / 6 < 0.3 * sum(morning) / 4
    assert sum(noon) / 2 < 0.8 * sum(morning) / 4
    assert sum(noon) / 2 < 0.8 * sum(afternoon) / 4
    assert sum(hours[20:]) / 4 < 0.5 * sum(afternoon) / 4


def test_users_without_two_operations_are_refused() -> None:
    with pytest.raises(ValueError, match="too few for 50 users"):
        Scenario("few", 50, Pattern.SUSTAINED, 99, 10.0, 0, 1.0)


def _shares(scenario: Scenario, seed: int, parts: int) -> list[float]:
    """How the asks between every user's first and last are spread over equal parts of that stretch."""
    offsets = schedule(scenario, seed)
    opens, closes = opening_seconds(scenario), min(own[-1] for own in offsets)
    between = [(offset - opens) / (closes - opens) for own in offsets for offset in own[1:-1]]
    counts = Counter(min(int(position * parts), parts - 1) for position in between)
    return [counts[part] / len(between) for part in range(parts)]
