"""Files as ``ConfigMap``s: dashboards for Grafana's sidecar, and the templates of notifications."""

from __future__ import annotations

from typing import Any, Final

from cmo_stack.exit_status import ExitStatus

LARGEST_CONFIG_MAP_BYTES: Final = 2**20
"""What Kubernetes takes of data, and not a byte more."""

SIDECAR_LABEL: Final = "grafana_dashboard"
"""By which the sidecar of Grafana's chart, as it comes, knows a dashboard."""

_FOLDER: Final = "Clinical Metabolomics Oracle"


class TooLargeError(Exception):
    """A file is larger than a ``ConfigMap`` may be."""

    exit_status = ExitStatus.USAGE


def dashboard(name: str, text: str) -> dict[str, Any]:
    """A compiled dashboard, called ``name``, as the sidecar wants it.

    Raises:
        TooLargeError: it does not fit.
    """
    manifest = config_map(f"{name}-dashboard", f"{name}.json", text)
    manifest["metadata"]["labels"][SIDECAR_LABEL] = "1"
    # It counts where the chart is told its name; elsewhere the dashboard is in the general folder.
    manifest["metadata"]["annotations"] = {"grafana_folder": _FOLDER}
    return manifest


def config_map(name: str, key: str, text: str) -> dict[str, Any]:
    """One file, byte by byte, under its name.

    Raises:
        TooLargeError: it does not fit.
    """
    size = len(text.encode())
    if size > LARGEST_CONFIG_MAP_BYTES:
        raise TooLargeError(
            f"{key} has {size} bytes, and a ConfigMap holds {LARGEST_CONFIG_MAP_BYTES} at most. Make two "
            "files of it."
        )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "cmo-observability"}},
        "data": {key: text},
    }
