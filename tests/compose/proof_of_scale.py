"""Profile ``scale``: workers, instances, replicas, VictoriaMetrics, vmalert, a cluster of Alertmanagers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .running_stack import ComposedStack


def prove(stack: ComposedStack) -> None:
    """Prove the scaled stack.

    Raises:
        NotProvedError: something is not as it should be.
    """
