"""docs/alertmanager.md and the runbook say what the committed files do."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from cmo_stack import dead_man, watchdog

from .running import ROOM, route_of

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "alertmanager.md").read_text(encoding="utf-8")
PRODUCTION = (ROOM / "production.yml").read_text(encoding="utf-8")


def test_every_receiver_and_every_secret_is_explained() -> None:
    content = yaml.safe_load(PRODUCTION)
    named = {each["name"] for each in content["receivers"]} - {"nobody"}
    assert {name for name in named if f"`{name}`" not in PAGE} == set()
    secrets = set(re.findall("/etc/alertmanager/secrets/([a-z-]+)", PRODUCTION))
    assert len(secrets) == 7
    assert {name for name in secrets if f"`{name}`" not in PAGE} == set()


def test_every_time_is_the_committed_one() -> None:
    route = yaml.safe_load(PRODUCTION)["route"]
    tickets, watchdog = (route_of({"route": route}, name) for name in ("tickets", "dead-man"))
    assert (route["repeat_interval"], tickets["group_wait"], tickets["repeat_interval"]) == (
        "4h",
        "1m",
        "24h",
    )
    assert "| at once; alerts of one name are one page | after 4 h |" in PAGE
    assert PAGE.count("| after 1 min | after 24 h |") == 3
    assert (watchdog["repeat_interval"], watchdog["group_interval"]) == ("50s", "10s")
    assert "| the watchdog comes again | after 50 to 60 s |" in PAGE
    assert tickets["group_interval"] == "5m"
    assert "within `group_interval` (5 min)" in PAGE
    assert f"| {dead_man.DEFAULT_TIMEOUT_SECONDS:g} s; 120 s in a stack" in PAGE


def test_the_dead_mans_page_has_its_runbook() -> None:
    assert (
        (DOCS.parent / watchdog.RUNBOOK).read_text(encoding="utf-8").startswith(f"# {watchdog.ALERT_NAME}\n")
    )
