"""Cases of alerts on a share of bad events: pages, burning budgets, missed targets, shares of causes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cmo_slo.alerts.page import LINGERS_SCRAPES
from cmo_slo.rule_tests.case import Case, Text
from cmo_slo.rule_tests.stimulus import Events

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cmo_slo.rule_tests.stimulus import Stimulus

WARM_UP: Final = 8
"""Steps in which all is well, before something happens."""

_A_STEP: Final = 1000
"""Events of a step: many, so that limits of tenths of a percent are whole numbers of events."""


@dataclass(frozen=True)
class Share:
    """What cases need to know of an alert on a share, all times in steps.

    ``window`` is the window that decides; ``fires_after`` is how long all must be bad after the warm-up for
    the alert to fire for certain, ``ends_after`` how long all must be well for it to have ended, with
    ``good_again`` events a step; ``waits`` is its ``for``, ``lingers`` its ``keep_firing_for``. ``minimum``
    is the fewest bad events, where promtool can count them; ``value_of_all`` its value when all are bad, and
    ``labels`` those that it keeps of the series.
    """

    stimulus: Stimulus
    limit: float
    minimum: int | None
    window: int
    fires_after: int
    ends_after: int
    waits: int
    lingers: int
    value_of_all: float
    labels: Mapping[str, str] = field(default_factory=dict)
    warm_up: int = WARM_UP
    good_again: float = _A_STEP

    @property
    def busy_minimum(self) -> int:
        """The fewest bad events where many ask."""
        return self.minimum or 1


def soon(limit: float, waits: int) -> int:
    """Steps after which a share that was 0 in the warm-up is above a limit, and the alert has waited."""
    return math.ceil(WARM_UP * limit / (1 - limit)) + waits + 3


def share_cases(share: Share) -> Iterator[Case]:
    """Every case of an alert on a share."""
    yield from _limit_cases(share)
    yield from _quiet_cases(share)
    yield from _restart_cases(share)


def _limit_cases(share: Share) -> Iterator[Case]:
    well = Events(_A_STEP, 0, share.warm_up)
    failing = Events(0, _A_STEP, share.fires_after)
    over = share.warm_up + share.fires_after
    make = share.stimulus
    yield Case(
        "from the first event on all are bad: it says how bad it is",
        make([failing]),
        text=Text(share.fires_after, share.value_of_all, share.labels),
    )
    yield Case(
        "all become bad: it fires; all become good: it ends",
        make([well, failing, Events(share.good_again, 0, share.ends_after)]),
        firing=(over,),
        silent=(share.warm_up, over + share.ends_after),
    )
    at_limit = round(share.limit * _A_STEP)
    long = share.fires_after + share.warm_up
    yield Case(
        "just above the limit it fires",
        make([Events(_A_STEP - at_limit - 1, at_limit + 1, long)]),
        firing=(long,),
    )
    yield Case(
        "at the limit it is silent",
        make([Events(_A_STEP - at_limit, at_limit, long)]),
        silent=(long // 2, long),
    )
    yield from _timing_cases(share)
    if share.minimum is not None:
        yield from _minimum_cases(share, share.minimum)


def _timing_cases(share: Share) -> Iterator[Case]:
    """Not before its ``for`` is over, and on for its ``keep_firing_for``, and no longer."""
    if share.waits:
        yield Case(
            "all are bad from the first event on: not before its time",
            share.stimulus([Events(0, _A_STEP, share.waits + 3)]),
            firing=(share.waits + 2,),
            silent=(share.waits,),
        )
    # So many good events at once that no window has too many bad ones any more.
    over = share.warm_up + share.fires_after
    drowned = Events(1000 * _A_STEP * share.fires_after, 0, 1)
    yield Case(
        "the cause is over: it fires on for its time, and no longer",
        share.stimulus(
            [
                Events(_A_STEP, 0, share.warm_up),
                Events(0, _A_STEP, share.fires_after),
                drowned,
                Events(0, 0, share.lingers + 4),
            ]
        ),
        firing=(over + share.lingers - 1,),
        silent=(over + share.lingers + 3,),
    )


def _minimum_cases(share: Share, minimum: int) -> Iterator[Case]:
    # So long that the window holds nothing of before.
    quiet = [Events(_A_STEP, 0, share.warm_up), Events(0, 0, share.window + 2)]
    after = share.warm_up + share.window + 2 + 1 + share.waits + 1
    rest = Events(0, 0, share.waits + 3)
    yield Case(
        "as many bad events as its minimum: it fires",
        share.stimulus([*quiet, Events(1, minimum, 1), rest]),
        firing=(after,),
    )
    yield Case(
        "one bad event less: silent",
        share.stimulus([*quiet, Events(1, minimum - 1, 1), rest]),
        silent=(after, after + 2),
    )


def _quiet_cases(share: Share) -> Iterator[Case]:
    long = share.fires_after + share.warm_up
    yield Case("no series at all: silent", (), silent=(long,))
    yield Case(
        "nobody asks: silent",
        share.stimulus([Events(_A_STEP, 0, share.warm_up), Events(0, 0, long)]),
        silent=(share.warm_up + 1, share.warm_up + long),
    )


def _restart_cases(share: Share) -> Iterator[Case]:
    well = Events(_A_STEP, 0, share.warm_up)
    again = Events(_A_STEP, 0, share.warm_up, reset=True)
    failing = Events(0, _A_STEP, share.fires_after)
    failing_again = Events(0, _A_STEP, share.fires_after, reset=True)
    gone = Events(0, 0, 2, absent=True)
    over = share.warm_up + share.fires_after
    yield Case(
        "a counter reset is no failure",
        share.stimulus([well, again]),
        silent=(share.warm_up, share.warm_up + 1, 2 * share.warm_up),
    )
    yield Case(
        "a counter reset does not hide a failure",
        share.stimulus([well, failing_again]),
        firing=(over,),
    )
    yield Case(
        "a restart of the service is no failure",
        share.stimulus([well, gone, again]),
        silent=tuple(range(share.warm_up, 2 * share.warm_up + 2, 2)),
    )
    yield Case(
        "a restart amid a failure does not end it",
        share.stimulus([well, failing, gone, failing_again]),
        firing=(over, over + 2 + share.fires_after),
    )


def rare_cases(share: Share, *, window: int, minimum: int) -> Iterator[Case]:
    """Where few ask, a longer window of ``window`` steps decides, from ``minimum`` bad events in it."""
    every = window // (minimum + 1)
    failures = [part for _ in range(minimum) for part in (Events(0, 1, 1), Events(0, 0, every - 1))]
    last = 2 + every * (minimum - 1)
    yield Case(
        "few ask and all of it is bad: it fires",
        share.stimulus([Events(0, 0, 1), *failures]),
        firing=(last + share.waits + 2,),
        silent=(last - 1,),
    )
    outage = [Events(0, 10 * minimum, 1), Events(0, 0, share.ends_after)]
    after = 1 + share.ends_after + 1 + share.waits + 1
    yield Case(
        "an outage is over and more ask again: one failure does not bring it back",
        share.stimulus([*outage, Events(2 * share.busy_minimum, 1, 1), Events(0, 0, share.waits + 3)]),
        silent=(after, after + 2),
    )


def rare_limit_cases(share: Share, *, window: int, minimum: int) -> Iterator[Case]:
    """Where few ask, the longer window has the same limit; ``window`` is the shorter one, in steps."""
    # Of so many events the minimum is just above the limit, and of one more it is not.
    most = math.ceil(minimum / share.limit) - 1
    after = 1 + window + 1 + share.waits + 1
    for total, name in ((most, "just above the limit: it fires"), (most + 1, "not above it: silent")):
        earlier = [Events(total - minimum, minimum - 1, 1), Events(0, 0, window)]
        yield Case(
            f"few ask now, and its minimum of all that was asked is {name}",
            share.stimulus([*earlier, Events(0, 1, 1), Events(0, 0, share.waits + 3)]),
            firing=(after,) if total == most else (),
            silent=() if total == most else (after, after + 2),
        )


def page_window_cases(share: Share, *, short: int, long: int, quarter: int) -> Iterator[Case]:
    """Each window has the limit by itself: what the others hold is not enough. Windows are in steps."""
    limit, well = round(share.limit * _A_STEP), Events(_A_STEP, 0, long)
    # Nearer to the limit than to half of it, in a step and in a window.
    less = Events(_A_STEP - 7 * limit // 10, 7 * limit // 10, quarter)
    all_bad = Events(_A_STEP - 7 * limit // 10 * long, 7 * limit // 10 * long, 1)
    yield Case(
        "one bad scrape, of which the long window holds less than the limit: silent",
        share.stimulus([well, all_bad, Events(_A_STEP, 0, 1)]),
        silent=(long + 1, long + 2),
    )
    # What is asked before is so much that the burst is nothing in the windows that hold it.
    before = Events(100 * _A_STEP, 0, long)
    yield Case(
        "a burst is over, and the short window holds less than the limit: silent",
        share.stimulus([before, Events(0, _A_STEP, short), less]),
        silent=tuple(range(2 * long, 2 * long + short - 1)),
    )
    failing = Events(_A_STEP // 2, _A_STEP // 2, quarter // 2)
    ended = long + quarter // 2 + long + share.lingers + 2
    yield Case(
        "it has got better than the limit, though a quarter of an hour has not: it ends",
        share.stimulus([well, failing, less]),
        firing=(long + quarter // 2,),
        silent=(ended,),
    )
    many = Events(round(share.busy_minimum / (0.7 * share.limit)), share.busy_minimum - 1, 1)
    yield Case(
        "few ask now, and a quarter of an hour holds less than the limit: silent",
        share.stimulus([Events(0, 0, 1), many, Events(0, 0, long), Events(1, 1, 1), Events(0, 0, 3)]),
        silent=(long + 3, long + 5),
    )


def page_rare_cases(share: Share, *, long: int, quarter: int, minimum: int) -> Iterator[Case]:
    """Where few ask: all of it is bad now, or most of a quarter of an hour. Windows are in steps."""
    yield from _all_bad_cases(share, minimum)
    yield from _hour_cases(share, quarter, minimum)
    third = [Events(1, 0, 1), Events(1, 1, 1)]
    yield Case(
        "a third is bad, too few for the long window: a quarter of an hour decides, and it fires",
        share.stimulus(third * quarter),
        firing=(quarter,),
    )
    tenth = [Events(1, 0, 1)] * 9 + [Events(0, 1, 1)]
    yield Case(
        "a tenth is bad, too few for the long window: silent",
        share.stimulus(tenth * (quarter // 4)),
        silent=(quarter, 2 * quarter),
    )
    half = [Events(1, 1, 1), Events(0, 0, long)]  # now and then one good and one bad
    after = 2 + (long + 1) * (minimum - 1)
    yield Case(
        "half of a quarter of an hour is bad: silent",
        share.stimulus([Events(0, 0, 1), *half * minimum]),
        silent=(after, after + 2),
    )
    more = [*half * (minimum - 1), Events(0, 1, 1), Events(0, 0, 6)]
    yield Case(
        "more than half of it: it fires",
        share.stimulus([Events(0, 0, 1), Events(0, 1, 1), Events(0, 0, long), *more]),
        firing=(after + long + 3,),
    )
    earlier = [Events(4 * minimum, 1, 1), Events(0, 0, quarter)]
    yield Case(
        "more than half of it, and one bad event less in it: silent",
        share.stimulus([Events(0, 0, 1), *earlier, Events(0, 1, 1), Events(0, 0, long), *more[4:]]),
        silent=(quarter + after - long + 3, quarter + after - long + 4),
    )
    busy = -(-2 * share.busy_minimum // long)
    well = long + LINGERS_SCRAPES + 4
    yield Case(
        "an outage is over and many ask: it has ended, though most of the quarter of an hour was bad",
        share.stimulus([Events(0, 300, 1), Events(busy, 0, well)]),
        firing=(2,),
        silent=(well, well + 1),
    )


def _all_bad_cases(share: Share, minimum: int) -> Iterator[Case]:
    quiet = [Events(_A_STEP, 0, share.warm_up), Events(0, 0, share.window + 2)]
    after = share.warm_up + share.window + 2 + 2
    for bad, name in ((minimum, "few ask now, and all of it is bad"), (minimum - 1, "one bad event less")):
        yield Case(
            f"{name}: {'it fires' if bad == minimum else 'silent'}",
            share.stimulus([*quiet, Events(0, bad, 1), Events(0, 0, 3)]),
            firing=(after,) if bad == minimum else (),
            silent=() if bad == minimum else (after, after + 1),
        )


def _hour_cases(share: Share, quarter: int, minimum: int) -> Iterator[Case]:
    hour, every = 4 * quarter, 4 * quarter // (minimum + 1)
    failures = [part for _ in range(minimum) for part in (Events(0, 1, 1), Events(0, 0, every - 1))]
    last = 2 + every * (minimum - 1)
    yield Case(
        "few ask in an hour and all of it is bad: it fires",
        share.stimulus([Events(0, 0, 1), *failures]),
        firing=(last + 2,),
        silent=(last - 1,),
    )
    yield Case(
        "few ask in an hour and most of it was well: silent",
        share.stimulus([Events(2 * minimum + 2, 0, 1), Events(0, 0, quarter // 3), *failures]),
        silent=tuple(range(hour // 2, last + quarter // 3, 7)),
    )
