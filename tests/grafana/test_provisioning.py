"""Provisioning files say what Grafana 12 needs; there is no Grafana to ask, so the files are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from cmo_dashboards import shipped_dashboards

PROVISIONING = Path(__file__).resolve().parents[2] / "grafana/provisioning"


def _read(name: str) -> Any:
    return yaml.safe_load((PROVISIONING / name).read_text(encoding="utf-8"))


def test_the_data_source_is_one_that_the_dashboards_offer() -> None:
    [source] = _read("datasources/prometheus.yml")["datasources"]
    for board in shipped_dashboards():
        [variable] = [item for item in board.document["templating"]["list"] if item["name"] == "datasource"]
        assert source["type"] == variable["query"]
    assert source["isDefault"] is True
    assert source["editable"] is False
    assert source["url"] == "${CMO_PROMETHEUS_URL}"
    assert source["jsonData"]["timeInterval"] == "${CMO_SCRAPE_INTERVAL}"


def test_the_folder_of_dashboards_is_not_editable() -> None:
    [provider] = _read("dashboards/cmo.yml")["providers"]
    assert provider["type"] == "file"
    assert provider["allowUiUpdates"] is False
    assert provider["options"] == {"path": "${CMO_DASHBOARDS_DIR}"}
    assert provider["folder"]


def test_every_variable_of_the_environment_is_explained() -> None:
    page = (PROVISIONING.parents[1] / "docs/dashboards.md").read_text(encoding="utf-8")
    for name in ("CMO_PROMETHEUS_URL", "CMO_SCRAPE_INTERVAL", "CMO_DASHBOARDS_DIR"):
        assert name in page
