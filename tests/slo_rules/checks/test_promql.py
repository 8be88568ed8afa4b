"""PromQL as data: what is read, what equals what, and how long a duration is."""

from __future__ import annotations

import pytest
from cmo_slo.checks import promql
from cmo_slo.checks.promql import Aggregate, Binary, Call, ExpressionError, Matcher, Selector
from cmo_slo.durations import DurationError, duration, parse_duration
from hypothesis import given
from hypothesis import strategies as st


def test_an_expression_becomes_nodes() -> None:
    parsed = promql.parse('sum by (job) (rate(a_total{code=~"5.."}[5m] offset 1h)) > bool 1')
    selector = Selector("a_total", frozenset({Matcher("code", "=~", "5..")}), range=300_000, offset=3_600_000)
    summed = Aggregate("sum", Call("rate", (selector,)), by=frozenset({"job"}))
    assert isinstance(parsed, Binary)
    assert (parsed.operator, parsed.left, parsed.returns_bool) == (">", summed, True)
    assert list(promql.selectors(parsed)) == [selector]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sum by (a, b) (x)", "sum(x) by (b, a)"),
        ('x{a="1", b="2"}', 'x{b="2",a="1"}'),
        ('{__name__="x"}', "x"),
        ("((x))", "x"),
        ("x + (y)", "x+y"),
        ("x[60s]", "x[1m]"),
    ],
)
def test_what_means_the_same_is_equal(one: str, other: str) -> None:
    if "[" in one:
        one, other = f"rate({one})", f"rate({other})"
    assert promql.parse(one) == promql.parse(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x", "y"),
        ("sum(x)", "sum by (a) (x)"),
        ("x and on (a) y", "x and ignoring (a) y"),
        ("x offset 5m", "x offset -5m"),
        ("x > 1", "x > bool 1"),
        ("a * on (x) group_left b", "a * on (x) group_right b"),
    ],
)
def test_what_means_something_else_is_not(one: str, other: str) -> None:
    assert promql.parse(one) != promql.parse(other)


@pytest.mark.parametrize(
    ("text", "value"),
    [("14.4 * 0.5", 7.2), ("(1 - 0.75) * 4", 1), ("-(2 ^ 3)", -8), ("7 % 4", 3), ("vector(1) / 4", 0.25),
     ("1 / 0", None), ("x * 2", None), ("time()", None), ("10 ^ 400", None)],
)  # fmt: skip
def test_arithmetic_over_numbers_is_worked_out(text: str, value: float | None) -> None:
    assert promql.constant(promql.parse(text)) == value


@pytest.mark.parametrize(
    ("pattern", "literals"),
    [("a|b", ("a", "b")), ("(a|b)", ("a", "b")), ("2|2[.]0", ("2", "2.0")), ("2\\.0", ("2.0",)),
     ("a.*", None), ("2.0", None), ("a[bc]", None), ("(?i)a", None)],
)  # fmt: skip
def test_patterns_that_are_only_lists_are_known(pattern: str, literals: tuple[str, ...] | None) -> None:
    assert Matcher("l", "=~", pattern).literals == literals


@pytest.mark.parametrize(
    ("matcher", "value", "accepted"),
    [
        (Matcher("l", "=", "a"), "a", True),
        (Matcher("l", "=", "a"), "b", False),
        (Matcher("l", "!=", "a"), "b", True),
        (Matcher("l", "=~", "a|b"), "b", True),
        (Matcher("l", "=~", "a"), "ab", False),
        (Matcher("l", "!~", "a.*"), "ab", False),
        (Matcher("l", "=~", "(?P<x"), "anything", True),
    ],
)
def test_matchers_accept_what_they_say(matcher: Matcher, value: str, accepted: bool) -> None:
    assert matcher.accepts(value) is accepted


@pytest.mark.parametrize("text", ["", "sum(", "a b", "rate(a)", "{}", "a[5m", "1 > 2", "a{b=~'('}"])
def test_what_is_no_promql_is_told(text: str) -> None:
    with pytest.raises(ExpressionError):
        promql.parse(text)


def test_operators_inside_text_do_not_count() -> None:
    assert promql.parse(f'a{{b="{"+" * 1000}"}} # {"-" * 1000}')


@given(st.integers(0, 10**13))
def test_durations_are_read_as_they_are_written(milliseconds: int) -> None:
    assert parse_duration(duration(milliseconds)) == milliseconds


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("0", 0),
        ("15s", 15_000),
        ("1h30m", 5_400_000),
        ("4w", 2_419_200_000),
        ("1y2w3d4h5m6s7ms", 33_019_506_007),
    ],
)
def test_durations_have_all_units_of_prometheus(text: str, milliseconds: int) -> None:
    assert parse_duration(text) == milliseconds


@given(st.text(alphabet="0123456789smhdwy .-+e"))
def test_what_is_no_duration_is_told(text: str) -> None:
    try:
        found = parse_duration(text)
    except DurationError:
        return
    assert found >= 0
    assert parse_duration(duration(found)) == found


@pytest.mark.parametrize("text", ["", "5", "5 m", "-5m", "1.5h", "m5", "30m1h", "1h1h", "5min", "soon", "٣m"])
def test_neighbours_of_durations_are_none(text: str) -> None:
    with pytest.raises(DurationError):
        parse_duration(text)
