"""Whether what texts of alerts leave to be filled in is: words by the compiler, labels by Prometheus.

A word that nobody fills in is read at night as it stands, and so is the gap where a label is not there. They
are looked for in a file as it stands, so that no other mistake in it hides one of them.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from string import Template
from typing import TYPE_CHECKING, Any, Final, get_args

from cmo_slo.alerts.alert import LATENCY_WORDS, Alert
from cmo_slo.alerts.below_target import BelowTarget
from cmo_slo.alerts.kinds import AnyAlert
from cmo_slo.alerts.page import Page
from cmo_slo.indicators import Indicator, LatencyIndicator
from cmo_slo.mistakes import Mistake
from cmo_slo.templates import ACTION, actions, labels_read

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

_Place = tuple[str | int, ...]

_OF_OBJECTIVE: Final[Mapping[str, type[Alert]]] = {"page": Page, "ticket": BelowTarget}


def _by_kind(union: Any) -> dict[str, Any]:
    """The models of a union by the kinds that a file calls them."""
    models = get_args(get_args(union)[0])
    return {kind: model for model in models for kind in get_args(model.model_fields["kind"].annotation)}


_BY_KIND: Final[Mapping[str, type[Alert]]] = _by_kind(AnyAlert)
_WITHOUT_THRESHOLD: Final = {
    kind for kind, model in _by_kind(Indicator).items() if model is not LatencyIndicator
}

_OF_PROMETHEUS: Final = {"value": "{{ $value }}", "labels": "{{ $labels.NAME }}"}


@dataclass(frozen=True)
class _Texts:
    """An alert as it stands in a file: where, its fields, its kind, and the words that are filled in."""

    place: _Place
    fields: Mapping[str, Any]
    kind: type[Alert]
    words: tuple[str, ...]


def alert_text_mistakes(data: Mapping[str, Any], wrong: Collection[_Place] = ()) -> list[Mistake]:
    """Words and labels in the texts of all alerts that nothing fills in.

    Args:
        data: the fields of an objectives file as they stand there.
        wrong: places of other mistakes. What labels an alert has is not said where they follow from one.
    """
    mistakes: list[Mistake] = []
    for alert in _alerts(data):
        mistakes += _word_mistakes(alert, "summary", ())
        mistakes += _word_mistakes(alert, "description", alert.words)
        length = len(alert.place) + 1
        sources = [(*alert.place, field) for field in alert.kind.LABELS_FOLLOW_FROM]
        if not any(place[:length] in sources for place in wrong):
            mistakes += _label_mistakes(alert)
    return mistakes


def _alerts(data: Mapping[str, Any]) -> Iterator[_Texts]:
    for index, objective in _mappings(data, "objectives"):
        indicator = objective.get("indicator")
        kind = indicator.get("kind") if isinstance(indicator, dict) else None
        # An indicator of no known kind is a mistake by itself; it may be meant to be a latency.
        more = () if isinstance(kind, str) and kind in _WITHOUT_THRESHOLD else LATENCY_WORDS
        for field, model in _OF_OBJECTIVE.items():
            if isinstance(alert := objective.get(field), dict):
                yield _Texts(("objectives", index, field), alert, model, (*model.WORDS, *more))
    for index, alert in _mappings(data, "alerts"):
        named = alert.get("kind")
        if isinstance(named, str) and named in _BY_KIND:
            yield _Texts(("alerts", index), alert, _BY_KIND[named], _BY_KIND[named].WORDS)


def _mappings(data: Mapping[str, Any], field: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    entries = data.get(field)
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, dict):
            yield index, entry


def _word_mistakes(alert: _Texts, field: str, words: Sequence[str]) -> Iterator[Mistake]:
    text = alert.fields.get(field)
    if not isinstance(text, str):
        return
    place = (*alert.place, field)
    for found in Template.pattern.finditer(ACTION.sub("", text)):
        word = found["named"] or found["braced"]
        if word is None or word in words:
            continue
        if field == "description" and word in _OF_PROMETHEUS:
            wrong = f"${word} stands outside of braces, where Prometheus does not fill it in"
            yield Mistake(place, wrong, _OF_PROMETHEUS[word], "put it into braces")
            continue
        expected = ", ".join(f"${one}" for one in words)
        near = difflib.get_close_matches(word, words, n=1)
        mend = f"did you mean ${near[0]}?" if near else "write one of these" if words else "spell it out"
        yield Mistake(place, f"nothing fills in ${word} here", expected or "no such words", mend)


def _label_mistakes(alert: _Texts) -> Iterator[Mistake]:
    text = alert.fields.get("description")
    if not isinstance(text, str):
        return
    labels = alert.kind.series_labels(alert.fields)
    for action in actions(text):
        for name in labels_read(action):
            if name not in labels:
                near = difflib.get_close_matches(name, labels, n=1)
                mend = f"did you mean {near[0]}?" if near else "take it out"
                if not near and "by" in alert.kind.model_fields:
                    mend = "add it to `by`, or take it out"
                yield Mistake(
                    (*alert.place, "description"),
                    f"the series of this alert have no label {name!r}",
                    ", ".join(labels) or "no labels at all",
                    mend,
                )
