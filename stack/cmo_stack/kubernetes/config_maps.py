"""Files as ``ConfigMap``s: dashboards for Grafana's sidecar, and the templates of notifications."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cmo_stack.exit_status import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGEST_CONFIG_MAP_BYTES: Final = 2**20
"""What Kubernetes takes of data, and not a byte more."""

_SIDECAR_LABEL: Final = "grafana_dashboard"
"""By which the sidecar of Grafana's chart, as it comes, knows a dashboard."""

_FOLDER: Final = "Clinical Metabolomics Oracle"


class TooLargeError(Exception):
    """A file is larger than a ``ConfigMap`` may be."""

    exit_status = ExitStatus.USAGE


def dashboards(name: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Compiled dashboards by the names of their files, as the sidecar wants them.

    Raises:
        TooLargeError: they do not fit.
    """
    manifest = config_map(name, texts)
    manifest["metadata"]["labels"][_SIDECAR_LABEL] = "1"
    # It counts where the chart is told its name; elsewhere the dashboard is in the general folder.
    manifest["metadata"]["annotations"] = {"grafana_folder": _FOLDER}
    return manifest


def config_map(name: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Files, byte by byte, under their names.

    Raises:
        TooLargeError: they do not fit.
    """
    size = sum(len(text.encode()) for text in texts.values())
    if size > LARGEST_CONFIG_MAP_BYTES:
        raise TooLargeError(
            f"{', '.join(texts)}: {size} bytes, and a ConfigMap holds {LARGEST_CONFIG_MAP_BYTES} at most. "
            "Make two of it."
        )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "cmo-observability"}},
        "data": dict(texts),
    }
