"""docs/existing-prometheus.md, done as its reader does it: every block in its order, on real servers.

The reader's own Prometheus, Alertmanager and service run before the page begins. Blocks are taken from the
page: a ``yaml`` block with a title is merged into that file, ``sh`` blocks must succeed (``sh verdict`` may
end with a verdict), and below each ``$`` of a ``console`` block stands what the command prints, at the latest
when servers have done what it waits for. Ports and folders of the page are replaced on the way in, and put
back on the way out.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
import yaml
from cmo_dashboards.building import build_dashboards
from cmo_dashboards.finish import text_of
from cmo_dashboards.promised import scraped_jobs, with_runbooks
from cmo_dashboards.shipped import file_name
from cmo_slo.objectives import load_objectives
from cmo_stack import servers
from cmo_stack.free_ports import free_port
from cmo_stack.process import ManagedProcess

from .listening import Listening, listening
from .watched_service import answering_service, command_of_this_checkout, instant, prometheus, until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/existing-prometheus.md").read_text()
PRODUCTION: dict[str, Any] = yaml.safe_load((ROOT / "alertmanager/production.yml").read_text())
PROMETHEUS, ALERTMANAGER, SERVICE, METRICS = "9090", "9093", "8000", "9464"
VERDICTS = (0, 1, 2)
PATIENCE_SECONDS = 120.0
POLL_SECONDS = 0.2
SECTIONS = (
    "1. Scrape the service",
    "2. Load the rules",
    "3. Tell people",
    "4. See it",
    "5. Judge a load test",
    "Mimir, Thanos, VictoriaMetrics",
)
_BLOCK = re.compile(
    r'^```(?P<language>\w+)(?: (?P<role>verdict)| title="(?P<title>[\w./-]+)")?\n(?P<text>.*?)^```$',
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of the page."""

    language: str
    role: str
    title: str
    text: str

    @property
    def console(self) -> list[tuple[str, str]]:
        """Each command, and what stands below it."""
        parts = re.split(r"^\$ ", self.text.replace("\\\n", ""), flags=re.M)[1:]
        return [(command, printed) for command, _, printed in (part.partition("\n") for part in parts)]


def blocks(page: str) -> list[Block]:
    """Every block, in order; one that is written in another way is a mistake of the page."""
    found = [
        Block(**{key: value or "" for key, value in match.groupdict().items()})
        for match in _BLOCK.finditer(page)
    ]
    assert page.count("```") == 2 * len(found), "a fence that is not understood"
    return found


def merged(theirs: Any, ours: Any) -> Any:
    """The reader's file with a block of the page in it: what the page says stands first.

    A scrape job of a name that the page has, too, is taken from the page.
    """
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return {
            key: merged(theirs[key], ours[key]) if key in theirs and key in ours else {**ours, **theirs}[key]
            for key in {**theirs, **ours}
        }
    if isinstance(theirs, list) and isinstance(ours, list):
        jobs = {one["job_name"] for one in ours if "job_name" in one}
        return [*ours, *(one for one in theirs if "job_name" not in one or one["job_name"] not in jobs)]
    raise AssertionError(f"the page says {ours!r} where the reader already has {theirs!r}")


@dataclass(frozen=True)
class Reader:
    """Somebody at a shell in a checkout; ``inside`` and ``outside`` translate ports and folders."""

    folder: Path
    ports: dict[str, str]
    environment: dict[str, str]

    def inside(self, text: str) -> str:
        text = re.sub(r"/etc(?=/(prometheus|alertmanager|grafana)\b)", f"{self.folder}/etc", text)
        return re.sub(rf"\b({'|'.join(self.ports)})\b", lambda port: self.ports[port[1]], text)

    def outside(self, text: str) -> str:
        text = text.replace(f"{self.folder}/etc", "/etc")
        shown = {real: port for port, real in self.ports.items()}
        text = re.sub(rf"\b({'|'.join(shown)})\b", lambda port: shown[port[1]], text)
        text = re.sub(r"^Warning: --config.file flag overrides.*\n", "", text, flags=re.M)
        return re.sub(r"@\[[\d.]+\]", "@[0]", text)

    def run(self, commands: str) -> subprocess.CompletedProcess[str]:
        """What a shell does that stops at the first failure."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.inside(commands)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )

    def sees(self, command: str, printed: str) -> None:
        """The command prints that, now or once servers have got so far."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            done = self.run(command)
            shown = self.outside(done.stdout).strip()
            if shown == printed.strip():
                return
            assert time.monotonic() < deadline, f"$ {command}\nthe page:\n{printed}\nin truth:\n{shown}"
            time.sleep(POLL_SECONDS)

    def file(self, path: str) -> Path:
        return Path(self.inside(path))

    def merges(self, path: str, ours: Any) -> None:
        file = self.file(path)
        file.write_text(yaml.safe_dump(merged(yaml.safe_load(file.read_text()), ours), sort_keys=False))

    def does(self, block: Block) -> None:
        if block.language == "yaml":
            self.merges(block.title, yaml.safe_load(self.inside(block.text)))
        elif block.language == "console":
            for command, printed in block.console:
                self.sees(command, printed)
        else:
            assert block.language == "sh", block
            done = self.run(block.text)
            assert done.returncode in (VERDICTS if block.role == "verdict" else (0,)), (
                f"{block.text}\n{done.stdout}"
            )


