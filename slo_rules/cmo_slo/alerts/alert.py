"""What every alert says, whatever its kind: how urgent it is, whose it is, and what on-call reads."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from string import Template
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from cmo_slo.durations import DurationError, duration, parse_duration
from cmo_slo.indicators import Model
from cmo_slo.mistakes import Mistake, MistakesError, raise_if_any
from cmo_slo.promql import indented, selector
from cmo_slo.recorded import Window
from cmo_slo.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Severity = Literal["page", "ticket", "info", "watchdog"]
"""Who hears of it: somebody is woken, somebody reads it in working hours, nobody, the dead-man receiver."""

Role = Literal["symptom", "cause", "monitoring"]
"""Users suffer; something may make them suffer; the monitor itself. Causes are silent under a symptom."""

AlertName = Annotated[str, Field(pattern=r"^CMO[A-Za-z0-9]+$")]
Text = Annotated[str, Field(min_length=1)]

TARGET_LABELS: Final = ("job", "instance")
"""What Prometheus adds to everything that it scrapes."""

JobName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/-]+$")]
"""A scrape job, in letters that need no quoting in a rule."""

# The forms of Prometheus' templates that our texts need; anything else may be a mistake that only shows
# when it pages.
_FUNCTIONS: Final = (
    "humanize",
    "humanize1024",
    "humanizeDuration",
    "humanizePercentage",
    "humanizeTimestamp",
    "printf",
)
# A number has one verb of its own: with another, or one too many, it is read as an error of the template.
_NUMBER: Final = r'printf "%[-+ 0-9.]*[eEfgG](?:%%)?[^"%\\\n]*"'
_FILLED: Final = re.compile(
    rf"\{{\{{ (?:\$value(?: \| (?:{'|'.join(_FUNCTIONS[:-1])}|{_NUMBER}))?"
    rf'|\$labels\.\w+(?: \| printf "%[sq]")?) \}}\}}'
)
_TEMPLATE: Final = re.compile(r"\{\{[^{}]*\}\}")
_NAME: Final = re.compile(r"[$|] *(\w+)")
_NAMES: Final = ("value", "labels", *_FUNCTIONS)
_VALUE: Final = re.compile(r"\{\{ \$value")


def _is_duration(text: object) -> object:
    try:
        milliseconds = parse_duration(text) if isinstance(text, str) else None
    except DurationError:
        milliseconds = None
    if not milliseconds:
        wrong = f"{text!r} is no time at all" if milliseconds == 0 else f"{text!r} is no duration"
        raise MistakesError([Mistake((), wrong, "one such as 15s, 5m or 1h30m", "write number and unit")])
    return text


def _template_mistakes(text: str) -> list[Mistake]:
    """Templates that Prometheus may refuse, or fill with something else than is meant."""
    expected = "{{ $value }} or {{ $labels.NAME }}, also with | humanize… or | printf"
    mistakes = []
    for template in _TEMPLATE.findall(text):
        if not _FILLED.fullmatch(template):
            unknown = [name for name in _NAME.findall(template) if name not in _NAMES]
            near = [match for name in unknown for match in difflib.get_close_matches(name, _NAMES, n=1)]
            mend = f"did you mean {near[0]}?" if near else "write one of these"
            mistakes.append(Mistake((), f"{template} is no template that is known here", expected, mend))
    rest = _TEMPLATE.sub("", text)
    if "{{" in rest:
        mistakes.append(Mistake((), "a {{ is not closed", expected, "close it with }}"))
    if "}}" in rest:
        mistakes.append(Mistake((), "a }} closes nothing", expected, "open it with {{, or delete it"))
    return mistakes


def _has_value(text: str) -> str:
    raise_if_any(_template_mistakes(text))
    if not _VALUE.search(text):
        raise MistakesError(
            [Mistake((), "the value is not in the text", "{{ $value }}, formatted", "say how bad it is")]
        )
    return text


def _is_plain(text: str) -> str:
    if "{{" in text or "}}" in text:
        wrong = "a template stands in the text"
        raise MistakesError([Mistake((), wrong, "a few plain words", "say the value in the description")])
    return text


PlainText = Annotated[Text, AfterValidator(_is_plain)]

Duration = Annotated[str, BeforeValidator(_is_duration)]
"""As Prometheus writes it, and not 0."""

# What Prometheus has to keep samples for follows from the windows of the budget. What it keeps no longer
# counts for nothing, and the result looks like any other.
_LONGEST_READ: Final = parse_duration(Window.MONTH)


def read_back(*, windows: int = 1) -> AfterValidator:
    """Bounds a window by how far an alert reads back for it: no further than the budget of 30 days does.

    Args:
        windows: how many of it the alert reads, end to end.
    """
    longest = _LONGEST_READ // windows

    def is_kept(text: str) -> str:
        length = parse_duration(text)
        if length > longest:
            wrong = f"{text!r} is too long: {duration(windows * length)} would be read back"
            raise MistakesError([Mistake((), wrong, f"{duration(longest)} or less", "shorten it")])
        return text

    return AfterValidator(is_kept)


ValueText = Annotated[Text, AfterValidator(_has_value)]
"""A text with Prometheus' template of the value in it; ``$limit``, ``$window`` and so on are filled in."""


_FEWEST_SCRAPES: Final = 4
RESOURCES: Final = "cmo-resources"
"""The dashboard of what the processes use, and of what model calls cost."""


@dataclass(frozen=True)
class Surroundings:
    """What alerts need to know of the file they stand in, and of the scrapes they are compiled for.

    ``scenarios`` are those of a load test; ``runbooks`` and ``dashboards`` are what links begin with;
    ``interval`` and ``restart`` are milliseconds.
    """

    slo: str
    interval: int
    job: str
    probe_job: str
    scenarios: tuple[str, ...]
    restart: int
    runbooks: str
    dashboards: str

    def window(self, text: str) -> int:
        """How long a window of the file is, in milliseconds: at least four scrapes, as fewer show nothing."""
        return max(parse_duration(text), _FEWEST_SCRAPES * self.interval)


class Alert(Model):
    """What every alert has. Texts are Prometheus templates; the description says value and consequence."""

    WORDS: ClassVar[tuple[str, ...]] = ()
    """What the compiler fills in in a description: ``$limit`` and the like."""

    LABELS: ClassVar[tuple[str, ...]] = ()
    """Labels that its series always have; ``$labels`` holds them, and none that the rule adds."""

    LABELS_FOLLOW_FROM: ClassVar[tuple[str, ...]] = ("by",)
    """Fields that say which labels its series have beside those."""

    alert: AlertName
    summary: PlainText
    """A few words, for a lock screen."""
    description: ValueText
    """The value, and what it means to users."""

    @classmethod
    def series_labels(cls, fields: Mapping[str, Any]) -> tuple[str, ...]:
        """Labels of the series that fire: what ``{{ $labels.NAME }}`` can be.

        Args:
            fields: those of an alert, as they stand in a file; those that labels follow from are sound.
        """
        return (*cls.LABELS, *fields.get("by", ()))


def alert_rule(
    alert: Alert,
    surroundings: Surroundings,
    expression: str,
    *,
    severity: Severity,
    role: Role,
    component: str | None = None,
    words: Mapping[str, str] | None = None,
    waits: int = 0,
    lingers: int = 0,
    dashboard: str | None = None,
) -> Rule:
    """The rule of an alert.

    Args:
        alert: what it says.
        surroundings: whose it is and where its links lead.
        expression: when it fires.
        severity: who hears of it.
        role: symptom, cause or monitoring.
        component: where the series do not say it themselves.
        words: what stands for ``$limit`` and the like in the description.
        waits: milliseconds for which the expression must hold.
        lingers: milliseconds for which it fires on, so that a value near its limit is one alert and not ten.
        dashboard: uid of the one to look at first, where its labels do not say it.
    """
    labels: dict[str, str] = {"severity": severity, "role": role}
    if component is not None:
        labels["component"] = component
    return Rule(
        expression,
        alert=alert.alert,
        labels=labels,
        annotations={
            "summary": alert.summary,
            "description": Template(alert.description).safe_substitute(words or {}),
            "runbook_url": f"{surroundings.runbooks}/{alert.alert}.md",
            "dashboard_url": f"{surroundings.dashboards}/d/{dashboard or _dashboard(labels)}",
        },
        for_milliseconds=waits,
        keep_firing_milliseconds=lingers,
    )


