"""YAML with the line of every value, and with a duplicate key as the mistake it is.

PyYAML's own loader forgets where a value stood and lets the second of two equal keys win in silence; both
would make an objectives file lie. Only plain data is read: no tags, and no anchors, which hide what a
reader needs to see in place.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

_MOST_NESTED: Final = 50

# Ten times as fast, where PyYAML was built with libyaml.
_QUICK_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Path = tuple[str | int, ...]


class YamlMistakeError(Exception):
    """The text is no YAML that is read here."""

    def __init__(self, line: int, wrong: str, expected: str, mend: str) -> None:
        self.line = line
        self.wrong = wrong
        self.expected = expected
        self.mend = mend
        super().__init__(f"line {line}: {wrong}; expected {expected}; {mend}")


@dataclass
class Marked:
    """Plain data, the line of each value in it, and the duplicate keys met (path, line, first line)."""

    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    duplicates: list[tuple[Path, int, int]] = field(default_factory=list)


def read(text: str) -> Marked:
    """Parse one YAML document.

    Raises:
        YamlMistakeError: it is not YAML, is nested more than 50 deep, holds several documents, or uses an
            anchor or a tag.
    """
    with suppress(yaml.YAMLError, UnicodeError):
        return _read_by(_QUICK_LOADER, text)
    # What is no YAML is read again for its mistake, which is told in the same words on every machine then.
    try:
        return _read_by(yaml.SafeLoader, text)
    except yaml.MarkedYAMLError as error:
        raise _in_words(error) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        wrong = f"the character {error.character!r} is not allowed in YAML"
        raise YamlMistakeError(line, wrong, "printable text", "delete it") from error


def _read_by(loader_type: Any, text: str) -> Marked:
    _refuse_anchors_and_depth(text, loader_type)
    loader = loader_type(text)
    try:
        node = loader.get_single_node()
        marked = Marked()
        if node is not None:
            marked.data = _plain(loader, node, (), marked)
        return marked
    finally:
        loader.dispose()


def _refuse_anchors_and_depth(text: str, loader_type: Any) -> None:
    # Without aliases a document is a tree: no cycles, and no few lines that expand to gigabytes. Events come
    # one by one, so that the end of a deep document is never looked at: the time that it takes grows with the
    # square of its depth, and to build nodes of it takes recursion.
    depth = 0
    for event in yaml.parse(text, Loader=loader_type):
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            raise YamlMistakeError(
                _line(event.start_mark),
                f"anchor or alias {anchor!r}",
                "every value written out where it applies",
                "write the value itself",
            )
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MOST_NESTED:
            raise YamlMistakeError(
                _line(event.start_mark),
                f"nested more than {_MOST_NESTED} deep",
                "a few levels of fields",
                "start from a copy of cmo-015.yml",
            )


def _line(mark: Any) -> int:
    # PyYAML's marks are typed as if they might be missing; people count lines from 1.
    return 1 if mark is None else int(mark.line) + 1


def _plain(loader: yaml.SafeLoader, node: yaml.Node, path: Path, marked: Marked) -> Any:
    marked.lines.setdefault(path, _line(node.start_mark))
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, path, marked)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, entry, (*path, index), marked) for index, entry in enumerate(node.value)]
    return _scalar(loader, node)


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode, path: Path, marked: Marked) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = _line(key_node.start_mark)
        # As written: a bare yes or 1 is the name of a field here, whatever YAML takes it for.
        key = key_node.value
        if not isinstance(key, str):
            raise YamlMistakeError(
                line, "a list or mapping as a key", "a name before the colon", "write a name"
            )
        if key in mapping:
            marked.duplicates.append(((*path, key), line, marked.lines[(*path, key)]))
            continue
        marked.lines[(*path, key)] = line
        mapping[key] = _plain(loader, value_node, (*path, key), marked)
    return mapping


def _scalar(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    line = _line(node.start_mark)
    # A date is text to everybody who writes one here.
    if node.tag == "tag:yaml.org,2002:timestamp":
        return node.value
    try:
        return loader.construct_object(node)
    except yaml.constructor.ConstructorError as error:
        wrong = f"the tag {node.tag!r} is not read here"
        raise YamlMistakeError(line, wrong, "plain text, numbers and lists", "delete the tag") from error
    except (ValueError, LookupError) as error:
        wrong = f"{node.value!r} is no {node.tag.rpartition(':')[2]}"
        raise YamlMistakeError(line, wrong, "a value of that type", "put quotes around text") from error


def _in_words(error: yaml.MarkedYAMLError) -> YamlMistakeError:
    mark = error.problem_mark or error.context_mark
    line = _line(mark)
    problem = " ".join(part for part in (error.context, error.problem) if part)
    if "'\\t'" in problem:
        return YamlMistakeError(line, "a tab", "spaces, two a level", "replace the tab with spaces")
    if "another document" in problem:
        return YamlMistakeError(line, "a second document", "one document a file", "split the file at ---")
    if "undefined alias" in problem:
        return YamlMistakeError(line, f"not YAML: {problem}", "text in quotes", "put quotes around the *")
    return YamlMistakeError(
        line,
        f"not YAML: {problem}",
        "YAML, nested by spaces",
        "check this line and the one above it for indentation, colons, brackets and quotes",
    )
