"""What `test_live.py` runs: a Prometheus that scrapes its exposition, an Alertmanager and a pager."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import requests
import yaml
from cmo_slo.compile import compile_rules
from cmo_slo.rule import as_document
from cmo_stack import health, servers
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cmo_dashboards import PanelQuery
    from cmo_slo.model import Objectives
    from cmo_stack.servers import Server

SCRAPE: Final = "500ms"
RECORDED_BY_NOW_SECONDS: Final = 1.0
"""Rules record one series after the other; at a moment this long ago none of a ratio's is missing."""

Series = list[tuple[dict[str, str], list[float]]]
Values = dict[str, Series]


class Asker:
    """The HTTP interface of one Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/-/ready", timeout=5).ok
        except requests.RequestException:
            return False

    def ask(self, query: PanelQuery, now: float) -> Series:
        if query.instant:
            result = self._get("query", {"query": query.expression, "time": now})
            return [(item["metric"], [float(item["value"][1])]) for item in result]
        asked: dict[str, str | float] = {
            "query": query.expression,
            "start": now - 30,
            "end": now,
            "step": 0.5,
        }
        result = self._get("query_range", asked)
        return [(item["metric"], [float(value) for _, value in item["values"]]) for item in result]

    def ask_all(self, asked: Sequence[PanelQuery]) -> Values:
        """At one moment, so that what is counted in two places is the same."""
        now = time.time() - RECORDED_BY_NOW_SECONDS
        return {query.place: self.ask(query, now) for query in asked}

    def _get(self, path: str, arguments: dict[str, str | float]) -> list[dict[str, Any]]:
        answer = requests.post(f"{self.url}/api/v1/{path}", data=arguments, timeout=30)
        assert answer.ok, f"{arguments['query']}: {answer.text}"
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found


@contextmanager
def watching(server: Server, target: str, objectives: Objectives, folder: Path) -> Iterator[Asker]:
    """A Prometheus that scrapes the exposition, itself and an Alertmanager; two alerts fire under load."""
    with (
        _pager(folder) as pager,
        _alertmanager(folder, pager) as alertmanager,
        _prometheus(server, target, alertmanager, objectives, folder) as asker,
    ):
        yield asker


@contextmanager
def _pager(folder: Path) -> Iterator[str]:
    """The pager of the stack; where it is paged."""
    port = free_port()
    command = [sys.executable, "-m", "cmo_stack.pager", f"--port={port}", f"--log={folder / 'pages.jsonl'}"]
    with ManagedProcess(
        "pager", command, log_path=folder / "pager.log", ready=lambda: health.answers(port, "/healthz")
    ):
        yield f"http://127.0.0.1:{port}/page"


@contextmanager
def _alertmanager(folder: Path, pager: str) -> Iterator[str]:
    """The newest Alertmanager, which sends the pager whatever fires, but seeded alerts as to a Slack."""
    server, port = servers.newest("alertmanager"), free_port()
    for_slack = {"receiver": "slack", "matchers": ['alertname=~"CMOSeeded.+"']}
    often = {"group_wait": "0s", "group_interval": "1s", "repeat_interval": "1s"}
    configuration = {
        "route": {"receiver": "pager", **often, "routes": [for_slack]},
        "receivers": [
            {"name": "pager", "webhook_configs": [{"url": pager}]},
            {"name": "slack", "slack_configs": [{"api_url": pager, "channel": "pages"}]},
        ],
    }
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(configuration))
    command = [
        str(server.path),
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'notifications'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with _process(server, command, folder, port):
        yield f"127.0.0.1:{port}"


@contextmanager
def _prometheus(
    server: Server, target: str, alertmanager: str, objectives: Objectives, folder: Path
) -> Iterator[Asker]:
    port = free_port()
    jobs = {"cmo": target, "prometheus": f"127.0.0.1:{port}", "alertmanager": alertmanager}
    (folder / "prometheus.yml").write_text(_configuration(jobs))
    (folder / "alert.yml").write_text(_alert())
    (folder / "recorded.yml").write_text(_recorded(objectives))
    command = [
        str(server.path),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with _process(server, command, folder, port):
        yield Asker(f"http://127.0.0.1:{port}")


def _process(server: Server, command: list[str], folder: Path, port: int) -> ManagedProcess:
    return ManagedProcess(
        server.label,
        command,
        log_path=folder / f"{server.name}.log",
        ready=Asker(f"http://127.0.0.1:{port}").ready,
        environment=server.environment,
    )


def _configuration(jobs: dict[str, str]) -> str:
    intervals = {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": SCRAPE}
    # One exposition stands for the service and for the prober: a second scrape of it would be a second step.
    of_the_prober = {
        "source_labels": ["__name__"],
        "regex": "cmo_probe_.+",
        "target_label": "job",
        "replacement": "probe",
    }
    scrapes = [
        {
            "job_name": job,
            "static_configs": [{"targets": [address]}],
            "metric_relabel_configs": [of_the_prober],
        }
        for job, address in jobs.items()
    ]
    told = {"alertmanagers": [{"static_configs": [{"targets": [jobs["alertmanager"]]}]}]}
    return yaml.safe_dump(
        {
            "global": intervals,
            "rule_files": ["alert.yml", "recorded.yml"],
            "scrape_configs": scrapes,
            "alerting": told,
        }
    )


def _recorded(objectives: Objectives) -> str:
    """The rules that the panels read from, for this scrape interval, without roll-ups and tickets.

    A roll-up that was due between idle and busy would make long windows empty until the next, in an hour.
    Tickets are due once a minute, and a machine that is too busy for this has one when the service is idle.
    """
    document = as_document(compile_rules(objectives, SCRAPE))
    without = ("-hourly", "-tickets")
    document["groups"] = [group for group in document["groups"] if not group["name"].endswith(without)]
    return yaml.safe_dump(document)


def _alert() -> str:
    alerts = [
        {
            "alert": f"CMOSeeded{severity.capitalize()}",
            "expr": 'cmo_queries_in_progress{scenario="live"} > 0',
            "labels": {"severity": severity, "role": role},
        }
        for severity, role in (("page", "symptom"), ("ticket", "monitoring"))
    ]
    return yaml.safe_dump({"groups": [{"name": "seeded", "rules": alerts}]})