def _their_prometheus(ports: dict[str, str]) -> dict[str, Any]:
    own, alerts = f"127.0.0.1:{ports[PROMETHEUS]}", f"127.0.0.1:{ports[ALERTMANAGER]}"
    return {
        "global": {"scrape_interval": "15s"},
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alerts]}]}]},
        "rule_files": [],
        "scrape_configs": [
            {"job_name": "prometheus", "static_configs": [{"targets": [own]}]},
            {"job_name": "database", "static_configs": [{"targets": ["127.0.0.1:1"]}]},
        ],
    }


def _their_alertmanager(heard: Listening) -> dict[str, Any]:
    return {
        "route": {
            "receiver": "everybody",
            "routes": [{"receiver": "database", "matchers": ['team="database"']}],
        },
        "receivers": [
            {"name": name, "webhook_configs": [{"url": f"{heard.url}/{name}"}]}
            for name in ("everybody", "database")
        ],
    }


def _filled_in(heard: Listening) -> dict[str, Any]:
    """The receivers of production.yml by their names, filled in by a reader who has webhooks alone."""
    names = [receiver["name"] for receiver in PRODUCTION["receivers"]]
    return {
        "receivers": [
            {"name": name, "webhook_configs": [{"url": f"{heard.url}/{name}"}]}
            if name != "nobody"
            else {"name": name}
            for name in names
        ]
    }


@contextlib.contextmanager
def _alertmanager(server: servers.Server, configuration: Path, folder: Path, port: str) -> Iterator[None]:
    def ready() -> bool:
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"http://127.0.0.1:{port}/-/ready", timeout=5).ok
        return False

    command = [
        str(server.path),
        f"--config.file={configuration}",
        f"--storage.path={folder / 'alertmanager-data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with ManagedProcess(
        server.label,
        command,
        log_path=folder / "alertmanager.log",
        ready=ready,
        environment=server.environment,
    ):
        yield


def _beside(prometheus_server: servers.Server) -> servers.Server:
    """The oldest Alertmanager beside the oldest Prometheus, else the newest."""
    found = sorted(servers.installed("alertmanager"), key=lambda server: server.version)
    oldest = min(servers.installed("prometheus"), key=lambda server: server.version)
    return found[0] if prometheus_server.version == oldest.version else found[-1]


def _checkout(folder: Path) -> None:
    """What the page needs of one, in a folder that commands may write to."""
    for room in ("alertmanager", "docs", "grafana", "slo_rules"):
        (folder / room).symlink_to(ROOT / room)
    for path in ("prometheus/rules", "alertmanager", "grafana/provisioning/dashboards"):
        (folder / "etc" / path).mkdir(parents=True)


def _environment(folder: Path, server: servers.Server) -> dict[str, str]:
    """A reader's: our command first, then the tools beside the server; no variable of a stack."""
    programs = command_of_this_checkout(folder / "bin")
    if shutil.which("curl") is None:
        (programs / "curl").symlink_to(Path(__file__).with_name("plain_curl.py"))
    path = os.pathsep.join([str(programs), str(server.path.parent), os.environ["PATH"]])
    ours = {key: value for key, value in os.environ.items() if not key.startswith("CMO_")}
    return {**ours, **server.environment, "PATH": path, "HOME": str(folder), "NO_COLOR": "1"}


def test_every_block_of_the_page_does_what_the_page_says(
    prometheus_server: servers.Server, tmp_path: Path
) -> None:
    _checkout(tmp_path)
    ports = {port: str(free_port()) for port in (PROMETHEUS, ALERTMANAGER, SERVICE, METRICS)}
    with contextlib.ExitStack() as stack:
        heard = stack.enter_context(listening())
        service = stack.enter_context(answering_service(tmp_path))
        ports |= {SERVICE: str(service.port), METRICS: str(service.metrics_port)}
        reader = Reader(tmp_path, ports, _environment(tmp_path, prometheus_server))
        configured = reader.file("/etc/prometheus/prometheus.yml")
        routed = reader.file("/etc/alertmanager/alertmanager.yml")
        configured.write_text(yaml.safe_dump(_their_prometheus(ports)))
        routed.write_text(yaml.safe_dump(_their_alertmanager(heard)))
        stack.enter_context(_alertmanager(_beside(prometheus_server), routed, tmp_path, ports[ALERTMANAGER]))
        stack.enter_context(prometheus(prometheus_server, configured, tmp_path, int(ports[PROMETHEUS])))
        for block in blocks(PAGE):
            reader.does(block)
            if block.title == "/etc/alertmanager/alertmanager.yml":  # the page says in words what to copy
                reader.merges(block.title, _filled_in(heard))
        until(lambda: "/dead-man" in heard.paths, "the watchdog at the dead-man")
        until(lambda: "/pager" in heard.paths, "the test page at the pager")
        _every_watched_job_is_scraped(reader)
        _nothing_of_theirs_is_lost(reader)
        _every_question_was_counted(json.loads((tmp_path / "verdict.json").read_text()))
        _the_dashboards_are_there(reader)
        assert "/everybody" not in heard.paths, "an alert of ours went their way"


