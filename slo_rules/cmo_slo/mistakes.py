"""What can be wrong with an objectives file, said so that a person can mend it.

A validator reports every mistake it sees (`MistakesError`), because a person mends a file faster from one
list than from a list a run.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmo_exporter import catalogue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Mistake:
    """One thing wrong in an objectives file: where (from the enclosing model), what, and how to mend it."""

    field: tuple[str | int, ...]
    wrong: str
    expected: str
    mend: str


class MistakesError(ValueError):
    """All that a validator found wrong with one model."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("; ".join(f"{mistake.wrong}; expected {mistake.expected}" for mistake in mistakes))


def raise_if_any(mistakes: Sequence[Mistake]) -> None:
    """Raise all of them at once.

    Raises:
        MistakesError: there is one.
    """
    if mistakes:
        raise MistakesError(mistakes)


def unknown_metric(field: str, name: str) -> Mistake:
    """The mistake of naming a metric that the catalogue does not have, with the nearest that it has."""
    near = difflib.get_close_matches(name, catalogue.BY_NAME, n=1)
    mend = f"did you mean {near[0]}?" if near else "take the name from exporter/cmo_exporter/catalogue.py"
    return Mistake((field,), f"unknown metric {name!r}", "a metric of the catalogue", mend)


def metric_mistakes(field: str, name: str, kind: catalogue.Kind) -> list[Mistake]:
    """What is wrong with the name of a metric that must be of one kind."""
    metric = catalogue.BY_NAME.get(name)
    if metric is None:
        return [unknown_metric(field, name)]
    if metric.kind is not kind:
        return [
            Mistake((field,), f"{name} is a {metric.kind}", f"a {kind}", f"name a {kind} of the catalogue")
        ]
    return []


def label_mistakes(
    field: tuple[str, ...], metric_name: str, labels: Mapping[str, tuple[str, ...]]
) -> list[Mistake]:
    """What is wrong with the labels by which events of a metric are chosen."""
    metric = catalogue.BY_NAME.get(metric_name)
    if metric is None:
        return []
    mistakes = []
    for name, values in labels.items():
        where = (*field, name)
        if name not in metric.labels:
            known = ", ".join(metric.labels) or "no labels at all"
            mistakes.append(
                Mistake(where, f"{metric_name} has no label {name!r}", known, "name one of its labels")
            )
            continue
        allowed = metric.labels[name]
        mistakes += [
            Mistake(
                (*where, index),
                f"{value!r} is no value of label {name!r}",
                f"one of {', '.join(allowed)}",
                "name one of these",
            )
            for index, value in enumerate(values)
            if allowed is not None and value not in allowed
        ]
        mistakes += [
            Mistake((*where, index), f"{value!r} stands there twice", "each value once", "delete one")
            for index, value in enumerate(values)
            if value in values[:index]
        ]
    return mistakes
