"""The stack without a profile, and profile ``load``: confined, loaded, judged, paging, keeping its data."""

from __future__ import annotations

import functools
import itertools
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from .compose_file import GRAFANA, SERVERS
from .running_stack import ComposedStack, get, post, value, wait_for
from .stand_ins import NO_STAND_IN
from .telling import require, step, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_OPERATIONS_OF_CLINICAL_RUSH: Final = 300
_LARGEST_IMAGE_MEGABYTES: Final = 600
"""Most of it is LightRAG with all that it needs. The base is made of whole Debian packages here."""
_LIST_INSTALLERS: Final = """
for python in $(find / -xdev -regex '.*/bin/python[0-9.]*' 2>/dev/null); do
    modules=$($python -c 'import importlib.util as u; print(*filter(u.find_spec, ("pip", "ensurepip")))')
    echo "$python:$modules"
done
for pip in $(find / -xdev -regex '.*/bin/pip[0-9.]*' 2>/dev/null); do echo "$pip:a program"; done
"""
"""Lists each Python of an image with the modules by which it installs packages, and each pip."""
_ASKING_AT_ONCE: Final = 8
_QUESTION_KEPT: Final = "Which metabolites are kept over a restart?"


def prove(stack: ComposedStack) -> None:
    """Prove the small stack.

    Raises:
        NotProvedError: something is not as it should be.
    """
    services = [*SERVERS, *([GRAFANA] if stack.engine.has_registry else [])]
    with step("Building our image from the Dockerfile"):
        stack.compose("build", "--quiet", "service")
        check_image(stack)
    with step("docker compose up, until every service is healthy"):
        stack.up(services)
        check_whole(f"{stack.url('service', 8000)}")
        check_password(stack)
        check_confined(stack)
    with step("docker compose run load: the load test, and a verdict"):
        check_verdict(stack.compose("run", "--rm", "--no-TTY", "load", may_fail=True))
    with step("The upstream is stopped, until a page comes"):
        page(stack, "service")
    with step("Restarting every container in turn"):
        for service in services:
            stack.restart(service)
    with step("docker compose down, and up again: what was kept?"):
        check_data_survives(stack, services)
    stack.compose("down", "--timeout", "5")
    if not stack.engine.has_registry:
        tell(
            f"Not run, for want of a package: {', '.join(sorted(NO_STAND_IN))}; its files are tested instead."
        )


def check_image(stack: ComposedStack) -> None:
    """Our image runs as nobody in particular, says whether it is well, and brings no installer."""
    image = "cmo-observability:0.1.0"
    seen = stack.engine.docker(
        "inspect", "--format", "{{.Config.User}} {{if .Config.Healthcheck}}checked{{end}}", image
    )
    require(seen.split() == ["10001:10001", "checked"], f"user and health check of {image}, found {seen!r}")
    megabytes = int(stack.engine.docker("inspect", "--format", "{{.Size}}", image)) / 1e6
    tell(f"our image has {megabytes:.0f} MB, its base included")
    require(megabytes < _LARGEST_IMAGE_MEGABYTES, f"at most {_LARGEST_IMAGE_MEGABYTES} MB")
    options = ("run", "--rm", "--network=none", "--read-only", image)
    listed = stack.engine.docker(*options, "sh", "-c", _LIST_INSTALLERS).splitlines()
    installers = dict(line.split(":") for line in listed)
    require(
        {"/opt/cmo/bin/python", "/usr/local/bin/python"} <= set(installers) and not any(installers.values()),
        f"our Python and the base's, and no installer of packages in any, found {installers}",
    )
    require(
        "--prometheus-url" in stack.engine.docker(*options, "cmo", "check", "--help"), "cmo runs in the image"
    )


def check_whole(service_url: str) -> None:
    """The service has its engine and all three tiers of its cache; it would answer without them."""
    said = get(f"{service_url}/readyz") or {}
    require(said.get("ready") and not said["degraded"], f"a service of which every part works, found {said}")
    tiers = [said["parts"][f"cache_{tier}"] for tier in ("l1", "l2", "l3")]
    require(tiers == ["ok"] * len(tiers), f"three tiers of cache, found {said['parts']}")


def check_password(stack: ComposedStack) -> None:
    """Grafana's password is made once, is long, and can be read by Grafana alone."""
    first = stack.compose("run", "--rm", "--no-TTY", "grafana-password").output
    require("password" in first, f"a password was made or is there, found {first!r}")
    again = stack.compose("run", "--rm", "--no-TTY", "grafana-password").output
    require("there already" in again, f"the second start leaves the password alone, found {again!r}")
    look = ("stat", "--format=%s %a %u", "/var/lib/grafana-password/password")
    seen = stack.compose("run", "--rm", "--no-TTY", "grafana-password", *look).output
    require(seen.split() == ["32", "400", "472"], f"32 characters for user 472 alone, found {seen!r}")


