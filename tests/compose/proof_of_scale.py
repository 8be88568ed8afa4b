"""Profile ``scale``: workers, instances, replicas, VictoriaMetrics, vmalert, a cluster of Alertmanagers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from cmo_dashboards import Macros, queries, shipped_dashboards
from cmo_dashboards.asking import Asker
from cmo_dashboards.live import QueryRefusedError, wrong_under_load
from cmo_dashboards.monitor import UID as MONITOR
from cmo_slo import recorded
from cmo_stack.answers import problem_of

from .compose_file import SCALED_SERVERS
from .proof_of_one import check_confined, check_verdict, check_whole, page, pages, silence
from .running_stack import ComposedStack, get, value, wait_for
from .telling import NotProvedError, require, step, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROFILES: Final = ("scale", "scale-load")
_ONE_OF_TWO: Final = ("service-b", "prometheus-b", "alertmanager-b")
_INSTANCES, _WORKERS_OF_EACH = 2, 2
_INTERVAL_SECONDS: Final = 15
"""A multiple of any interval at which the replicas scrape here."""
_ARRIVED_SECONDS: Final = 60
_ADMINISTRATION: Final = (
    "/api/v1/admin/tsdb/delete_series",
    "/prometheus/api/v1/admin/tsdb/delete_series",
    "/tags/delSeries",
    "/snapshot/create",
    "/snapshot/list",
    "/snapshot/delete",
    "/snapshot/delete_all",
    "/internal/force_merge",
    "/internal/force_flush",
    "/internal/log_new_series",
    "/internal/resetRollupResultCache",
    "/api/v1/admin/status/metric_names_stats/reset",
    "/-/reload",
)
"""Paths of VictoriaMetrics that change or copy what it holds."""
_QUERIES: Final = 'sum(cmo_queries_total{job="cmo"})'


def prove(stack: ComposedStack) -> None:
    """Prove the scaled stack: without the small one, of which it needs Redis, upstream, pager and dead-man.

    Raises:
        NotProvedError: something is not as it should be.
    """
    with step("docker compose --profile scale up, until every service is healthy"):
        stack.up(SCALED_SERVERS, PROFILES)
        check_whole(stack.url("proxy", 8000))
        check_confined(stack)
        check_cluster(stack)
        check_administration_is_refused(stack.url("victoria-metrics", 8428), stack.url("vmalert", 8880))
    with step("docker compose run scale-load: the load test through the proxy, judged by VictoriaMetrics"):
        check_verdict(
            stack.compose("run", "--rm", "--no-TTY", "scale-load", profiles=PROFILES, may_fail=True)
        )
        check_instances(stack)
    with step("Every query of every dashboard, asked of VictoriaMetrics"):
        check_dashboards(stack)
    with step("The upstream is stopped, and half of each pair restarted, until a page has come all the same"):
        before = len(pages(stack.url("pager", 8095)))
        name = page(stack, "proxy", lambda: restart(stack, _ONE_OF_TWO))
    with step("Restarting every other container in turn"):
        check_restarts(stack, [service for service in SCALED_SERVERS if service not in _ONE_OF_TWO])
    with step("How often was that page sent by two Alertmanagers?"):
        sent = [alert for alert in pages(stack.url("pager", 8095))[before:] if _is(alert, name)]
        require(len(sent) == 1, f"{name} paged once, found {len(sent)} times")


def check_cluster(stack: ComposedStack) -> None:
    """Two Alertmanagers know each other, and what is told to one the other knows."""
    one, other = stack.url("alertmanager-a", 9093), stack.url("alertmanager-b", 9093)

    def members(url: str) -> int:
        status = get(f"{url}/api/v2/status")
        return len(status["cluster"]["peers"]) if status else 0

    wait_for(lambda: members(one) == members(other) == 2, "two Alertmanagers in one cluster")
    made = silence(one)
    wait_for(
        lambda: made in [each["id"] for each in get(f"{other}/api/v2/silences") or []],
        "a silence that was made at one Alertmanager is known to the other",
    )


def check_administration_is_refused(victoria_metrics: str, vmalert: str) -> None:
    """Nobody deletes or copies what is judged; that it is written and read, the rest of the proof shows."""
    for url in [*(f"{victoria_metrics}{path}" for path in _ADMINISTRATION), f"{vmalert}/-/reload"]:
        problem = problem_of(url)
        expected = f"{url} answered with 401"
        require(problem == expected, f"{expected} for want of a key, found {problem or 'that it was done'}")


def check_instances(stack: ComposedStack) -> None:
    """Both instances took part, with all their workers, and no series is there twice."""
    url = stack.url("victoria-metrics", 8428)
    took_part = 'count(sum by (instance) (cmo_queries_total{job="cmo",scenario="clinical_rush"}) > 0)'
    wait_for(lambda: value(url, took_part) == _INSTANCES, "queries of the load test at both instances")
    workers = value(url, 'count(cmo_worker_start_time_seconds{job="cmo"})')
    require(workers == _INSTANCES * _WORKERS_OF_EACH, f"{_WORKERS_OF_EACH} workers each, found {workers}")
    series = value(url, 'count(up{job="cmo"})')
    require(series == _INSTANCES, f"the replicas' samples make one series for each instance, found {series}")
    tell(f"{_INSTANCES} instances, {workers:g} workers, no series twice")


def check_dashboards(stack: ComposedStack) -> None:
    """VictoriaMetrics, which Grafana offers as a data source, takes what they ask, and most has an answer.

    No answer is beyond what is plausible, and the monitor's own dashboard has all that it should, except what
    is recorded once an hour.
    """
    macros = Macros(range="15m", rate_interval="20s", interval="5s")
    asked = [query for board in shipped_dashboards() for query in queries(board, macros)]
    with Asker(stack.url("victoria-metrics", 8428), macros) as asker:
        try:
            answers = {query: asker.ask(query) for query in asked}
        except QueryRefusedError as error:
            raise NotProvedError(f"every query is taken, found {error}") from error
    answered = [query for query, answer in answers.items() if answer]
    tell(f"{len(answered)} of {len(asked)} queries have an answer, after a load test without live users")
    require(len(answered) > len(asked) / 2, "most queries of the dashboards have an answer")
    held = [
        query
        for query in asked
        if answers[query] or (query.dashboard == MONITOR and recorded.COVERAGE not in query.expression)
    ]
    wrong = [*wrong_under_load(held, answers.__getitem__)]
    require(not wrong, f"every answer is plausible, and the monitor's are all there, found {wrong}")


def restart(stack: ComposedStack, services: Sequence[str]) -> None:
    """Restart services one after the other, each until it is healthy again."""
    for service in services:
        stack.restart(service)


def check_restarts(stack: ComposedStack, services: Sequence[str]) -> None:
    """Every container comes back, and VictoriaMetrics has what it had."""
    # Long enough ago that all has arrived, and at the end of an interval: of each, VictoriaMetrics keeps
    # the last sample alone once it merges, and a moment within one would lose what it shows now.
    moment = str((time.time() - _ARRIVED_SECONDS) // _INTERVAL_SECONDS * _INTERVAL_SECONDS)
    url = stack.url("victoria-metrics", 8428)
    kept: Callable[[], float | None] = lambda: value(url, _QUERIES, time=moment)  # noqa: E731
    before = kept()
    restart(stack, services)
    require(before is not None and kept() == before, f"{before} queries at {moment}, found {kept()}")


def _is(alert: dict[str, object], name: str) -> bool:
    labels = alert["labels"]
    return isinstance(labels, dict) and labels["alertname"] == name
