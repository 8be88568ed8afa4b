"""Read any rule file: Prometheus' own form, and Prometheus Operator's ``PrometheusRule``.

`cmo_slo._marked_yaml` is for files that we write: it refuses anchors, several documents and second keys.
Files that people already have use all of these, so here they are read: anchors and merged mappings (one
level), several documents, fields that only Thanos, Mimir or vmalert know. What is wrong is told, never
raised. No value is built from YAML: nodes are walked to a fixed depth, so a cycle or a few lines that stand
for gigabytes do no harm.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import yaml

from cmo_slo.checks.finding import Finding, Severity
from cmo_slo.checks.promql import ExpressionError, Subquery, Text, parse
from cmo_slo.checks.rules import Group, Rule, RuleDocument
from cmo_slo.durations import DurationError, parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CHECK: Final = "rule_document"
MOST_RULES: Final = 50_000
MOST_VALUES: Final = 1_000_000
_MOST_NESTED: Final = 50

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MANIFEST: Final = "PrometheusRule"
_TEMPLATE: Final = re.compile(r"^\s*\{[{%]", re.MULTILINE)
_METRIC: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.ASCII)

_RULE_FIELDS: Final = ("record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations")
_GROUP_FIELDS: Final = ("name", "interval", "query_offset", "limit", "labels", "rules")
_OTHERS_FIELDS: Final = frozenset(
    {
        # Thanos, Mimir and the operator
        "partial_response_strategy", "source_tenants", "evaluation_delay",
        "align_evaluation_time_on_interval", "queryOffset",
        # vmalert
        "type", "tenant", "concurrency", "params", "headers", "notifier_headers", "eval_offset", "eval_delay",
        "eval_alignment", "debug", "update_entries_limit", "id",
    }
)  # fmt: skip


@dataclass(frozen=True)
class ReadFile:
    """The documents of one file, and what is wrong with it as a file."""

    documents: tuple[RuleDocument, ...]
    findings: tuple[Finding, ...]


def read_rules(text: str, file: str) -> ReadFile:
    """Read the text of a rule file; ``file`` is what findings call it. Raises nothing."""
    reader = _Reader(file)
    documents = tuple(reader.documents(text))
    return ReadFile(documents, tuple(sorted(reader.findings, key=lambda finding: finding.place)))


class _ExcessError(Exception):
    """The YAML is nested deeper, or holds more, than a parser survives."""

    def __init__(self, line: int, wrong: str, mend: str) -> None:
        self.line = line
        self.wrong = wrong
        self.mend = mend
        super().__init__(wrong)


@dataclass
class _Reader:
    file: str
    findings: list[Finding] = field(default_factory=list)
    group: str = ""
    rule: str = ""
    rules_left: int = MOST_RULES

    def wrong(self, line: int, wrong: str, mend: str, severity: Severity = Severity.ERROR) -> None:
        """Take down one finding, at the group and rule that are being read."""
        self.findings.append(Finding(self.file, line, self.group, self.rule, CHECK, severity, wrong, mend))

    def documents(self, text: str) -> Iterator[RuleDocument]:
        nodes = self._compose(text)
        if nodes is None:
            return
        manifests = [node for document in nodes for node in _manifests(document)]
        for node in manifests:
            groups = _get(_get(node, "spec"), "groups")
            yield RuleDocument(self.file, tuple(self._groups(groups, _line(node))), native=False)
        if manifests:
            return
        if not nodes:
            self.wrong(
                1, "the file is empty", "expected `groups:` with rules; write one, or leave the file out"
            )
        for node in nodes:
            yield RuleDocument(self.file, tuple(self._groups(_get(node, "groups"), _line(node))))

    def _compose(self, text: str) -> list[Any] | None:
        """The documents as nodes, ``None`` where the text is no YAML."""
        check = (
            "expected YAML; check this line and the one above it for indentation, colons, brackets and quotes"
        )
        try:
            _refuse_excess(text)
            return [node for node in yaml.compose_all(text, Loader=_LOADER) if node is not None]
        except _ExcessError as error:
            self.wrong(error.line, error.wrong, error.mend)
        except yaml.MarkedYAMLError as error:
            problem = " ".join(part for part in (error.context, error.problem) if part)
            hint = "; a template (Helm, Jinja) must be rendered first" if _TEMPLATE.search(text) else ""
            line = min(_mark_line(error.problem_mark or error.context_mark), len(text.splitlines()) or 1)
            self.wrong(line, f"not YAML: {problem}", check + hint)
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self.wrong(line, f"the character {error.character!r} is not allowed in YAML", "delete it")
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            self.wrong(1, f"not YAML: {' '.join(str(error).split())}", check)
        return None

    def _groups(self, node: Any, line: int) -> Iterator[Group]:
        if not isinstance(node, yaml.SequenceNode):
            self.wrong(
                line if node is None else _line(node),
                "there are no rule groups" if node is None else "`groups` is no list",
                "expected `groups:` with a list of groups; see prometheus.io, Recording rules",
            )
            return
        for entry in node.value:
            self.group = self.rule = ""
            if isinstance(entry, yaml.MappingNode):
                yield self._group(entry)
            else:
                self.wrong(
                    _line(entry), "a group is no mapping", "expected `- name: …` with `rules:`; write it so"
                )
        self.group = self.rule = ""

    def _group(self, node: yaml.MappingNode) -> Group:
        self.group = self._text(node, "name")
        if not self.group:
            self.wrong(_line(node), "a group without a name", "expected `name:`; give it one")
        self._unknown_fields(node, _GROUP_FIELDS)
        interval = self._duration(node, "interval")
        if interval == 0:
            interval = None
        rules = _get(node, "rules")
        if rules is None or (isinstance(rules, yaml.ScalarNode) and not rules.value):
            entries: list[Any] = []
        elif isinstance(rules, yaml.SequenceNode):
            entries = rules.value
        else:
            self.wrong(_line(rules), "`rules` is no list", "expected a list of rules; put `- ` before each")
            entries = []
        if not entries:
            self.wrong(_line(node), "the group has no rules", "expected some; delete it", Severity.WARNING)
        shared = self._texts(node, "labels")
        read = (self._rule(entry, shared) for entry in self._bounded(entries))
        group = Group(self.group, _line(node), tuple(rule for rule in read if rule), interval)
        self.rule = ""
        return group

    def _bounded(self, entries: Sequence[Any]) -> Sequence[Any]:
        if len(entries) > self.rules_left:
            self.wrong(
                _line(entries[0]),
                f"more than {MOST_RULES:,} rules",
                "the rest is not checked; split the file",
            )
        taken = entries[: self.rules_left]
        self.rules_left -= len(taken)
        return taken

    def _rule(self, node: Any, shared: Mapping[str, str]) -> Rule | None:
        self.rule = ""
        if not isinstance(node, yaml.MappingNode):
            self.wrong(_line(node), "a rule is no mapping", "expected `- alert:` or `- record:`; write it so")
            return None
        record, alert = self._text(node, "record"), self._text(node, "alert")
        self.rule = record or alert
        self._unknown_fields(node, _RULE_FIELDS)
        if bool(record) == bool(alert):
            both = "both `record` and `alert`" if record else "neither `record` nor `alert`"
            self.wrong(_line(node), f"a rule has {both}", "expected one of them; keep or add one")
            return None
        if record:
            self._check_record(node, record)
        text = self._text(node, "expr")
        return Rule(
            text=text,
            expression=self._expression(node, text),
            line=_line(node),
            record=record or None,
            alert=alert or None,
            hold=self._duration(node, "for") or 0,
            keep_firing=self._duration(node, "keep_firing_for") or 0,
            labels={**shared, **self._texts(node, "labels")},
            annotations=self._texts(node, "annotations"),
        )

    def _check_record(self, node: yaml.MappingNode, record: str) -> None:
        if not _METRIC.fullmatch(record):
            self.wrong(
                _line(node),
                f"{record!r} is no name of a series",
                "expected letters, digits, `_` and `:`; rename it",
                # Prometheus 3 takes any name.
                Severity.WARNING,
            )
        for name in ("for", "keep_firing_for", "annotations"):
            if _get(node, name) is not None:
                self.wrong(
                    _line(node), f"a recording rule has `{name}`", "expected it in an alert alone; delete it"
                )

    def _expression(self, node: yaml.MappingNode, text: str) -> Any:
        if not text.strip():
            self.wrong(_line(node), "a rule without an expression", "expected `expr:`; write one")
            return None
        try:
            expression = parse(text)
        except ExpressionError as error:
            self.wrong(
                _line(_get(node, "expr") or node),
                f"the expression cannot be read: {error}",
                "expected PromQL; correct it (`promtool check rules` says where); other checks skip it",
            )
            return None
        if isinstance(expression, Subquery | Text) or getattr(expression, "range", None) is not None:
            self.wrong(
                _line(_get(node, "expr") or node),
                "the expression gives a range of samples or text, which promtool accepts and no rule can use",
                "expected one number a series; put a function such as rate() around it",
            )
            return None
        return expression

    def _duration(self, node: yaml.MappingNode, name: str) -> int | None:
        value = _get(node, name)
        text = self._text(node, name)
        if value is None or not text:
            return None
        try:
            return parse_duration(text)
        except DurationError as error:
            self.wrong(
                _line(value), f"`{name}`: {str(error).partition(':')[0]}", "expected one such as 5m; mend it"
            )
        return None

    def _text(self, node: yaml.MappingNode, name: str) -> str:
        value = _get(node, name)
        if value is None:
            return ""
        if isinstance(value, yaml.ScalarNode):
            return "" if value.tag.endswith(":null") else str(value.value)
        self.wrong(
            _line(value), f"`{name}` is no text", "expected text on one line, or a block after `|`; mend it"
        )
        return ""

    def _texts(self, node: yaml.MappingNode, name: str) -> dict[str, str]:
        value = _get(node, name)
        if value is None or (isinstance(value, yaml.ScalarNode) and value.tag.endswith(":null")):
            return {}
        if not isinstance(value, yaml.MappingNode):
            self.wrong(_line(value), f"`{name}` is no mapping", "expected `name: text`, one a line; mend it")
            return {}
        pairs = {}
        for key, entry in value.value:
            if key.tag.endswith(":merge"):
                continue
            if isinstance(key, yaml.ScalarNode) and isinstance(entry, yaml.ScalarNode):
                if key.value in pairs:
                    self._second(key)
                pairs[str(key.value)] = str(entry.value)
            else:
                self.wrong(
                    _line(key), f"`{name}` holds what is no text", "expected text; put quotes around it"
                )
        for merged in _merged(value):
            for key, entry in merged.value:
                if isinstance(key, yaml.ScalarNode) and isinstance(entry, yaml.ScalarNode):
                    pairs.setdefault(str(key.value), str(entry.value))
        return pairs

    def _unknown_fields(self, node: yaml.MappingNode, known: tuple[str, ...]) -> None:
        seen = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"
            if name in seen:
                self._second(key)
            seen.add(name)
            if name in known or name in _OTHERS_FIELDS or key.tag.endswith(":merge"):
                continue
            near = difflib.get_close_matches(name, known, n=1)
            mend = f"did you mean {near[0]}?" if near else "delete it"
            self.wrong(_line(key), f"unknown field {name!r}", f"expected one of {', '.join(known)}; {mend}")

    def _second(self, key: Any) -> None:
        self.wrong(_line(key), f"{key.value!r} stands there twice", "expected it once; delete one")


def _refuse_excess(text: str) -> None:
    """The parser of C builds nodes by recursion and would end the process; its events come one by one.

    A node takes about half a kilobyte: a few megabytes of commas would be gigabytes.
    """
    depth = values = 0
    for event in yaml.parse(text, Loader=_LOADER):
        values += isinstance(event, yaml.NodeEvent)
        if values > MOST_VALUES:
            raise _ExcessError(
                _mark_line(event.start_mark), f"more than {MOST_VALUES:,} values", "split the file"
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MOST_NESTED:
                wrong = f"nested more than {_MOST_NESTED} deep"
                raise _ExcessError(
                    _mark_line(event.start_mark), wrong, "expected a rule file; check its form"
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _manifests(node: Any) -> Iterator[Any]:
    if _scalar(node, "kind") == _MANIFEST:
        yield node
    items = _get(node, "items")
    if isinstance(items, yaml.SequenceNode):
        yield from (item for item in items.value if _scalar(item, "kind") == _MANIFEST)


def _get(node: Any, name: str) -> Any:
    """The node of a field, also where it is merged in from another mapping (``<<: *base``)."""
    if not isinstance(node, yaml.MappingNode):
        return None
    for mapping in (node, *_merged(node)):
        for key, value in mapping.value:
            if isinstance(key, yaml.ScalarNode) and key.value == name:
                return value
    return None


def _merged(node: yaml.MappingNode) -> list[yaml.MappingNode]:
    found = []
    for key, value in node.value:
        if key.tag.endswith(":merge"):
            entries = value.value if isinstance(value, yaml.SequenceNode) else [value]
            found += [entry for entry in entries if isinstance(entry, yaml.MappingNode)]
    return found


def _scalar(node: Any, name: str) -> str:
    value = _get(node, name)
    return str(value.value) if isinstance(value, yaml.ScalarNode) else ""


def _line(node: Any) -> int:
    return _mark_line(node.start_mark)


def _mark_line(mark: Any) -> int:
    return 1 if mark is None else int(mark.line) + 1
