"""What is proved of docker-compose.yml, in the order in which it is proved."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from . import proof_of_one, proof_of_scale
from .telling import step, tell

if TYPE_CHECKING:
    from .running_stack import ComposedStack


def prove(stack: ComposedStack) -> None:
    """Build, run, load, break, restart and take down the stack, small and scaled.

    Raises:
        NotProvedError: something is not as it should be.
    """
    # A load test of seconds is judged by scrapes of a second.
    fast = {"CMO_SCRAPE_INTERVAL": "1s", "CMO_SCALE_SCRAPE_INTERVAL": "5s"}
    # A stack whose service is well until it is broken here.
    well = {"CMO_PROFILE": "healthy", "CMO_UPSTREAM_CALIBRATION": "calm"}
    short = {"CMO_LOAD_SCENARIOS": "clinical_rush", "CMO_HEALTH_INTERVAL": "3s"}
    stack = replace(stack, settings={**stack.settings, **fast, **well, **short})
    try:
        proof_of_one.prove(stack)
        proof_of_scale.prove(stack)
    finally:
        # An engine of our own goes with all that is in it.
        if stack.engine.has_registry:
            with step("Taking everything down, volumes too"):
                stack.compose("down", "--volumes", "--timeout", "5", profiles=["*"], may_fail=True)
    tell("PROVED: `docker compose up` gives what docs/compose.md says.")
