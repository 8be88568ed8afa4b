"""The reference service is broken in each way that has a page: the right one comes, once, and its resolution.

And nothing pages while all is well: live traffic, a deploy's restart, a load test, a restart of Prometheus.
Most of a page's time is waiting, so three stacks go side by side through what happens to them: one is well,
then dies; one hangs, then is slow; to one nobody comes, then it fails. Each test is about one of these.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import subprocess
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import pytest
import requests
from cmo_slo import recorded
from cmo_stack import health, servers, topology
from cmo_stack.ports import Ports
from cmo_stack.stack import Stack, wait_until_scraped

from .conftest import drive, query, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

WEEK_SECONDS: Final = 7 * 86_400
USERS: Final = 8
PAUSE_SECONDS: Final = 0.4


@dataclass
class Watched:
    """A stack, the people who ask it, and what its pager has received."""

    stack: Stack
    users: list[threading.Thread] = field(default_factory=list)
    asking: threading.Event = field(default_factory=threading.Event)
    closed: threading.Event = field(default_factory=threading.Event)
    resolved_incidents: list[str] = field(default_factory=list)
    """What had been told when the last outage ended."""

    @property
    def url(self) -> str:
        return f"http://{health.LOOPBACK}:{self.stack.settings.ports.service}/query"

    def pages(self, status: str) -> list[dict[str, Any]]:
        """Alerts of severity page that the pager was told of, each of its notifications, oldest first."""
        log = topology.page_log(self.stack.settings)
        notifications = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [
            alert
            for notification in notifications
            for alert in notification["alerts"]
            if alert["status"] == status and alert["labels"].get("severity") == "page"
        ]

    def incidents(self) -> list[str]:
        """Names of the pages, each once for each time that it began."""
        begun = {(page["startsAt"], page["labels"]["alertname"]): None for page in self.pages("firing")}
        return [name for _, name in begun]

    def upstream(self, fail: str | None) -> None:
        url = f"http://{health.LOOPBACK}:{self.stack.settings.ports.upstream}/control"
        requests.put(url, json={"fail": fail}, timeout=10).raise_for_status()

    def start_users(self) -> None:
        """People who ask one new question after another, as long as ``asking`` is set."""
        numbers = itertools.count()

        def ask() -> None:
            while not self.closed.is_set():
                if not self.asking.wait(0.2):
                    continue
                question = f"What does citrulline tell about gut mass in group {next(numbers)}?"
                with contextlib.suppress(requests.RequestException):  # to be down is what some tests want
                    requests.post(self.url, json={"question": question}, timeout=900)
                self.closed.wait(PAUSE_SECONDS)

        for _ in range(USERS):
            thread = threading.Thread(target=ask, daemon=True)
            thread.start()
            self.users.append(thread)

    def restart(self, name: str) -> None:
        """Stop a part as a deploy does, and start it again."""
        process = self.stack.process(name)
        process.stop()
        process.start()


@contextmanager
def watched(
    directory: Path,
    index_directory: Path,
    *,
    service_options: tuple[str, ...] = (),
    before: Callable[[topology.Settings], None] = lambda _: None,
) -> Iterator[Watched]:
    """The stack of the healthy profile, scraped every second, with its users waiting to begin."""
    settings = topology.Settings(
        ports=Ports.choose({}, prefer_defaults=False),
        directory=directory,
        index_directory=index_directory,
        profile="healthy",
        scrape_interval_seconds=1,
    )
    before(settings)
    parts = [
        replace(part, command=(*part.command, *service_options)) if part.name == "service" else part
        for part in topology.parts(settings)
    ]
    started = time.time()
    with Stack(settings, chosen=parts) as stack:
        wait_until_scraped(settings, started)
        found = Watched(stack)
        found.start_users()
        try:
            yield found
        finally:
            found.closed.set()


def a_week_of_history(settings: topology.Settings) -> None:
    """What Prometheus would remember: a busy hour a week ago, and that nobody has asked for a while.

    Backfilled by promtool as samples of the recorded series that the page looks at.
    """
    data = settings.directory / "prometheus"
    data.mkdir(parents=True)
    now = int(time.time())
    live = 'slo="cmo-015",scenario="live"'
    hour = f'scenario:slo_total_events:sum{{{live},objective="success",window="1h"}}'
    started = f'{recorded.STARTED_QUERIES}{{{live},job="cmo",instance="before"}}'
    lines = ["# TYPE scenario:slo_total_events:sum gauge"]
    a_week_ago = now - WEEK_SECONDS
    lines += [f"{hour} 400 {moment}" for moment in range(a_week_ago - 3600, a_week_ago + 7200, 60)]
    lines += [f"# TYPE {recorded.STARTED_QUERIES} gauge"]
    lines += [f"{started} 0 {moment}" for moment in range(now - 1200, now, 1)]
    (settings.directory / "history.om").write_text("\n".join([*lines, "# EOF", ""]))
    promtool = servers.newest("promtool")
    command = [str(promtool.path), "tsdb", "create-blocks-from", "openmetrics", "history.om", "prometheus"]
    subprocess.run(command, cwd=settings.directory, check=True, capture_output=True, timeout=120)


@dataclass(frozen=True)
class Outage:
    """What the pager was told of one outage: incidents before it, the page, and incidents at its end."""

    before: list[str]
    page: dict[str, Any]
    after: list[str]


@dataclass(frozen=True)
class Courses:
    """What happens to the three stacks; each step begins when the one before it on its stack has ended."""

    probed: Future[set[str]]
    well: Future[list[str]]
    failing: Future[Outage]
    slow: Future[Outage]
    deserted: Future[Outage]
    gone: Future[Outage]
    hanging: Future[Outage]


def outage(stack: Watched, mend: Callable[[], object]) -> Outage:
    """Wait for a page, mend what is broken, and wait for the resolution of that very page."""
    before = stack.resolved_incidents
    wait_until("a page", lambda: len(stack.incidents()) > len(before), patience_seconds=180)
    page = stack.pages("firing")[-1]
    mend()
    wait_until(
        f"the resolution of {page['labels']['alertname']}",
        lambda: any(
            one["startsAt"] == page["startsAt"] and one["labels"] == page["labels"]
            for one in stack.pages("resolved")
        ),
        patience_seconds=180,
    )
    stack.resolved_incidents = stack.incidents()
    return Outage(before, page, stack.resolved_incidents)


def be_probed(stack: Watched) -> set[str]:
    """Wait until the prober finds all canaries well; returns the scenarios that anybody has asked under."""
    prometheus = f"http://{health.LOOPBACK}:{stack.stack.settings.ports.prometheus}"
    well = 'min(cmo_probe_up) == 1 and on () up{job="probe"} == 1'
    wait_until("good canaries", lambda: bool(query(prometheus, well)))
    asked = query(prometheus, "cmo_queries_started_total > 0")
    return {one["metric"]["scenario"] for one in asked}


def stay_well(well: Watched, directory: Path) -> list[str]:
    """Live traffic, a deploy's restart, a restart of Prometheus, a failing load test; returns incidents."""
    prometheus = f"http://{health.LOOPBACK}:{well.stack.settings.ports.prometheus}"
    well.asking.set()

    def answered() -> float:
        count = 'sum(cmo_queries_total{scenario="live",outcome="success"}) or vector(0)'
        (found,) = query(prometheus, count)
        return float(found["value"][1])

    wait_until("live traffic", lambda: answered() >= 20)
    well.restart("service")
    wait_until("live traffic after the restart", lambda: answered() >= 20)
    well.restart("prometheus")
    wait_until("scrapes after the restart", lambda: bool(query(prometheus, 'up{job="cmo"} == 1')))
    well.asking.clear()
    well.upstream("error")  # so that every query of the load test fails
    drive(well.stack, directory, ["clinical_rush"])
    well.upstream(None)
    running = 'ALERTS{alertname="CMOLoadTestRunning",alertstate="firing"}'
    wait_until("the load test to be known", lambda: bool(query(prometheus, running)))
    return well.incidents()


