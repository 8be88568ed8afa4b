"""Read the inhibitions of an Alertmanager configuration, in all the forms that 0.25 and later accept."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import yaml

from cmo_slo.checks.context import Alertmanager, InhibitRule, LabelCondition

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONDITION: Final = re.compile(
    r'\s*"?(?P<name>[^=!~"\s]+)"?\s*(?P<operator>=~|!~|!=|=)\s*(?P<value>.*?)\s*', re.DOTALL
)
_SEPARATOR: Final = re.compile(r',(?=(?:[^"]*"[^"]*")*[^"]*$)')
_MOST_CHARACTERS: Final = 1_000_000
_MOST_NESTED: Final = 50


class AlertmanagerConfigError(Exception):
    """The text is no Alertmanager configuration; the message says where and why."""


def read_alertmanager(text: str, file: str) -> Alertmanager:
    """The inhibitions of a configuration.

    Raises:
        AlertmanagerConfigError: it cannot be read.
    """
    try:
        _refuse_depth(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise AlertmanagerConfigError(
            f"{file}: not YAML: {reason}; correct it (`amtool check-config`)"
        ) from error
    rules = _get(root, "inhibit_rules")
    if rules is None:
        return Alertmanager(file, ())
    if not isinstance(rules, yaml.SequenceNode):
        raise AlertmanagerConfigError(
            f"{file}:{_line(rules)}: `inhibit_rules` is no list; expected `- …` entries"
        )
    return Alertmanager(file, tuple(_inhibit_rule(node, file) for node in rules.value))


def _refuse_depth(text: str) -> None:
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"longer than {_MOST_CHARACTERS:,} characters")
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MOST_NESTED:
            raise ValueError(f"nested more than {_MOST_NESTED} deep")


def _inhibit_rule(node: Any, file: str) -> InhibitRule:
    if not isinstance(node, yaml.MappingNode):
        raise AlertmanagerConfigError(
            f"{file}:{_line(node)}: an inhibition is no mapping; expected its fields"
        )
    return InhibitRule(
        line=_line(node),
        source=tuple(_conditions(node, "source", file)),
        target=tuple(_conditions(node, "target", file)),
        equal=tuple(_texts(_get(node, "equal"))),
    )


def _conditions(node: yaml.MappingNode, side: str, file: str) -> Iterator[LabelCondition]:
    matchers = _get(node, f"{side}_matchers")
    for text in _texts(matchers):
        for part in _SEPARATOR.split(text.strip().removeprefix("{").removesuffix("}")):
            found = _CONDITION.fullmatch(part)
            if found is None:
                raise AlertmanagerConfigError(
                    f'{file}:{_line(matchers)}: {part!r} is no matcher; expected one such as severity="page"'
                )
            yield LabelCondition(found["name"], found["operator"], _unquoted(found["value"]))
    for field, operator in ((f"{side}_match", "="), (f"{side}_match_re", "=~")):
        mapping = _get(node, field)
        if isinstance(mapping, yaml.MappingNode):
            for key, value in mapping.value:
                yield LabelCondition(str(key.value), operator, str(value.value))


def _unquoted(text: str) -> str:
    return text[1:-1].replace('\\"', '"') if len(text) > 1 and text[0] == text[-1] == '"' else text


def _texts(node: Any) -> list[str]:
    if isinstance(node, yaml.ScalarNode):
        return [str(node.value)]
    if isinstance(node, yaml.SequenceNode):
        return [str(entry.value) for entry in node.value if isinstance(entry, yaml.ScalarNode)]
    return []


def _get(node: Any, name: str) -> Any:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1
