"""What differs from cluster to cluster, and so is asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Final

_NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class WrongNamespaceError(ValueError):
    """A namespace has a name that Kubernetes would refuse."""


@dataclass(frozen=True)
class Cluster:
    """The namespaces: where Prometheus, Alertmanager and Grafana are, and where the service is.

    Raises:
        WrongNamespaceError: one of them is no name of a namespace.
    """

    monitoring_namespace: str = "monitoring"
    service_namespace: str = "cmo"

    def __post_init__(self) -> None:
        for field in fields(self):
            name = getattr(self, field.name)
            if not _NAMESPACE.fullmatch(name):
                raise WrongNamespaceError(
                    f"{name!r} is no name of a namespace; expected at most 63 lower-case letters, digits and "
                    "hyphens, with a letter or digit at both ends."
                )