def fail(stack: Watched, how: str) -> Outage:
    """The model fails in some way while users ask."""
    stack.asking.set()
    stack.upstream(how)
    return outage(stack, lambda: stack.upstream(None))


def hang(stack: Watched) -> Outage:
    """The model never answers and nothing has a deadline: nothing fails, nothing finishes."""
    stack.upstream("timeout")
    stack.asking.set()

    def mend() -> None:
        stack.upstream(None)
        service = stack.stack.process("service")
        service.kill()  # it would wait for those that hang
        service.start()

    return outage(stack, mend)


def die(stack: Watched) -> Outage:
    """The service is killed, and started again when that has been told."""
    stack.asking.set()
    service = stack.stack.process("service")
    service.kill()
    return outage(stack, service.start)


@pytest.fixture(scope="module")
def courses(tmp_path_factory: pytest.TempPathFactory, index_directory: Path) -> Iterator[Courses]:
    directory = tmp_path_factory.mktemp("pages")
    no_deadlines = (
        "query.deadline_seconds=3600",
        "lightrag.timeout_seconds=3600",
        "lightrag.model_timeout_seconds=3600",
    )
    options = tuple(word for change in no_deadlines for word in ("--set", change))
    # All courses end before any stack does. The longest begins first, while the next stack starts.
    with ExitStack() as stacks, ExitStack() as threads:

        def begin(stack: AbstractContextManager[Watched]) -> tuple[Watched, ThreadPoolExecutor]:
            return stacks.enter_context(stack), threads.enter_context(one_after_another())

        hung, steps = begin(watched(directory / "hung", index_directory, service_options=options))
        hanging = steps.submit(hang, hung)
        slow = steps.submit(fail, hung, "slow")
        lonely, steps = begin(watched(directory / "lonely", index_directory, before=a_week_of_history))
        deserted = steps.submit(outage, lonely, lonely.asking.set)
        failing = steps.submit(fail, lonely, "error")
        fit, steps = begin(watched(directory / "fit", index_directory))
        probed = steps.submit(be_probed, fit)
        well = steps.submit(stay_well, fit, directory)
        gone = steps.submit(die, fit)
        yield Courses(probed, well, failing, slow, deserted, gone, hanging)


