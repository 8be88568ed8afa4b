"""What users perceive: how long the screen stays empty, what somebody sees from outside, what users say.

The service counts what it sends. When the first piece of an answer is there, what network and proxy add, and
whether anybody reads to the end is known from the stream, from the prober and from the users themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_exporter import catalogue

from cmo_dashboards import expressions as promql
from cmo_dashboards.colours import FAIL, NEUTRAL, Step
from cmo_dashboards.panels import Panel, Query, Shape, Unit, to_dashboard
from cmo_dashboards.promised import runbook_links

if TYPE_CHECKING:
    from cmo_slo.model import Objectives

_LIVE: Final = promql.ON_CALL.matcher
_MOST_COUNT: Final = 100_000.0
_LONGEST_SECONDS: Final = max(catalogue.DURATION_BUCKETS_SECONDS)
_A_MONTH_SECONDS: Final = 31 * 86_400.0
_CLOCKS_APART_SECONDS: Final = 60.0
_NEWS_SECONDS: Final = 300
"""How old the last word of a prober may be: with the defaults it asks each canary every two minutes."""
_NO_PROBER: Final = "No news of a prober"


def prober(objectives: Objectives, *, width: int, height: int) -> Panel:
    """Whether a question from outside is answered, each canary by its last word, while that is news."""
    return Panel(
        title="Prober",
        shape=Shape.STAT,
        width=width,
        height=height,
        unit=Unit.COUNT,
        answers="Does somebody who asks from outside get a right answer? One tile a canary question, by "
        f"its last word, which may be minutes old; *no news*: older than {_NEWS_SECONDS / 60:g} minutes. "
        "*Since the prober was last answered* is exact.",
        when_red="Users who come the same way most likely fail too, whatever the service counts itself: "
        "runbook CMOProbeFailing.md.",
        queries=(Query(_last_word(), "{{canary}}", -1, 1, may_be_empty=True),),
        steps=(Step(None, NEUTRAL), Step(0.0, FAIL), Step(1.0, NEUTRAL)),
        value_texts=((-1.0, "no news"), (0.0, "fails"), (1.0, "answered")),
        no_value=_NO_PROBER,
        lowest=-1.0,
        links=runbook_links(objectives, "CMOProbeFailing"),
    )


def _last_word() -> str:
    """What each canary got last: 1 an answer, 0 none; -1 once that is old, for a prober may have stopped."""
    told = catalogue.PROBE_UP.name
    age = f"time() - {catalogue.PROBE_LAST_ASKED.name}"
    fresh = f"{told} and on (job, instance, canary) ({age} < {_NEWS_SECONDS})"
    return f"min by (canary) ({fresh}) or 0 * min by (canary) ({told}) - 1"


def perceived() -> tuple[Panel, ...]:
    """What a user waits for, sees and says, of live traffic and of the prober."""
    return (_first_token(), _seen_from_outside(), _last_answered(), _in_progress(), _reactions())


def _first_token() -> Panel:
    buckets = f"{catalogue.QUERY_TIME_TO_FIRST_TOKEN.name}_bucket{{{_LIVE}}}"
    return Panel(
        title="Time to the first token of live answers (P95, estimated)",
        shape=Shape.TIME_SERIES,
        width=8,
        height=8,
        unit=Unit.SECONDS,
        answers="How long does the screen stay empty? From the question to the first piece of a streamed "
        "answer. Points are single queries, each with the id of its trace, where traces are on.",
        when_red="Compare *P95 and P99 of live answers (estimated)*: high with it, the time goes before the "
        "model answers; *CMO components* shows where. Low while that is high: answers are long.",
        queries=(
            Query(
                promql.quantile(0.95, buckets, promql.RATE_INTERVAL),
                "P95",
                0.0,
                _LONGEST_SECONDS,
                may_be_empty=True,
                exemplars=True,
            ),
        ),
        no_value="No streamed answer, or no data: see Targets up",
        links=(to_dashboard("Where the time goes", "cmo-components", scenario=catalogue.LIVE),),
    )


def _seen_from_outside() -> Panel:
    def p95(metric: catalogue.Metric) -> str:
        return promql.quantile(0.95, f"{metric.name}_bucket", promql.RATE_INTERVAL)

    asked = f"sum(rate({catalogue.PROBE_DURATION.name}_count[{promql.RATE_INTERVAL}]))"
    connecting = f"sum(rate({catalogue.PROBE_CONNECTION.name}_sum[{promql.RATE_INTERVAL}]))"
    return Panel(
        title="Latency that the prober sees (P95, estimated)",
        shape=Shape.TIME_SERIES,
        width=8,
        height=8,
        unit=Unit.SECONDS,
        answers="How long does somebody wait who asks from outside, connection and network included? All "
        "canaries together, failures too: few questions, so nearly the slowest of each moment. Dashed: until "
        "the first piece of a streamed answer; and, as a mean, for name, connection and TLS alone.",
        when_red="`connecting` is high: ask whoever runs network, name service and certificates. It is not, "
        "and *P95 and P99 of live answers (estimated)* is low: the time goes in the proxy between.",
        queries=(
            Query(p95(catalogue.PROBE_DURATION), "whole answer", 0.0, _LONGEST_SECONDS, may_be_empty=True),
            Query(
                p95(catalogue.PROBE_TIME_TO_FIRST_TOKEN),
                "first token",
                0.0,
                _LONGEST_SECONDS,
                may_be_empty=True,
                dashed=True,
            ),
            Query(
                f"{connecting} / ({asked} > 0)",
                "connecting (mean)",
                0.0,
                _LONGEST_SECONDS,
                may_be_empty=True,
                dashed=True,
            ),
        ),
        no_value="The prober asked nothing, or is not scraped",
    )


def _last_answered() -> Panel:
    def since(metric: catalogue.Metric, by: str) -> str:
        return f"time() - max{by} ({metric.name} > 0)"

    return Panel(
        title="Since the prober was last answered",
        shape=Shape.TIME_SERIES,
        width=8,
        height=8,
        unit=Unit.SECONDS,
        answers="How long has nobody outside had a good answer? Seconds since the last, of each canary; "
        "saw teeth are normal. Dashed: since any question came to its end, well or not.",
        when_red="A line that rises with the clock is a question that is answered no more. When the dashed "
        "line rises too the prober is stuck, and says nothing of the service. No line at all: no prober is "
        "scraped, or it never had an answer.",
        queries=(
            Query(
                since(catalogue.PROBE_LAST_SUCCESS, " by (canary)"),
                "{{canary}}",
                -_CLOCKS_APART_SECONDS,
                _A_MONTH_SECONDS,
                may_be_empty=True,
            ),
            Query(
                since(catalogue.PROBE_LAST_ASKED, ""),
                "any question ended",
                -_CLOCKS_APART_SECONDS,
                _A_MONTH_SECONDS,
                may_be_empty=True,
                dashed=True,
            ),
        ),
        no_value=_NO_PROBER,
    )


def _in_progress() -> Panel:
    return Panel(
        title="Live queries in progress",
        shape=Shape.TIME_SERIES,
        width=12,
        height=8,
        unit=Unit.COUNT,
        answers="How many live queries are under way at once, all instances together? As many as arrive in "
        "a second times the seconds that each takes.",
        when_red="Rising while *Live queries by outcome* stays flat: answers take longer, or hang; see "
        "*Oldest live query in progress*.",
        queries=(
            Query(f"sum({catalogue.QUERIES_IN_PROGRESS.name}{{{_LIVE}}})", "in progress", 0, _MOST_COUNT),
        ),
        no_value="The service is not scraped",
    )


def _reactions() -> Panel:
    def in_the_range(metric: catalogue.Metric, by: str = "") -> str:
        return f"sum{by} (increase({metric.name}{{{_LIVE}}}[{promql.RANGE}]))"

    return Panel(
        title="What users say and do",
        shape=Shape.STAT,
        width=12,
        height=8,
        unit=Unit.COUNT,
        answers="What do users think of their answers? Ratings, and streamed answers that they left before "
        "the end, over the time that is chosen on top; estimates. Zero also where nobody can rate or nothing "
        "is streamed.",
        when_red="Many `down` with a good success rate: answers come, and are wrong; look at *Live answers "
        "by source*. Many left: they are too long or too slow.",
        queries=(
            Query(in_the_range(catalogue.FEEDBACK, " by (rating)"), "rated {{rating}}", 0, _MOST_COUNT),
            Query(in_the_range(catalogue.STREAMS_ABANDONED), "left in mid-answer", 0, _MOST_COUNT),
        ),
        no_value="The service is not scraped",
        decimals=0,
    )