def _nothing_of_theirs_is_lost(reader: Reader) -> None:
    test = "amtool config routes test --config.file=/etc/alertmanager/alertmanager.yml"
    reader.sees(f"{test} team=database", "database")
    reader.sees(f"{test} team=others", "everybody")
    jobs = [
        job["job_name"]
        for job in yaml.safe_load(reader.file("/etc/prometheus/prometheus.yml").read_text())["scrape_configs"]
    ]
    assert sorted(jobs) == ["alertmanager", "cmo", "database", "prometheus"]


def _every_watched_job_is_scraped(reader: Reader) -> None:
    """Else CMOScrapeFailing never ends; and over the interval that dashboards count by."""
    objectives = load_objectives(reader.file("/etc/prometheus/cmo-objectives.yml"))
    watched = set(scraped_jobs(objectives))
    scraped = yaml.safe_load(reader.file("/etc/prometheus/prometheus.yml").read_text())["scrape_configs"]
    intervals = {job["job_name"]: job.get("scrape_interval") for job in scraped}
    assert {name: intervals.get(name) for name in watched} == dict.fromkeys(watched, "1s")
    url = f"http://127.0.0.1:{reader.ports[PROMETHEUS]}"
    up = {series["metric"]["job"]: series["value"][1] for series in instant(url, "up")}
    assert {name: up.get(name) for name in watched} == dict.fromkeys(watched, "1")


def _every_question_was_counted(verdict: dict[str, Any]) -> None:
    (success,) = [one for one in verdict["objectives"] if one["name"] == "success"]
    (unit,) = [one for one in success["units"] if one["scope"] == "clinical_rush"]
    assert (unit["good"], unit["total"]) == (300, 300)


def _the_dashboards_are_there(reader: Reader) -> None:
    folder = reader.file("/etc/grafana/dashboards/cmo")
    (runbooks,) = set(re.findall(r"--runbooks-url (\S+)", PAGE))
    objectives = load_objectives(reader.file("/etc/prometheus/cmo-objectives.yml"))
    boards = build_dashboards(with_runbooks(objectives, runbooks)).dashboards
    linked = {file_name(board): text_of(board.document) for board in boards}
    assert "probe" not in "".join(re.findall(r"there should be [^.]+", linked["cmo-monitor.json"]))
    assert {path.name: path.read_text() for path in folder.iterdir()} == linked
    provisioned = yaml.safe_load(reader.file("/etc/grafana/provisioning/dashboards/cmo.yml").read_text())
    assert provisioned["providers"][0]["options"] == {"path": str(folder)}


def test_every_section_has_commands_and_none_is_outside_a_block_that_is_run() -> None:
    found = re.split(r"^## ", PAGE, flags=re.M)
    sections = {text.partition("\n")[0]: blocks(text) for text in found}
    assert {name for name, inner in sections.items() if inner} == set(SECTIONS)
    assert not re.findall(r"^    \S", _BLOCK.sub("", PAGE), re.M), "a block without a fence is run by nobody"


def test_commands_within_a_line_are_those_that_the_page_says_nobody_runs() -> None:
    within = re.findall(r"`([^`]+)`", _BLOCK.sub("", PAGE))
    program = re.compile(r"(?:\.|amtool|cp|curl|make|pip|promtool|sed|systemctl) |cmo (?:\w+ )+\S")
    assert [words for words in within if program.match(words)] == [
        "make setup",
        ". .venv/bin/activate",
        "pip install '.[slo,loadtest,dashboards]'",
        "systemctl reload prometheus",
    ]
    assert "What stands within a line it does not run: how to install `cmo`, and `systemctl`." in PAGE


def test_what_is_installed_is_the_checkout_with_extras_that_it_has() -> None:
    assert "in the checkout `make setup`" in PAGE
    (folder, extras) = re.findall(r"`pip install '(.+?)\[(.+?)\]'`", PAGE)[0]
    project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


def test_routes_and_inhibitions_are_those_of_production() -> None:
    """Below a route of their own, and an inhibition that looks at the source's slo."""
    (ours,) = [
        yaml.safe_load(block.text) for block in blocks(PAGE) if block.title.endswith("alertmanager.yml")
    ]
    (route,) = ours["route"]["routes"]
    assert route.pop("matchers") == ['slo="cmo-015"']
    assert route == PRODUCTION["route"]
    page, load_test = ours["inhibit_rules"]
    page["source_matchers"].remove('slo="cmo-015"')
    assert [page, load_test] == PRODUCTION["inhibit_rules"]


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)]+)\)", PAGE))))
def test_links_lead_somewhere(target: str) -> None:
    path, _, anchor = target.partition("#")
    file = ROOT / "docs" / path if path else ROOT / "docs/existing-prometheus.md"
    assert file.exists()
    headings = re.findall(r"^#+ (.*)$", file.read_text(), re.M) if anchor else []
    assert not anchor or anchor in {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }
