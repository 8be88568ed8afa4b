"""Two instances of a service, each with several workers, are added up as Prometheus does it: by `sum`."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

import pytest

from .servers import Service, ready, serving, total

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .servers import Samples

    Eventually = Callable[[Callable[[], object]], None]

WORKERS = 2
SCRAPES = 8


@pytest.fixture(scope="module")
def instances(
    tmp_path_factory: pytest.TempPathFactory, eventually: Eventually
) -> Iterator[tuple[Service, Service]]:
    """As on two machines: nothing is shared, neither a directory nor a port."""
    first, second = Service(), Service()
    with contextlib.ExitStack() as running:
        for service in (first, second):
            directory = tmp_path_factory.mktemp("instance")
            running.enter_context(serving("gunicorn --preload", service, directory, workers=WORKERS))
        for service in (first, second):
            eventually(functools.partial(ready, service, WORKERS))
        yield first, second


def summed(scrapes: tuple[Samples, ...], name: str, **labels: str) -> float:
    return sum(total(samples, name, **labels) for samples in scrapes)


def is_counted(service: Service, times: int) -> bool:
    return service.total("cmo_queries_total", scenario="live") == times


def test_the_sum_over_instances_is_what_all_were_asked(
    instances: tuple[Service, Service], eventually: Eventually
) -> None:
    asked = (30, 50)
    for service, times in zip(instances, asked, strict=True):
        for _ in range(times):
            service.ask()
    eventually(lambda: all(map(is_counted, instances, asked)))
    for _ in range(SCRAPES):
        first, second = scrapes = tuple(service.samples() for service in instances)
        assert [total(samples, "cmo_queries_started_total") for samples in scrapes] == list(asked)
        for name in ("cmo_queries_total", "cmo_query_duration_seconds_count", "cmo_component_calls_total"):
            assert summed(scrapes, name, scenario="live") == sum(asked), name
        assert summed(scrapes, "http_server_request_duration_seconds_count") == sum(asked)
        # Each bucket by itself, as quantiles over instances need it.
        name = "cmo_query_duration_seconds_bucket"
        assert {labels for found, labels in first if found == name} == {
            labels for found, labels in second if found == name
        }
        assert summed(scrapes, name, scenario="live", outcome="success", le="+Inf") == sum(asked)


def test_a_user_of_two_instances_is_between_the_largest_and_the_sum(
    instances: tuple[Service, Service], eventually: Eventually
) -> None:
    first, second = instances

    def ask(service: Service, user: str) -> None:
        for _ in range(4):  # over several workers, where it is still one user
            service.ask(X_CMO_Session=user, X_CMO_Scenario="rush")

    def leave(service: Service, user: str, *, still_there: int) -> None:
        service.ask(X_CMO_Session=user, X_CMO_Scenario="rush", X_CMO_Session_End="1")
        # A worker lets a user go after it has sent the last byte.
        eventually(lambda: active(service) == still_there)

    def active(service: Service) -> float:
        return service.total("cmo_active_users", scenario="rush")

    def bounds() -> tuple[float, float]:
        """What `max` and `sum` over the instances say of the users, at whichever workers they are scraped."""
        found = {tuple(active(service) for service in instances) for _ in range(SCRAPES)}
        (users,) = found
        return max(users), sum(users)

    ask(first, "of-the-first")
    ask(second, "of-the-second")
    assert bounds() == (1, 2), "users who stay at an instance: the sum is exact"
    ask(first, "of-both")
    assert bounds() == (2, 3), "likewise"
    ask(second, "of-both")
    assert bounds() == (2, 4), "they are three"
    for service, user in ((first, "of-the-first"), (second, "of-the-second")):
        leave(service, user, still_there=1)
    assert bounds() == (1, 2), "one user, at both: the largest is exact"
    before, after = (tuple(service.samples() for service in instances) for _ in range(2))
    users, clocks = (
        [total(later, name) - total(earlier, name) for earlier, later in zip(before, after, strict=True)]
        for name in ("cmo_active_user_seconds_total", "cmo_active_user_clock_seconds_total")
    )
    assert users == pytest.approx(clocks, rel=1e-6), "each has one, whom it has had all the time"
    leave(first, "of-both", still_there=0)
    assert bounds() == (1, 1), "who leaves one is still at the other"
