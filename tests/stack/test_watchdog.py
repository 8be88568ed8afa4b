"""How silence is counted, and which watchdogs are remembered."""

from __future__ import annotations

from cmo_stack.watchdog import HeardWatchdogs, Silence, Watchdog
from hypothesis import given
from hypothesis import strategies as st


def test_an_outage_begins_when_the_time_out_is_over_and_is_told_once() -> None:
    silence = Silence(100.0, now=1000.0)
    assert [silence.look(now) for now in (1010.0, 1020.0, 1030.0, 1040.0)] == [None] * 4
    assert [silence.look(1000.0 + later) for later in range(50, 100, 10)] == [None] * 5
    assert silence.look(1100.0) == "silent"
    assert [silence.look(1100.0 + later) for later in range(10, 500, 10)] == [None] * 49
    assert silence.hear(1600.0) == "heard again"
    assert silence.hear(1601.0) is None
    assert silence.look(1610.0) is None


def test_who_was_stopped_does_not_cry_wolf_and_gives_half_a_time_out() -> None:
    silence = Silence(100.0, now=0.0)
    for now in range(10, 100, 10):
        silence.look(float(now))
    assert silence.seconds == 90.0
    assert silence.look(86_400.0) is None, "a night in which nobody listened"
    assert silence.seconds == 50.0
    assert [silence.look(86_400.0 + later) for later in (10, 20, 30, 40)] == [None] * 4
    assert silence.look(86_450.0) == "silent"


def test_a_machine_that_stalls_again_and_again_cannot_put_off_an_outage() -> None:
    silence = Silence(100.0, now=0.0)
    looks = [silence.look(now * 60.0) for now in range(1, 20)]
    assert looks.count("silent") == 1


@given(st.lists(st.floats(0.0, 1000.0), min_size=1, max_size=200))
def test_nothing_pages_before_the_time_out_nor_later_than_it_and_a_half_awake(steps: list[float]) -> None:
    silence, now, awake = Silence(100.0, now=0.0), 0.0, 0.0
    for step in steps:
        now += step
        awake += min(step, 10.0)
        if silence.look(now) == "silent":
            assert now >= 99.999
            break
        assert awake < 160.0


def test_only_the_latest_watchdogs_are_remembered() -> None:
    heard = HeardWatchdogs()
    for number in range(1000):
        heard.hear([Watchdog("CMOWatchdog", ""), Watchdog("Other", str(number))], number)
    names = [(one["alertname"], one["slo"]) for one in heard.status(1000.0)]
    assert set(names) == {("CMOWatchdog", ""), *(("Other", str(number)) for number in range(981, 1000))}
    assert heard.status(1000.0)[0]["silent_seconds"] == 1.0
