"""A ``CronJob`` that loads a staging service every night and judges that by ``cmo check``.

The verdict is the exit status of the pod's only container, so a night that is not COMPLIANT is a failed Job,
which the cluster's own alerts know about. No retry: a load test that passes when it is tried again has still
failed once.
"""

from __future__ import annotations

from typing import Any, Final

_CHECK_SECRET: Final = "cmo-check"  # noqa: S105 - the name of the Secret, and nothing secret
"""The ``Secret`` whose key ``prometheus-token`` is shown to Prometheus; where there is none, nothing is."""

IMAGE_NAME: Final = "cmo-observability"

OBJECTIVES_CONFIG_MAP: Final = "cmo-objectives"
"""The ``ConfigMap`` that holds the objectives of which the rules are compiled, as ``NAME.yml``."""

STAGING_ADDRESS: Final = "http://cmo.cmo-staging.svc:8000"
"""Where the service is that bears a load test: to be filled in."""

PROMETHEUS_ADDRESS: Final = "http://prometheus-k8s-0.prometheus-operated.monitoring.svc:9090"
"""One replica of Prometheus that scrapes it: to be filled in."""

_RUNS: Final = "/run/cmo/runs"
_OBJECTIVES: Final = "/etc/cmo"
_USER_ID: Final = 10001
_NAME: Final = "cmo-nightly-check"
_LABELS: Final = {
    "app.kubernetes.io/name": "cmo-observability",
    "app.kubernetes.io/component": "nightly-check",
}


def nightly_check(objectives_name: str, version: str) -> dict[str, Any]:
    """The manifest. ``version`` is that of this distribution, and of the image.

    The objectives are those of this name in their ``ConfigMap``, and not what some image holds: a night is
    judged by what the rules record and alert on.
    """
    load = _container("load-test", version)
    load["command"] = ["cmo", "loadtest", "run", "--quiet", "--output", _RUNS]
    load["env"] += [{"name": "CMO_LOADTEST_TARGET", "value": STAGING_ADDRESS}]
    check = _container("check", version)
    # A shell, because only the load test knows how its run is called; there is exactly one in the folder.
    check["command"] = ["sh", "-c", f"exec cmo check --quiet --run {_RUNS}/*/manifest.json"]
    check["env"] += [
        {"name": "CMO_PROMETHEUS_URL", "value": PROMETHEUS_ADDRESS},
        {"name": "CMO_OBJECTIVES", "value": f"{_OBJECTIVES}/{objectives_name}.yml"},
        {"name": "CMO_PROMETHEUS_TOKEN", "valueFrom": {"secretKeyRef": _token()}},
    ]
    check["volumeMounts"] += [{"name": "objectives", "mountPath": _OBJECTIVES, "readOnly": True}]
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER_ID,
            "runAsGroup": _USER_ID,
            "fsGroup": _USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [load],
        "containers": [check],
        "volumes": [
            {"name": "runs", "emptyDir": {"sizeLimit": "64Mi"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
            {"name": "objectives", "configMap": {"name": OBJECTIVES_CONFIG_MAP}},
        ],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": _NAME, "labels": _LABELS},
        "spec": {
            "schedule": "30 2 * * *",
            "timeZone": "Etc/UTC",
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 3600,
            "successfulJobsHistoryLimit": 7,
            "failedJobsHistoryLimit": 7,
            "jobTemplate": {
                "metadata": {"labels": _LABELS},
                "spec": {
                    "backoffLimit": 0,
                    "activeDeadlineSeconds": 1800,
                    "template": {"metadata": {"labels": _LABELS}, "spec": pod},
                },
            },
        },
    }


def _token() -> dict[str, Any]:
    return {"name": _CHECK_SECRET, "key": "prometheus-token", "optional": True}


def _container(name: str, version: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": f"{IMAGE_NAME}:{version}",
        "imagePullPolicy": "IfNotPresent",
        "command": [],
        "workingDir": "/run/cmo",
        "env": [{"name": "HOME", "value": "/tmp"}, {"name": "NO_COLOR", "value": "1"}],  # noqa: S108 - a volume of the pod
        "resources": {
            "requests": {"cpu": "500m", "memory": "256Mi"},
            "limits": {"cpu": "2", "memory": "512Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # So that `kubectl describe` shows why a night failed.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "runs", "mountPath": "/run/cmo"}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }
