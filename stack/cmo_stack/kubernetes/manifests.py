"""Every manifest as a file: what is shipped, read from its place, and written in the form of Kubernetes.

The edge of this package: the other modules turn data into manifests, this one reads files and makes YAML of
them that a reviewer can read.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

import yaml
from cmo_dashboards.building import build_dashboards
from cmo_dashboards.finish import text_of
from cmo_dashboards.promised import published_runbooks
from cmo_dashboards.shipped import file_name, runbook_texts
from cmo_slo.compile import DEFAULT_SCRAPE_INTERVAL
from cmo_slo.objectives import objectives_text
from cmo_slo.rulefile import GeneratedFile, render_for_operator

from cmo_stack.configuration import committed
from cmo_stack.kubernetes.alertmanager_config import CONFIG_NAME, alertmanager_config
from cmo_stack.kubernetes.cluster import Cluster
from cmo_stack.kubernetes.config_maps import config_map, dashboards
from cmo_stack.kubernetes.nightly_check import (
    IMAGE_NAME,
    OBJECTIVES_CONFIG_MAP,
    PROMETHEUS_ADDRESS,
    STAGING_ADDRESS,
    nightly_check,
)
from cmo_stack.kubernetes.scraping import scraped_services, service_monitor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cmo_slo.model import Objectives

_TEMPLATES_CONFIG_MAP: Final = f"{CONFIG_NAME}-alertmanager-templates"
_TEMPLATES_FILE: Final = "cmo.tmpl"

_DISTRIBUTION: Final = "cmo-observability"
_EXAMPLE: Final = "example.org"
"""The domain of every address in ``alertmanager/production.yml`` that is to be filled in."""

_MADE_HERE: Final = ("# Made by `cmo kubernetes build`", "# Compiled by `cmo rules build`")
_READ_OF_HEAD: Final = 80
"""Characters of a first line that say enough."""
_HEAD: Final = "# Made by `cmo kubernetes build`: build it again rather than edit it.\n# {source}\n"
_KUSTOMIZATION: Final = """\
# Made by `cmo kubernetes build`. What is marked FILL IN belongs into a kustomization of yours that names this
# folder, as patches: see README.md.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: {namespace}
resources:
{resources}
images:
- name: {image}
  newTag: {version}
"""


class _Dumper(yaml.SafeDumper):
    """Several lines as a literal block, as people write them, and no anchors."""

    def ignore_aliases(self, data: object) -> bool:
        """Whether something that stands twice is written twice: always."""
        del data
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def manifest_files(
    objectives: Objectives,
    directory: Path,
    scrape_interval: str = DEFAULT_SCRAPE_INTERVAL,
    cluster: Cluster | None = None,
) -> list[GeneratedFile]:
    """Every file that belongs into ``directory``, the one that Kustomize reads last.

    Dashboards that the objectives have not enough for are left out.

    Raises:
        CompileError: the interval is unusable.
        ConfigurationMissingError: a file of this distribution is not where it should be.
        NotInCustomResourceError: Alertmanager's configuration cannot be said as an ``AlertmanagerConfig``.
        TooLargeError: a dashboard does not fit into a ``ConfigMap``.
    """
    cluster = cluster or Cluster()
    version = metadata.version(_DISTRIBUTION)
    texts = {
        "service-monitors.yml": _text(
            "Rules, dashboards and `cmo check` know these jobs by their names.",
            [service_monitor(one, scrape_interval) for one in scraped_services(objectives, cluster)],
        ),
        "prometheus-rule.yml": render_for_operator(objectives, scrape_interval),
        "alertmanager-config.yml": _text(
            "It says what alertmanager/production.yml says; comments are there.",
            [_alertmanager_config()],
            to_fill_in=[_EXAMPLE],
        ),
        "alertmanager-templates.yml": _text(
            f"It holds alertmanager/templates/{_TEMPLATES_FILE}.", [_alertmanager_templates()]
        ),
        "objectives.yml": _text(
            f"It holds the objectives {objectives.name}, of which prometheus-rule.yml is compiled.",
            [config_map(OBJECTIVES_CONFIG_MAP, {f"{objectives.name}.yml": objectives_text(objectives)})],
        ),
        "nightly-check.yml": _text(
            "It needs a service that is scraped every second, see README.md.",
            [nightly_check(objectives.name, version)],
            to_fill_in=[STAGING_ADDRESS, PROMETHEUS_ADDRESS],
        ),
        **_dashboards(objectives),
    }
    texts["kustomization.yaml"] = _KUSTOMIZATION.format(
        # `true` and `123` are names of namespaces too, and have to be written as texts.
        namespace=yaml.safe_dump(cluster.monitoring_namespace).partition("\n")[0],
        resources="\n".join(f"- {name}" for name in texts),
        image=IMAGE_NAME,
        version=version,
    )
    return [GeneratedFile(directory / name, text) for name, text in texts.items()]


def made_by_somebody_else(path: Path) -> bool:
    """Whether something is there that does not say in its first line that it was built, and would be lost.

    Raises:
        OSError: it cannot be looked at.
    """
    if not path.is_file():
        return path.exists()
    with path.open(encoding="utf-8", errors="replace") as file:
        return not file.readline(_READ_OF_HEAD).startswith(_MADE_HERE)


def _alertmanager_config() -> dict[str, Any]:
    return alertmanager_config(yaml.safe_load(_read(committed("alertmanager", "production.yml"))))


def _alertmanager_templates() -> dict[str, Any]:
    text = _read(committed("alertmanager", f"templates/{_TEMPLATES_FILE}"))
    return config_map(_TEMPLATES_CONFIG_MAP, {_TEMPLATES_FILE: text})


def _dashboards(objectives: Objectives) -> dict[str, str]:
    """One file for each dashboard, and one for all runbooks, unless these are published elsewhere."""
    address = published_runbooks(objectives)
    linked = f", with links to {address}" if address else ""
    manifests = {
        f"dashboards/{board.uid}.yml": _text(
            f"It holds the dashboard {board.uid} of the objectives {objectives.name}{linked}.",
            [dashboards(f"{board.uid}-dashboard", {file_name(board): text_of(board.document)})],
        )
        for board in sorted(build_dashboards(objectives).dashboards, key=lambda board: board.uid)
    }
    runbooks = runbook_texts(objectives)
    if runbooks:
        files = {name.removeprefix("runbooks/"): text for name, text in runbooks.items()}
        manifests["dashboards/cmo-runbooks.yml"] = _text(
            "It holds the runbooks as dashboards.", [dashboards("cmo-runbooks", files)]
        )
    return manifests


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _text(source: str, documents: Sequence[Mapping[str, Any]], to_fill_in: Sequence[str] = ()) -> str:
    """Manifests as YAML; lines with a text that is to be filled in are marked, as in ``production.yml``."""
    dumped = [
        yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
        for document in documents
    ]
    lines = "---\n".join(dumped).split("\n")
    marked = (f"{line}  # FILL IN" if any(text in line for text in to_fill_in) else line for line in lines)
    return _HEAD.format(source=source) + "\n".join(marked)
