"""The shipped objectives with something changed in them, and what is then said of them."""

from __future__ import annotations

import pytest
from cmo_slo.objectives import ObjectivesError, find_objectives, parse_objectives

SHIPPED = find_objectives("cmo-015").read_text(encoding="utf-8")


def mistakes(text: str) -> list[str]:
    with pytest.raises(ObjectivesError) as caught:
        parse_objectives(text, "my.yml")
    return str(caught.value).splitlines()


def changed(old: str, new: str) -> str:
    assert old in SHIPPED
    return SHIPPED.replace(old, new, 1)
