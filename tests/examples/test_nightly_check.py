"""The CronJob: what it may do, and its two commands run as a kubelet would, against a real Prometheus."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cmo_slo.objectives import find_objectives, load_objectives, objectives_hash
from cmo_stack.free_ports import free_port

from .watched_service import answering_service, command_of_this_checkout, prometheus, wait_for_scrapes

if TYPE_CHECKING:
    from cmo_stack.servers import Server

ROOT = Path(__file__).resolve().parents[2]
CRON_JOB: dict[str, Any] = yaml.safe_load((ROOT / "examples/kubernetes/nightly-check.yml").read_text())
CONFIG_MAP: dict[str, Any] = yaml.safe_load((ROOT / "examples/kubernetes/objectives.yml").read_text())
JOB = CRON_JOB["spec"]["jobTemplate"]["spec"]
POD = JOB["template"]["spec"]
CONTAINERS = [*POD["initContainers"], *POD["containers"]]
STATUSES = {"COMPLIANT": 0, "NON-COMPLIANT": 1, "INCONCLUSIVE": 2}
VERSION = yaml.safe_load((ROOT / "examples/kubernetes/kustomization.yaml").read_text())["images"][0]["newTag"]


def test_one_night_is_one_try() -> None:
    assert CRON_JOB["spec"]["concurrencyPolicy"] == "Forbid"
    assert JOB["backoffLimit"] == 0
    assert POD["restartPolicy"] == "Never"
    assert JOB["activeDeadlineSeconds"] <= 3600
    assert len(POD["containers"]) == 1, "its exit status is the Job's"


def test_the_pod_may_do_nothing_that_it_need_not() -> None:
    assert POD["automountServiceAccountToken"] is False
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["runAsUser"] > 0
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & POD.keys()


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda container: container["name"])
def test_so_may_its_containers(container: dict[str, Any]) -> None:
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["image"] == f"cmo-observability:{VERSION}"
    assert (
        container["resources"]["limits"].keys()
        == container["resources"]["requests"].keys()
        == {"cpu", "memory"}
    )
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    for mount in container["volumeMounts"]:
        assert "emptyDir" in volumes[mount["name"]] or mount["readOnly"]


def _make_volumes(node: Path) -> None:
    """Folders of the node, with the files of their ConfigMap, if they have one."""
    for volume in POD["volumes"]:
        (folder := node / volume["name"]).mkdir()
        if "configMap" in volume:
            assert volume["configMap"] == {"name": CONFIG_MAP["metadata"]["name"]}
            for name, text in CONFIG_MAP["data"].items():
                (folder / name).write_text(text)


def _run(container: dict[str, Any], node: Path, **filled_in: str) -> subprocess.CompletedProcess[str]:
    """Run a container's command; its volumes are folders of the node, and all that it may write to is there.

    A Secret that is optional is not there.
    """
    variables = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    optional = {
        one["name"]
        for one in container["env"]
        if one.get("valueFrom", {}).get("secretKeyRef", {}).get("optional")
    }
    assert optional | variables.keys() == {one["name"] for one in container["env"]}
    assert filled_in.keys() - {"CMO_LOADTEST_RUN_TIME_SCALE"} <= variables.keys(), (
        "the CronJob sets what is filled in"
    )
    mounts = {mount["mountPath"]: str(node / mount["name"]) for mount in container["volumeMounts"]}

    def inside(text: str) -> str:
        return re.sub(rf"(?<!\S)({'|'.join(mounts)})(?=/|\s|$)", lambda found: mounts[found[1]], text)

    path = f"{command_of_this_checkout(node / 'bin')}{os.pathsep}{os.environ['PATH']}"
    python_path = {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
    return subprocess.run(
        [inside(word) for word in container["command"]],
        cwd=inside(container["workingDir"]),
        env={
            "PATH": path,
            **python_path,
            **{key: inside(value) for key, value in variables.items()},
            **filled_in,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("apologises", [False, True], ids=["answers", "apologises"])
def test_a_night_ends_with_the_exit_status_of_the_check(
    newest_prometheus: Server, tmp_path: Path, apologises: bool
) -> None:
    """In a fifth of the time, in which some objectives may be INCONCLUSIVE; what was answered is exact."""
    _make_volumes(tmp_path)
    with answering_service(tmp_path, **({"APOLOGISES": "1"} if apologises else {})) as service:
        targets = [{"targets": [f"127.0.0.1:{service.metrics_port}"]}]
        content = {
            "global": {"scrape_interval": "500ms"},
            "scrape_configs": [{"job_name": "cmo", "static_configs": targets}],
        }
        (configuration := tmp_path / "prometheus.yml").write_text(yaml.safe_dump(content))
        with prometheus(newest_prometheus, configuration, tmp_path, free_port()) as url:
            wait_for_scrapes(url, "cmo", 3)
            load, check = CONTAINERS
            loaded = _run(load, tmp_path, CMO_LOADTEST_TARGET=service.url, CMO_LOADTEST_RUN_TIME_SCALE="0.2")
            assert loaded.returncode == 0, loaded.stderr
            checked = _run(check, tmp_path, CMO_PROMETHEUS_URL=url)
    outcome = checked.stdout.partition(" ")[0]
    assert checked.returncode == STATUSES[outcome], checked.stdout + checked.stderr
    assert ("0 of 1820" if apologises else "1820 of 1820") in checked.stdout
    assert not apologises or checked.returncode == STATUSES["NON-COMPLIANT"]
    assert objectives_hash(load_objectives(find_objectives("cmo-015"))) in checked.stdout


def test_a_night_whose_service_is_gone_fails_before_the_check(tmp_path: Path) -> None:
    _make_volumes(tmp_path)
    gone = f"http://127.0.0.1:{free_port()}"
    loaded = _run(CONTAINERS[0], tmp_path, CMO_LOADTEST_TARGET=gone)
    assert loaded.returncode == 4, loaded.stderr
    assert gone.removeprefix("http://") in loaded.stderr


def test_a_check_without_a_run_or_without_prometheus_fails(tmp_path: Path) -> None:
    _make_volumes(tmp_path)
    checked = _run(CONTAINERS[1], tmp_path, CMO_PROMETHEUS_URL=f"http://127.0.0.1:{free_port()}")
    assert checked.returncode == 3
    assert "manifest.json" in checked.stderr