@contextmanager
def one_after_another() -> Iterator[ThreadPoolExecutor]:
    """A thread for the steps of one stack; those that have not begun when the tests are over never do."""
    executor = ThreadPoolExecutor(max_workers=1)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def assert_paged_once(found: Outage, name: str, text: str) -> None:
    """That page and no other has come, it says so, and nothing but its resolution has followed."""
    assert found.after == [*found.before, name]
    page = found.page
    assert page["labels"]["alertname"] == name
    assert page["labels"]["role"] == "symptom"
    assert re.search(text, page["annotations"]["description"]), page["annotations"]["description"]
    assert page["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"


def test_the_prober_asks_beside_the_users(courses: Courses) -> None:
    """Nobody else has asked yet: its canaries are counted under its own scenario alone."""
    assert courses.probed.result() == {"probe"}


def test_nothing_pages_while_all_is_well(courses: Courses) -> None:
    assert courses.well.result() == []


def test_failing_queries_page(courses: Courses) -> None:
    assert_paged_once(
        courses.failing.result(), "CMOLiveQueriesFailing", r"^\d+(\.\d+)?% of live queries fail"
    )


def test_slow_queries_page(courses: Courses) -> None:
    text = r"^\d.*% of live queries take longer than 2 s"
    assert_paged_once(courses.slow.result(), "CMOLiveQueriesSlow", text)


def test_nobody_comes_and_a_page_says_so(courses: Courses) -> None:
    text = r"there were 400 in this hour last week"
    assert_paged_once(courses.deserted.result(), "CMONoLiveTraffic", text)


def test_a_service_that_is_gone_pages(courses: Courses) -> None:
    text = r"No instance of the service has been scraped for 1m"
    assert_paged_once(courses.gone.result(), "CMOServiceDown", text)


def test_a_hang_pages_and_is_over_when_answers_come(courses: Courses) -> None:
    text = r"^\d+ live queries do not finish"
    assert_paged_once(courses.hanging.result(), "CMOLiveQueriesHanging", text)