def _dashboard(labels: Mapping[str, str]) -> str:
    """The dashboard that answers what an alert asks first; those of this project have these names.

    A page, or a symptom: who suffers, and since when. A cause: the component, or the process. Else the
    monitoring itself, or the test that runs.
    """
    if labels["severity"] == "page" or labels["role"] == "symptom":
        return "cmo-overview"
    if labels["role"] == "monitoring":
        return "cmo-load-test" if labels["severity"] == "info" else "cmo-monitor"
    return RESOURCES if labels.get("component") == "service" else "cmo-components"


def of_this_field(mistakes: Sequence[Mistake]) -> list[Mistake]:
    """Mistakes that name a field, as the validator of that field reports them."""
    return [replace(mistake, field=mistake.field[1:]) for mistake in mistakes]


def label_name_mistakes(names: Sequence[str], series: str, known: Sequence[str]) -> list[Mistake]:
    """What is wrong with the labels by which the series of an alert are told apart.

    Args:
        names: the labels.
        series: what they are labels of.
        known: the labels that it has.
    """
    expected = ", ".join(known) or "no labels at all"
    return [
        Mistake((index,), f"{name!r} stands there twice", "each label once", "delete one")
        if name in names[:index]
        else Mistake((index,), f"{series} has no label {name!r}", expected, _nearest(name, known))
        for index, name in enumerate(names)
        if name in names[:index] or name not in known
    ]


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else "name one of its labels"


def percentage(share: float) -> str:
    """A share as people write it: ``10%``."""
    return f"{100 * share:g}%"


def seconds(number: float) -> str:
    """A time in seconds as people write it: ``0.5 s``."""
    return f"{number:g} s"


LATENCY_WORDS: Final = ("threshold",)
"""What is filled in beside `Alert.WORDS` where the objective of a page or a ticket is a latency."""


def threshold_word(threshold: float | None) -> dict[str, str]:
    """What stands for ``$threshold``, where there is one; it is in seconds."""
    return {} if threshold is None else {"threshold": seconds(threshold)}


def exceeds(bad: str, total: str, share_above: float, minimum_bad_events: int) -> str:
    """Whether the share of bad events is above a limit, and there are enough of them to mean something.

    Divided, not multiplied out: a quotient is rounded once, so exactly the limit is not above it. The guard
    keeps an idle window from being a ratio at all.
    """
    return f"{bad} / ({total} > 0) > {share_above!r}\nand\n{bad} >= {minimum_bad_events}"


def excluding(condition: str, others: tuple[str, ...]) -> str:
    """A condition, unless one of the others holds: one incident wakes people once.

    In the expressions themselves, because an inhibition lets many of the pages through that come in the same
    request as their source (``evidence.md``, Paging).
    """
    if not others:
        return condition
    return "\nunless on ()\n".join(f"(\n  {indented(one)}\n)" for one in (condition, *others))


def fires(slo: str, *alerts: str) -> str:
    """Whether one of some pages fires, or still does: what it was about has ended, and has its effects yet.

    Queries that hung are slow or failed at the moment when they end, and are no incident of their own. A rule
    sees what those before it in its group have written in the same evaluation.
    """
    return selector("ALERTS", {"slo": (slo,), "alertname": alerts, "alertstate": ("firing",)})
