"""Intervals of ratios: Wilson's where events are independent, wider where failures cluster."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from cmo_slo.confidence import interval, wilson
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from cmo_slo.count import Blocks


def test_wilson_is_the_published_interval() -> None:
    """Newcombe, Statistics in Medicine 17, 1998, table I, method 3: 81 of 263 is 0.2553 to 0.3662."""
    low, high = wilson(81, 263, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert wilson(0, 20, 20)[0] == 0.0
    assert round(wilson(0, 20, 20)[1], 4) == 0.1611


def blocks(seconds: int, failures: set[int], per_second: int = 20) -> tuple[Blocks, Blocks]:
    good = [float(0 if second in failures else per_second) for second in range(seconds)]
    return (tuple(good),), ((float(per_second),) * seconds,)


def test_failures_in_a_row_widen_it_more_than_failures_apart() -> None:
    apart = interval(((19.0,) * 40,), ((20.0,) * 40,))
    row = interval(*blocks(40, {10, 11}))  # as many failures, 40 of 800
    assert apart.design_effect == 1.0
    assert row.design_effect > 20
    assert row.high - row.low > 3 * (apart.high - apart.low)


def test_a_cluster_that_is_longer_than_a_scrape_interval_counts_as_one() -> None:
    long = interval(*blocks(64, {20, 21, 22, 23}))
    scattered = interval(*blocks(64, {3, 21, 40, 59}))
    assert long.design_effect > 1.5 * scattered.design_effect


def test_independent_failures_have_a_design_effect_near_one() -> None:
    rng = random.Random(7)
    good = tuple(float(sum(rng.random() < 0.9 for _ in range(30))) for _ in range(60))
    assert interval((good,), ((30.0,) * 60,)).design_effect < 2.5


def test_one_block_shows_no_cluster_and_counts_as_one_event() -> None:
    one = interval(((390.0,),), ((400.0,),))
    assert one.design_effect == 400.0
    assert one.straddles(0.95)
    assert interval(((400.0,),), ((400.0,),)).design_effect == 1.0  # as with no failure in many blocks


def test_many_short_spans_are_done_with() -> None:
    """Eight spans and more: joining blocks ends when none is longer."""
    spans: Blocks = ((3.0, 4.0, 5.0),) * 12
    assert interval(spans, spans).design_effect == 1.0


def test_no_events_have_no_interval() -> None:
    with pytest.raises(ValueError, match="no events"):
        interval(((0.0,),), ((0.0,),))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=40))
def test_the_ratio_lies_within_its_interval(pairs: list[tuple[int, int]]) -> None:
    good = tuple(float(min(pair)) for pair in pairs)
    total = tuple(float(max(pair)) for pair in pairs)
    if sum(total):
        found = interval((good,), (total,))
        assert found.low - 1e-12 <= sum(good) / sum(total) <= found.high + 1e-12
        assert 0 <= found.low <= found.high <= 1
