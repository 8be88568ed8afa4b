"""PromQL as plain frozen data: what the checks reason about.

promql_parser's own nodes copy their whole subtree at every look, cannot be compared, and end the process
where an expression is nested thousands deep. So an expression is measured before it is parsed, and turned
once into nodes that can be compared, hashed and walked. Parentheses are gone from them: they only say how to
parse.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import promql_parser

from cmo_slo.durations import duration

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_NESTED: Final = 100
MOST_OPERATORS: Final = 200
MOST_CHARACTERS: Final = 100_000
COMPARISONS: Final = frozenset({">", ">=", "<", "<=", "==", "!="})

_TEXT: Final = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|`[^`]*`|#[^\n]*", re.DOTALL)
_OPERATOR: Final = re.compile(r"[-+*/%^]|[<>]=?|==|!=|\b(?:and|or|unless|atan2)\b", re.IGNORECASE)
# A pattern that is only a list of words, with dots that are meant as dots.
_LISTED: Final = re.compile(r"(?:[\w|-]|\[\.\]|\\\.)+", re.ASCII)
_MILLISECOND: Final = timedelta(milliseconds=1)


class ExpressionError(ValueError):
    """The text cannot be read as PromQL; the message says why."""


@dataclass(frozen=True)
class Matcher:
    """One condition on a label; ``operator`` is ``=``, ``!=``, ``=~`` or ``!~``."""

    name: str
    operator: str
    value: str

    def accepts(self, value: str) -> bool:
        """Whether a label of this value passes; a pattern that Python cannot read accepts everything."""
        if self.operator in ("=", "!="):
            return (value == self.value) is (self.operator == "=")
        try:
            found = re.fullmatch(self.value, value) is not None
        except re.error:
            return True
        return found is (self.operator == "=~")

    @property
    def literals(self) -> tuple[str, ...] | None:
        """The values listed by ``=`` or by a pattern that is only a list, such as ``a|b``; else ``None``."""
        if self.operator in ("=", "!="):
            return (self.value,)
        listed = self.value.removeprefix("(").removesuffix(")")
        if not _LISTED.fullmatch(listed):
            return None
        return tuple(listed.replace("[.]", ".").replace("\\.", ".").split("|"))

    def __str__(self) -> str:
        return f'{self.name}{self.operator}"{self.value}"'


@dataclass(frozen=True)
class Number:
    """A constant."""

    value: float

    def __str__(self) -> str:
        return f"{self.value:g}"


@dataclass(frozen=True)
class Text:
    """A string, as some functions take it."""

    value: str

    def __str__(self) -> str:
        return f'"{self.value}"'


@dataclass(frozen=True)
class Selector:
    """A choice of series, at an instant or over a range. Times are in milliseconds.

    ``matchers`` has no ``__name__``; ``alternatives`` is set where matchers are joined by ``or``, which no
    check looks into. ``pinned`` is set by ``@``.
    """

    name: str
    matchers: frozenset[Matcher] = frozenset()
    range: int | None = None
    offset: int = 0
    pinned: bool = False
    alternatives: bool = False

    def fixed(self) -> dict[str, str]:
        """The labels that every selected series has, by ``=``."""
        return {one.name: one.value for one in self.matchers if one.operator == "=" and one.value}

    def __str__(self) -> str:
        matchers = ",".join(sorted(map(str, self.matchers)))
        text = self.name + (f"{{{matchers}}}" if matchers or not self.name else "")
        text += f"[{duration(self.range)}]" if self.range is not None else ""
        return text + (f" offset {duration(self.offset)}" if self.offset else "")


@dataclass(frozen=True)
class Subquery:
    """An expression evaluated again and again over a range, by default once an evaluation interval."""

    expression: Expression
    range: int
    step: int | None = None
    offset: int = 0

    def __str__(self) -> str:
        step = duration(self.step) if self.step else ""
        return f"({self.expression})[{duration(self.range)}:{step}]"


@dataclass(frozen=True)
class Call:
    """A function and its arguments."""

    function: str
    arguments: tuple[Expression, ...]

    def __str__(self) -> str:
        return f"{self.function}({', '.join(map(str, self.arguments))})"


@dataclass(frozen=True)
class Aggregate:
    """An aggregation; ``by`` or ``without`` is set where it groups, and an empty ``by`` leaves no label."""

    operator: str
    expression: Expression
    by: frozenset[str] | None = frozenset()
    without: frozenset[str] | None = None
    parameter: Expression | None = None

    def __str__(self) -> str:
        how = f" by ({', '.join(sorted(self.by))}) " if self.by else ""
        how = f" without ({', '.join(sorted(self.without))}) " if self.without is not None else how
        parameter = f"{self.parameter}, " if self.parameter is not None else ""
        return f"{self.operator}{how}({parameter}{self.expression})"


@dataclass(frozen=True)
class Matching:
    """How the series of two sides are brought together; ``group`` is ``left``, ``right`` or empty."""

    on: bool = False
    labels: frozenset[str] = frozenset()
    group: str = ""
    included: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Binary:
    """An operator between two expressions; with ``returns_bool`` a comparison gives 0 or 1."""

    operator: str
    left: Expression
    right: Expression
    matching: Matching = Matching()
    returns_bool: bool = False

    @property
    def filters(self) -> bool:
        """Whether it lets through only those series of its left side that pass."""
        return self.operator in COMPARISONS and not self.returns_bool

    def __str__(self) -> str:
        return f"{_bracketed(self.left)} {self.operator} {_bracketed(self.right)}"


@dataclass(frozen=True)
class Negation:
    """A minus in front."""

    expression: Expression

    def __str__(self) -> str:
        return f"-{_bracketed(self.expression)}"


Expression: TypeAlias = Number | Text | Selector | Subquery | Call | Aggregate | Binary | Negation


def parse(text: str) -> Expression:
    """Read one expression.

    Raises:
        ExpressionError: it is no PromQL that can be read here.
    """
    _refuse_monsters(text)
    try:
        return _convert(promql_parser.parse(text))
    except (ValueError, OverflowError, RecursionError) as error:
        raise ExpressionError(" ".join(str(error).split()) or "it cannot be read") from error


def walk(expression: Expression) -> Iterator[Expression]:
    """The expression and everything inside it."""
    waiting = [expression]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += reversed(children(node))


def children(node: Expression) -> tuple[Expression, ...]:
    """What stands directly inside a node."""
    if isinstance(node, Subquery | Negation):
        return (node.expression,)
    if isinstance(node, Aggregate):
        return (node.expression,) if node.parameter is None else (node.parameter, node.expression)
    if isinstance(node, Call):
        return node.arguments
    return (node.left, node.right) if isinstance(node, Binary) else ()


def selectors(expression: Expression) -> Iterator[Selector]:
    """Every choice of series in an expression."""
    return (node for node in walk(expression) if isinstance(node, Selector))


def constant(expression: Expression) -> float | None:
    """The value of arithmetic over numbers alone, such as ``14.4 * 0.05``; ``None`` for anything else."""
    if isinstance(expression, Number):
        return expression.value
    if isinstance(expression, Negation):
        inner = constant(expression.expression)
        return None if inner is None else -inner
    if isinstance(expression, Call) and expression.function in ("vector", "scalar"):
        return constant(expression.arguments[0])
    if not isinstance(expression, Binary):
        return None
    left, right = constant(expression.left), constant(expression.right)
    return None if left is None or right is None else _arithmetic(expression.operator, left, right)


def shown(expression: Expression, most: int = 90) -> str:
    """An expression for a message: on one line, and cut where it is long."""
    text = str(expression)
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _arithmetic(operator: str, left: float, right: float) -> float | None:
    try:
        match operator:
            case "+":
                return left + right
            case "-":
                return left - right
            case "*":
                return left * right
            case "/":
                return left / right
            case "%":
                return math.fmod(left, right)
            case "^":
                return float(left**right)
    except (ArithmeticError, ValueError, TypeError):
        return None
    return None


def _bracketed(expression: Expression) -> str:
    return f"({expression})" if isinstance(expression, Binary) else str(expression)


def _refuse_monsters(text: str) -> None:
    if len(text) > MOST_CHARACTERS:
        raise ExpressionError(f"it has {len(text):,} characters, and {MOST_CHARACTERS:,} are read at most")
    bare = _TEXT.sub("", text)
    depth = deepest = 0
    for character in bare:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    if deepest > MOST_NESTED:
        raise ExpressionError(f"it is nested {deepest:,} deep, and {MOST_NESTED} levels are read at most")
    operators = len(_OPERATOR.findall(bare))
    if operators > MOST_OPERATORS:
        raise ExpressionError(f"it has {operators:,} operators, and {MOST_OPERATORS} are read at most")


def _convert(node: Any) -> Expression:
    while isinstance(node, promql_parser.ParenExpr):
        node = node.expr
    converted: Expression = _CONVERTERS[type(node)](node)
    return converted


def _selector(node: promql_parser.VectorSelector, length: int | None = None) -> Selector:
    matchers = [Matcher(one.name, _match_operator(one), one.value) for one in node.matchers.matchers]
    named = [one.value for one in matchers if one.name == "__name__" and one.operator == "="]
    return Selector(
        name=node.name or (named[0] if named else ""),
        matchers=frozenset(one for one in matchers if one.name != "__name__" or one.operator != "="),
        range=length,
        offset=_milliseconds(node.offset) or 0,
        pinned=node.at is not None,
        alternatives=bool(node.matchers.or_matchers),
    )


def _match_operator(matcher: promql_parser.Matcher) -> str:
    for operator, sign in _MATCH_OPERATORS:
        if matcher.op == operator:
            return sign
    raise ExpressionError(f"unknown operator in {matcher}")


def _matrix(node: promql_parser.MatrixSelector) -> Selector:
    return _selector(node.vector_selector, _milliseconds(node.range))


def _subquery(node: promql_parser.SubqueryExpr) -> Subquery:
    return Subquery(
        _convert(node.expr),
        _milliseconds(node.range) or 0,
        _milliseconds(node.step),
        _milliseconds(node.offset) or 0,
    )


def _call(node: promql_parser.Call) -> Call:
    return Call(node.func.name, tuple(_convert(argument) for argument in node.args))


def _aggregate(node: promql_parser.AggregateExpr) -> Aggregate:
    by: frozenset[str] | None = frozenset()
    without: frozenset[str] | None = None
    if node.modifier is not None:
        labels = frozenset(node.modifier.labels)
        is_by = node.modifier.type == promql_parser.AggModifierType.By
        by, without = (labels, None) if is_by else (None, labels)
    parameter = None if node.param is None else _convert(node.param)
    return Aggregate(str(node.op), _convert(node.expr), by, without, parameter)


def _binary(node: promql_parser.BinaryExpr) -> Binary:
    modifier = node.modifier
    operator, left, right = str(node.op), _convert(node.lhs), _convert(node.rhs)
    if modifier is None:
        return Binary(operator, left, right)
    matching = modifier.matching
    group = ""
    if modifier.card == promql_parser.VectorMatchCardinality.ManyToOne:
        group = "left"
    elif modifier.card == promql_parser.VectorMatchCardinality.OneToMany:
        group = "right"
    return Binary(
        operator,
        left,
        right,
        Matching(
            on=matching is not None and matching.type == promql_parser.LabelModifierType.Include,
            labels=frozenset(matching.labels if matching else ()),
            group=group,
            included=frozenset(modifier.group_labels or ()),
        ),
        returns_bool=modifier.return_bool,
    )


def _negation(node: promql_parser.UnaryExpr) -> Negation:
    return Negation(_convert(node.expr))


def _number(node: promql_parser.NumberLiteral) -> Number:
    return Number(node.val)


def _text(node: promql_parser.StringLiteral) -> Text:
    return Text(node.val)


def _milliseconds(length: timedelta | None) -> int | None:
    return None if length is None else length // _MILLISECOND


_MATCH_OPERATORS: Final = (
    (promql_parser.MatchOp.Equal, "="),
    (promql_parser.MatchOp.NotEqual, "!="),
    (promql_parser.MatchOp.Re, "=~"),
    (promql_parser.MatchOp.NotRe, "!~"),
)
_CONVERTERS: Final[dict[type, Any]] = {
    promql_parser.VectorSelector: _selector,
    promql_parser.MatrixSelector: _matrix,
    promql_parser.SubqueryExpr: _subquery,
    promql_parser.Call: _call,
    promql_parser.AggregateExpr: _aggregate,
    promql_parser.BinaryExpr: _binary,
    promql_parser.UnaryExpr: _negation,
    promql_parser.NumberLiteral: _number,
    promql_parser.StringLiteral: _text,
}
