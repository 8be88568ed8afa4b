"""Cases of tickets that look at days, from what is recorded of hours.

``promtool`` ignores the intervals of groups and would roll hours up at every step, so that events count many
times over. These cases begin with the roll-ups: of a service whose counters are not there, the rules record
none themselves, and windows of days add up just those that the case has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmo_exporter import catalogue

from cmo_slo import recorded
from cmo_slo.durations import HOUR
from cmo_slo.recorded import Window
from cmo_slo.rule_tests.case import Case, Series

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cmo_slo.rule_tests.shares import Share

_A_DAY = 1000
"""Events of a day on which many ask."""


@dataclass(frozen=True)
class _Hours:
    """What is recorded of the live events of one objective."""

    labels: Mapping[str, str]

    def rolled_up(self, *hours: tuple[int, int, int]) -> tuple[Series, ...]:
        """Roll-ups, each the step at which it is recorded, bad events and all events."""

        def values(events: list[int]) -> str:
            parts, before = [], -1
            for (step, _, _), count in zip(hours, events, strict=True):
                missing = step - before - 1
                parts += [f"_x{missing}"] * bool(missing) + [str(count)]
                before = step
            return " ".join(parts)

        good, total = [whole - bad for _, bad, whole in hours], [whole for _, _, whole in hours]
        return (
            Series(recorded.GOOD_EVENTS_HOURLY, self.labels, values(good)),
            Series(recorded.TOTAL_EVENTS_HOURLY, self.labels, values(total)),
        )

    def last(self, bad: int, total: int, steps: int) -> tuple[Series, ...]:
        """The hour until now."""
        labels = {**self.labels, "window": Window.HOUR.value}
        return (
            Series(recorded.GOOD_EVENTS_IN_WINDOW, labels, f"{total - bad}x{steps}"),
            Series(recorded.TOTAL_EVENTS_IN_WINDOW, labels, f"{total}x{steps}"),
        )


def _hours(slo: str, objective: str) -> _Hours:
    return _Hours({"slo": slo, "objective": objective, "scenario": catalogue.LIVE})


def day_cases(share: Share, slo: str, objective: str) -> Iterator[Case]:
    """Where few ask in an hour, the day decides. Steps are minutes."""
    minimum, hours = share.busy_minimum, _hours(slo, objective)
    at_limit = round(share.limit * _A_DAY)
    steps = share.waits + 3
    # Bad events and all of them, of the day and of the hour, and whether that is a ticket.
    situations = {
        "as many bad events as its minimum in a day: it fires": (minimum, minimum, 1, 1),
        "one bad event less in a day: silent": (minimum - 1, minimum - 1, 1, 1),
        "just above the limit in a day: it fires": (at_limit + 1, _A_DAY, 1, 1),
        "at the limit in a day: silent": (at_limit, _A_DAY, 1, 1),
        "nothing is bad any more in the last hour: silent": (minimum, minimum, 0, 1),
        "nobody asks any more in the last hour: silent": (minimum, minimum, 0, 0),
        "as many ask as an hour needs: it decides, and is well: silent": (minimum, minimum, 1, 2 * minimum),
        "one less asks than an hour needs: the day decides: it fires": (minimum, minimum, 1, 2 * minimum - 1),
    }
    for name, (bad_of_day, day, bad_of_hour, hour) in situations.items():
        fires = name.endswith("it fires")
        yield Case(
            name,
            (*hours.rolled_up((0, bad_of_day, day)), *hours.last(bad_of_hour, hour, steps)),
            firing=(share.waits, share.waits + 2) if fires else (),
            silent=(share.waits - 1,) if fires else (share.waits, share.waits + 2),
        )
    yield from _longer_than_hours_cases(share, hours)


def _longer_than_hours_cases(share: Share, hours: _Hours) -> Iterator[Case]:
    """It is the day that is looked at, and not the next shorter window that is recorded."""
    minimum, seven_hours = share.busy_minimum, 7 * 60
    labels = {**hours.labels, "window": Window.HOUR.value}
    # Nothing is bad in the hours between, so that it has not fired before.
    between = (
        Series(recorded.GOOD_EVENTS_IN_WINDOW, labels, f"1x{seven_hours - 1} 0x60"),
        Series(recorded.TOTAL_EVENTS_IN_WINDOW, labels, f"1x{seven_hours + 60}"),
    )
    yield Case(
        "bad events of seven hours ago count, once there is another: it fires",
        (*hours.rolled_up((0, minimum, minimum)), *between),
        firing=(seven_hours + share.waits,),
        silent=(seven_hours,),
    )


def budget_cases(share: Share, minimum: int, slo: str, objective: str, step: int) -> Iterator[Case]:
    """The share of three days and that of six hours. ``step`` is the milliseconds of one."""
    hours, at_limit = _hours(slo, objective), round(share.limit * _A_DAY)
    # Bad events and all of them, of both windows, and whether that is a ticket.
    situations = {
        "as many bad events as its minimum in three days: it fires": (minimum, minimum),
        "one bad event less in three days: silent": (minimum - 1, minimum - 1),
        "just above the limit in both windows: it fires": (at_limit + 1, _A_DAY),
        "at the limit in both windows: silent": (at_limit, _A_DAY),
    }
    for name, (bad, total) in situations.items():
        fires = name.endswith("it fires")
        yield Case(
            name,
            hours.rolled_up((0, bad, total)),
            firing=(share.waits, share.waits + 2) if fires else (),
            silent=(share.waits - 1,) if fires else (share.waits, share.waits + 2),
        )
    later = 6 * HOUR // step + 2
    yield Case(
        "too much is bad in three days, and six hours are well: it has ended",
        hours.rolled_up((0, minimum, minimum), (later, 0, minimum)),
        firing=(later - 3,),
        silent=(later + share.lingers,),
    )
    yield Case(
        "too much is bad in six hours, and three days are well: silent",
        hours.rolled_up((0, 0, 100 * minimum), (later, minimum, minimum)),
        silent=(later + share.waits, later + share.waits + 2),
    )
