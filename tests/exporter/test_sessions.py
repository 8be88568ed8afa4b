"""Active users: their number, and the integral that must be exact whenever it is read."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from cmo_exporter import Exporter, ExporterSettings
from cmo_exporter.sessions import Sessions
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

IDLE = 10.0
USERS = ("a", "b", "c")
MOVES = st.lists(
    st.tuples(
        st.sampled_from(("enter", "leave", "leave and end", "end", "read")),
        st.sampled_from(USERS),
        st.floats(0, 15, allow_subnormal=False),
    ),
    max_size=40,
)


class Truth:
    """The plainest account of one user: when they came, what is in flight, since when they are idle."""

    def __init__(self) -> None:
        self.opened: float | None = None
        self.in_flight = 0
        self.ending = False
        self.idle_since: float | None = None
        self.stays: list[tuple[float, float]] = []

    def close(self, at: float) -> None:
        assert self.opened is not None
        self.stays.append((self.opened, at))
        self.opened, self.idle_since, self.ending, self.in_flight = None, None, False, 0

    def let_time_pass(self, now: float) -> None:
        if self.idle_since is not None and self.idle_since + IDLE <= now:
            self.close(self.idle_since + IDLE)

    def move(self, what: str, now: float) -> None:
        self.let_time_pass(now)
        if what == "enter":
            self.opened = now if self.opened is None else self.opened
            self.in_flight, self.idle_since, self.ending = self.in_flight + 1, None, False
        elif self.opened is not None and what != "read":
            if what != "end":
                self.in_flight = max(0, self.in_flight - 1)
            self.ending = self.ending or what != "leave"
            if self.in_flight == 0 and self.ending:
                self.close(now)
            elif self.in_flight == 0:
                self.idle_since = now

    def seconds(self, now: float) -> float:
        stays = [*self.stays, *([(self.opened, now)] if self.opened is not None else [])]
        return sum(until - since for since, until in stays)


@hypothesis_settings(max_examples=150)
@given(moves=MOVES)
def test_the_integral_is_the_time_that_sessions_were_open(moves: list[tuple[str, str, float]]) -> None:
    now = 100.0
    sessions = Sessions(("live",), idle_timeout_seconds=IDLE, maximum=10, now=now)
    truth = {user: Truth() for user in USERS}
    for what, user, wait in moves:
        now += wait
        key = sessions.key("live", user)
        for name, person in truth.items():
            person.move(what if name == user else "read", now)
        if what == "enter":
            assert sessions.enter(key, now)
        elif what == "end":
            sessions.end(key, now)
        elif what != "read":
            sessions.leave(key, now, end=what == "leave and end")
        if what == "read":
            active, seconds = sessions.read(now)["live"]
            assert active == sum(person.opened is not None for person in truth.values())
            assert abs(seconds - sum(person.seconds(now) for person in truth.values())) < 1e-6
    now += 2 * IDLE
    for person in truth.values():
        person.let_time_pass(now)
    _, seconds = sessions.read(now)["live"]
    assert abs(seconds - sum(person.seconds(now) for person in truth.values())) < 1e-6


def test_a_late_reader_sees_the_session_closed_when_its_time_was_up() -> None:
    sessions = Sessions(("live",), idle_timeout_seconds=60, maximum=10, now=0.0)
    key = sessions.key("live", "a")
    sessions.enter(key, 10.0)
    sessions.leave(key, 15.0, end=False)
    assert sessions.read(1_000.0)["live"] == (0, 65.0)


def test_too_many_sessions_are_refused() -> None:
    sessions = Sessions(("live",), idle_timeout_seconds=60, maximum=2, now=0.0)
    first, second, third = (sessions.key("live", name) for name in "abc")
    assert sessions.enter(first, 0.0)
    assert sessions.enter(second, 0.0)
    assert not sessions.enter(third, 0.0)
    assert sessions.enter(first, 1.0)


def test_keys_differ_between_services_and_agree_within_one() -> None:
    one, other = (Sessions(("live",), idle_timeout_seconds=60, maximum=2, now=0.0) for _ in range(2))
    assert one.key("live", "s-1") == one.key("live", "s-1")
    assert one.key("live", "s-1") != one.key("live", "s-2")
    assert one.key("live", "s-1") != other.key("live", "s-1")


def users(exporter: Exporter, scenario: str) -> tuple[float, float, float]:
    """Active users, user-seconds and clock, of one scrape."""
    found = {
        (sample.name, sample.labels.get("scenario")): sample.value
        for family in exporter.registry.collect()
        for sample in family.samples
    }
    return (
        found["cmo_active_users", scenario],
        found["cmo_active_user_seconds_total", scenario],
        found["cmo_active_user_clock_seconds_total", None],
    )


def test_held_users_are_held_exactly_over_every_interval(exporter: Exporter) -> None:
    scenario = "clinical_rush"
    queries = [exporter.query(scenario, f"user {number}") for number in range(50)]
    for query in queries:
        query.begin()
    readings = [users(exporter, scenario) for _ in range(6)]
    for (_, seconds, clock), (active, later_seconds, later_clock) in itertools.pairwise(readings):
        assert active == 50
        assert abs((later_seconds - seconds) / (later_clock - clock) - 50) < 1e-6
    for query in queries:
        query.finish()
    assert users(exporter, scenario)[0] == 50, "thinking time counts"
    for number in range(50):
        exporter.end_session(f"user {number}", scenario)
    active, seconds, _ = users(exporter, scenario)
    assert active == 0
    assert users(exporter, scenario)[1] == seconds
    assert users(exporter, "live")[:2] == (0, 0)


def test_a_session_ends_with_the_query_that_says_so(exporter: Exporter) -> None:
    with exporter.query("clinical_rush", "u", end_session=True):
        assert users(exporter, "clinical_rush")[0] == 1
    assert users(exporter, "clinical_rush")[0] == 0


def test_a_query_without_a_session_is_nobody(exporter: Exporter) -> None:
    with exporter.query("clinical_rush"):
        assert users(exporter, "clinical_rush")[0] == 0


def test_an_idle_session_closes(
    settings: ExporterSettings, eventually: Callable[[Callable[[], object]], None]
) -> None:
    quick = ExporterSettings(scenarios=settings.scenarios, session_idle_timeout_seconds=0.05)
    exporter = Exporter(quick)
    with exporter.query("clinical_rush", "u"):
        pass
    eventually(lambda: users(exporter, "clinical_rush")[0] == 0)
    seconds = users(exporter, "clinical_rush")[1]
    assert seconds >= 0.05


def test_a_session_counts_its_user_once_and_until_it_ends(exporter: Exporter) -> None:
    def users_now() -> float:
        return users(exporter, "live")[0]

    with exporter.session("u1") as session:
        assert users_now() == 1
        with exporter.query(session="u1"):
            assert users_now() == 1
        session.begin()
        assert users_now() == 1
    assert users_now() == 0
    session.end()
    assert users_now() == 0
    chat = exporter.session("u2")
    chat.begin()
    with exporter.query(session="u2"):
        chat.end()
        assert users_now() == 1, "the answer is still on its way"
    assert users_now() == 0


async def test_a_session_is_an_asynchronous_context_manager_too(exporter: Exporter) -> None:
    async with exporter.session("u1", "clinical_rush"):
        assert users(exporter, "clinical_rush")[0] == 1
    assert users(exporter, "clinical_rush")[0] == 0


@pytest.mark.parametrize("session", [None, "", 5, []])
def test_a_session_without_a_usable_id_counts_nobody_and_says_so(exporter: Exporter, session: Any) -> None:
    with exporter.session(session):
        assert users(exporter, "live")[0] == 0
    dropped = {"metric": "cmo_active_users"}
    assert exporter.registry.get_sample_value("cmo_series_dropped_total", dropped) == 1


def test_sessions_beyond_the_maximum_are_dropped_and_counted(settings: ExporterSettings) -> None:
    exporter = Exporter(ExporterSettings(maximum_sessions=1))
    with exporter.query("live", "a"), exporter.query("live", "b"):
        assert users(exporter, "live")[0] == 1
    dropped = {"metric": "cmo_active_users"}
    assert exporter.registry.get_sample_value("cmo_series_dropped_total", dropped) == 1
    assert exporter.registry.get_sample_value("cmo_queries_started_total", {"scenario": "live"}) == 2