def check_confined(stack: ComposedStack) -> None:
    """What docker-compose.yml asks of the engine, the engine does."""
    for service, container in stack.containers().items():
        host: Mapping[str, Any] = container["HostConfig"]
        user = str(container["Config"]["User"]).partition(":")[0]
        require(user.isdigit() and int(user) > 0, f"{service} runs as another user than root, found {user!r}")
        require(host["ReadonlyRootfs"], f"{service} has a read-only root")
        require(host["CapDrop"] == ["ALL"] and not host["CapAdd"], f"{service} has no capability")
        require("no-new-privileges:true" in host["SecurityOpt"], f"{service} gains no privilege")
        require(host["Memory"] > 0, f"{service} has a limit of memory")
        for bindings in (host["PortBindings"] or {}).values():
            published = {binding["HostIp"] for binding in bindings}
            require(
                published == {"127.0.0.1"}, f"{service} is published on loopback alone, found {published}"
            )
        require(container["State"]["Health"]["Status"] == "healthy", f"{service} is healthy")


def check_verdict(done: Any) -> None:
    """A verdict, whichever it is, on every operation that was offered."""
    require(
        done.status in (0, 1, 2),
        f"a verdict's exit status, found {done.status}:\n{done.output}{done.errors[-1500:]}",
    )
    counted = re.search(rf"\b(\d+) of {_OPERATIONS_OF_CLINICAL_RUSH}\b", done.output)
    require(counted, f"all {_OPERATIONS_OF_CLINICAL_RUSH} operations are counted:\n{done.output}")
    judged = re.search(r"^Success rate .*\b(PASS|WARN|FAIL)\b", done.output, re.MULTILINE)
    require(judged, f"the success of the one scenario is judged:\n{done.output}")
    outcome = re.search(r"\b(NON-COMPLIANT|COMPLIANT|INCONCLUSIVE)\b", done.output)
    require(outcome, f"a verdict:\n{done.output}")
    tell(
        f"{outcome and outcome[1]} (exit status {done.status}), with {counted and counted[0]} that succeeded"
    )


def page(stack: ComposedStack, service: str, meanwhile: Callable[[], None] = lambda: None) -> str:
    """Stop the model, ask until somebody is paged, start it again; the page's name.

    ``meanwhile`` happens to the stack while questions are asked.
    """
    pager, asked = stack.url("pager", 8095), stack.url(service, 8000)
    before = len(pages(pager))
    stack.compose("stop", "--timeout", "5", "upstream")
    count = itertools.count(1)

    def ask(_: int) -> None:
        question = f"Which pathway is number {next(count)} of {time.time()}?"
        post(f"{asked}/query", {"question": question})

    def paged() -> bool:
        return len(pages(pager)) > before

    with ThreadPoolExecutor(_ASKING_AT_ONCE + 1) as pool:
        happening = pool.submit(meanwhile)
        while_waiting = functools.partial(pool.map, ask, range(_ASKING_AT_ONCE))
        wait_for(lambda: paged() or (list(while_waiting()) and paged()), "a page, with the upstream stopped")
        happening.result()
    name = str(pages(pager)[-1]["labels"]["alertname"])
    tell(f"paged {name} after {next(count) - 1} questions without a model")
    stack.up(["upstream"])
    return name


def pages(pager_url: str) -> list[dict[str, Any]]:
    """Every alert that has paged, the oldest first, once for each notification that says it fires."""
    notifications = (get(f"{pager_url}/pages") or {"pages": []})["pages"]
    return [
        alert
        for notification in notifications
        if notification.get("receiver") == "pager"
        for alert in notification["alerts"]
        if alert["status"] == "firing"
    ]


def silence(alertmanager_url: str) -> str:
    """Make a silence of an alert that there is not; its id."""
    made = post(
        f"{alertmanager_url}/api/v2/silences",
        {
            "matchers": [{"name": "alertname", "value": "KeptOverARestart", "isRegex": False}],
            "startsAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "endsAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600)),
            "createdBy": "proof",
            "comment": "whether it survives",
        },
    )
    return str((made or {}).get("silenceID", ""))


def check_data_survives(stack: ComposedStack, services: list[str]) -> None:
    """Samples, silences, pages and cached answers are there after ``down`` and ``up``."""
    ask = {"question": _QUESTION_KEPT}
    prometheus, alertmanager = stack.url("prometheus", 9090), stack.url("alertmanager", 9093)
    answered = post(f"{stack.url('service', 8000)}/query", ask)
    require(answered and answered["trail"]["outcome"] == "success", f"an answer, found {answered}")
    kept_silence = silence(alertmanager)
    moment = str(time.time())
    query = 'sum(cmo_queries_total{job="cmo"})'
    wait_for(lambda: value(prometheus, query, time=moment), "samples of the service in Prometheus")
    samples = value(prometheus, query, time=moment)
    paged = len(pages(stack.url("pager", 8095)))

    stack.compose("down", "--timeout", "10")
    stack.up(services)

    found = value(prometheus, query, time=moment)
    require(
        samples is not None and found == samples,
        f"{samples} queries at {moment} in Prometheus, found {found}",
    )
    silences = [each["id"] for each in get(f"{alertmanager}/api/v2/silences") or []]
    require(kept_silence in silences, "the silence is there")
    require(len(pages(stack.url("pager", 8095))) >= paged > 0, "the pages are there")
    again = post(f"{stack.url('service', 8000)}/query", ask)
    require(
        again and again["trail"]["source"] == "cache",
        f"the answer comes from the cache on disk, found {again}",
    )
