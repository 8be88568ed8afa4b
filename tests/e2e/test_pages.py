"""The reference service is broken in each way that has a page: the right one comes, once, and its resolution.

And nothing pages while all is well: live traffic, a deploy's restart, a load test, a restart of Prometheus.
Three stacks stand side by side, because most of a page's time is waiting: one fails, one hangs, to one nobody
comes.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import subprocess
import threading
import time
from contextlib import contextmanager
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


@dataclass
class Three:
    """The three stacks."""

    failing: Watched
    hanging: Watched
    deserted: Watched


def hang(stack: Watched) -> None:
    """The model never answers and nothing has a deadline: nothing fails, nothing finishes."""
    stack.upstream("timeout")
    stack.asking.set()


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, index_directory: Path) -> Iterator[Three]:
    directory = tmp_path_factory.mktemp("pages")
    no_deadlines = (
        "query.deadline_seconds=3600",
        "lightrag.timeout_seconds=3600",
        "lightrag.model_timeout_seconds=3600",
    )
    options = tuple(word for change in no_deadlines for word in ("--set", change))
    with (
        watched(directory / "failing", index_directory) as failing,
        watched(directory / "hanging", index_directory, service_options=options) as hanging,
        watched(directory / "deserted", index_directory, before=a_week_of_history) as deserted,
    ):
        hang(hanging)
        yield Three(failing, hanging, deserted)


def expect(stack: Watched, before: list[str], name: str, text: str) -> dict[str, Any]:
    """Wait for a page of that name, the only new one, that says so."""
    wait_until(f"a page {name}", lambda: len(stack.incidents()) > len(before), patience_seconds=180)
    assert stack.incidents() == [*before, name]
    page = stack.pages("firing")[-1]
    assert page["labels"]["alertname"] == name
    assert page["labels"]["role"] == "symptom"
    assert re.search(text, page["annotations"]["description"]), page["annotations"]["description"]
    assert page["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"
    return page


def expect_resolution(stack: Watched, page: dict[str, Any], incidents: list[str]) -> None:
    """Wait for the resolution of that very page, and see that no other has come meanwhile."""
    wait_until(
        f"the resolution of {page['labels']['alertname']}",
        lambda: any(
            one["startsAt"] == page["startsAt"] and one["labels"] == page["labels"]
            for one in stack.pages("resolved")
        ),
        patience_seconds=180,
    )
    assert stack.incidents() == incidents


def test_the_prober_asks_beside_the_users(three: Three) -> None:
    """Nobody else has asked yet: its canaries are well, and counted under its own scenario alone."""
    stack = three.failing.stack
    prometheus = f"http://{health.LOOPBACK}:{stack.settings.ports.prometheus}"
    wait_until("a good canary", lambda: bool(query(prometheus, "min(cmo_probe_up) == 1")))
    assert query(prometheus, 'up{job="probe"} == 1')
    asked = query(prometheus, "cmo_queries_started_total > 0")
    assert {one["metric"]["scenario"] for one in asked} == {"probe"}


def test_nothing_pages_while_all_is_well(three: Three, tmp_path: Path) -> None:
    """Live traffic, a deploy's restart, a restart of Prometheus, and a load test that fails."""
    well = three.failing
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
    drive(well.stack, tmp_path, ["clinical_rush"])
    well.upstream(None)
    running = 'ALERTS{alertname="CMOLoadTestRunning",alertstate="firing"}'
    wait_until("the load test to be known", lambda: bool(query(prometheus, running)))
    assert well.incidents() == []


def test_failing_queries_page(three: Three) -> None:
    failing = three.failing
    failing.asking.set()
    failing.upstream("error")
    page = expect(failing, [], "CMOLiveQueriesFailing", r"^\d+(\.\d+)?% of live queries fail")
    failing.upstream(None)
    expect_resolution(failing, page, ["CMOLiveQueriesFailing"])


def test_slow_queries_page(three: Three) -> None:
    failing = three.failing
    before = failing.incidents()
    failing.asking.set()
    failing.upstream("slow")
    page = expect(failing, before, "CMOLiveQueriesSlow", r"^\d.*% of live queries take longer than 2 s")
    failing.upstream(None)
    expect_resolution(failing, page, [*before, "CMOLiveQueriesSlow"])


def test_nobody_comes_and_a_page_says_so(three: Three) -> None:
    deserted = three.deserted
    page = expect(deserted, [], "CMONoLiveTraffic", r"there were 400 in this hour last week")
    deserted.asking.set()
    expect_resolution(deserted, page, ["CMONoLiveTraffic"])


def test_a_service_that_is_gone_pages(three: Three) -> None:
    deserted = three.deserted
    before = deserted.incidents()
    deserted.stack.process("service").kill()
    page = expect(deserted, before, "CMOServiceDown", r"No instance of the service has been scraped for 1m")
    deserted.stack.process("service").start()
    expect_resolution(deserted, page, [*before, "CMOServiceDown"])


def test_the_hang_has_paged_and_is_over_when_answers_come(three: Three) -> None:
    hanging = three.hanging
    page = expect(hanging, [], "CMOLiveQueriesHanging", r"^\d+ live queries do not finish")
    hanging.upstream(None)
    hanging.restart("service")
    expect_resolution(hanging, page, ["CMOLiveQueriesHanging"])
