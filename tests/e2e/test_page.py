"""Live queries fail, on-call is paged; they recover, the page is resolved. All of it on real parts."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests
from cmo_stack import health, topology

from .conftest import query, running_stack, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cmo_stack.stack import Stack

ALERT = "CMOLiveQueriesFailing"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, index_directory: Path) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("page"), index_directory, "healthy") as running:
        yield running


class LiveUsers:
    """Eight people who ask one new question after another, none of it a load test's."""

    def __init__(self, stack: Stack) -> None:
        self._url = f"http://{health.LOOPBACK}:{stack.settings.ports.service}/query"
        self._numbers = itertools.count()

    def ask_some(self) -> list[str]:
        """Ask eight questions at once; their outcomes."""
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(self._ask, [next(self._numbers) for _ in range(8)]))

    def _ask(self, number: int) -> str:
        question = f"What does citrulline tell about gut mass in patient group {number}?"
        answer = requests.post(self._url, json={"question": question}, timeout=60)
        outcome: str = answer.json()["trail"]["outcome"]
        return outcome


def _set_upstream(stack: Stack, fail: str | None) -> None:
    url = f"http://{health.LOOPBACK}:{stack.settings.ports.upstream}/control"
    requests.put(url, json={"fail": fail}, timeout=10).raise_for_status()


def _pages(stack: Stack, status: str) -> list[dict[str, Any]]:
    log = topology.page_log(stack.settings)
    notifications = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [
        alert
        for notification in notifications
        for alert in notification["alerts"]
        if alert["labels"]["alertname"] == ALERT and alert["status"] == status
    ]


def test_failing_live_queries_page_once_and_resolve(stack: Stack) -> None:
    users = LiveUsers(stack)
    assert set(users.ask_some()) == {"success"}

    def paged() -> bool:
        users.ask_some()
        return bool(_pages(stack, "firing"))

    def resolved() -> bool:
        users.ask_some()
        return bool(_pages(stack, "resolved"))

    _set_upstream(stack, "error")
    wait_until("a page", paged)
    page = _pages(stack, "firing")[0]
    assert page["labels"]["severity"] == "page"
    assert page["annotations"]["summary"] == "Live queries are failing"
    assert "%" in page["annotations"]["description"], "the page says how bad it is"

    _set_upstream(stack, None)
    wait_until("the page's resolution", resolved)
    assert len({page["startsAt"] for page in _pages(stack, "firing")}) == 1, "one page for one outage"

    url = f"http://{health.LOOPBACK}:{stack.settings.ports.prometheus}"
    assert query(url, f'ALERTS{{alertname="{ALERT}"}}') == []
