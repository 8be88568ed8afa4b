"""Variables: what a dashboard can be narrowed to, each within what has been chosen in those before it.

Values are asked of Prometheus whenever the time range changes, so a scenario of last week is offered when
last week is looked at. "All" is a pattern that also matches what is not in the list.

A run has no label, because labels are closed lists; a release has one, but only on `cmo_build_info`, and what
the rules record knows no instance to join that with. So a run is a distance in time: how many seconds ago the
queries are asked, of the run that is looked at (`RUN`) and of the one beside it (`AGAINST`). Nobody should
have to work that out, so both are offered by name, as "last run of" each release, and by plain distances for
whoever knows better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cmo_exporter import catalogue
from cmo_slo import recorded
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models

from cmo_dashboards.expressions import TESTS

DATASOURCE_NAME: Final = "datasource"
DATASOURCE: Final = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
ALL: Final = ".+"
_LABEL_VALUES: Final = 1
_QUERY_RESULT: Final = 3
"""Kinds of questions, as Grafana's editor of Prometheus variables numbers them."""


@dataclass(frozen=True)
class Variable:
    """One variable: values of a label of some series, any number of them at once.

    Attributes:
        name: how expressions refer to it.
        title: what people call it.
        series: a selector, which may be narrowed by variables before this one.
        label: whose values are offered.
        help: what it narrows, and what it does not.
    """

    name: str
    title: str
    series: str
    label: str
    help: str

    @property
    def stand_in(self) -> str:
        """What stands for it where nobody chooses: as "All" does."""
        return ALL


@dataclass(frozen=True)
class Choice:
    """One variable: one value of a list that is written down here.

    Attributes:
        name: how expressions refer to it.
        title: what people call it.
        options: texts and the values that they stand for; the first is chosen at first.
        help: what it decides.
    """

    name: str
    title: str
    options: tuple[tuple[str, str], ...]
    help: str

    def __post_init__(self) -> None:
        """Refuse a choice of nothing.

        Raises:
            ValueError: it has no option.
        """
        if not self.options:
            raise ValueError(f"variable {self.name!r} has no option; expected one to be chosen at first")

    @property
    def stand_in(self) -> str:
        """What stands for it where nobody chooses: what is chosen at first."""
        return self.options[0][1]


@dataclass(frozen=True)
class Distance:
    """One variable: how many seconds before the end of the range a run is laid over it.

    Attributes:
        name: how expressions refer to it.
        title: what people call it.
        found: PromQL whose results are offered; their values are seconds.
        label: the label of those results that names each.
        fixed: texts and seconds that are always offered, so that it is never without a value; the first is
            chosen at first.
        help: what it decides.
        stand_in: seconds that stand for it where nobody chooses, short enough for a stack just started.
        counted_from: another distance, to which the fixed seconds are added.
    """

    name: str
    title: str
    found: str
    label: str
    fixed: tuple[tuple[str, int], ...]
    help: str
    stand_in: str
    counted_from: Distance | None = None

    def __post_init__(self) -> None:
        """Refuse a variable that may be without a value: it would make every query that asks for it wrong.

        Raises:
            ValueError: it offers no fixed distance.
        """
        if not self.fixed:
            raise ValueError(f"variable {self.name!r} has no fixed distance; expected one, chosen at first")

    @property
    def question(self) -> str:
        """All that is offered, in one query."""
        more = f" + ${{{self.counted_from.name}}}" if self.counted_from else ""
        always = (
            f'label_replace(vector({seconds}{more}), "{self.label}", "{text}", "", "")'
            for text, seconds in self.fixed
        )
        return " or ".join((self.found, *always))

    @property
    def pattern(self) -> str:
        """Takes text and value out of a result as Grafana writes it: ``{label="text"} seconds moment``."""
        return rf'/{self.label}="(?<text>[^"]+)".*\}} (?<value>\d+)/'


AnyVariable = Variable | Choice | Distance


JOB: Final = Variable(
    "job", "Service", catalogue.BUILD_INFO.name, "job", "Scrape job of the service; recorded series know none"
)
INSTANCE: Final = Variable(
    "instance",
    "Instance",
    f'{catalogue.BUILD_INFO.name}{{job=~"$job"}}',
    "instance",
    "One process group that is scraped; recorded series hold all of them together",
)
SCENARIO: Final = Variable(
    "scenario",
    "Scenario",
    catalogue.QUERIES_STARTED.name,
    "scenario",
    "live is everything that no load test has named",
)
COMPONENT: Final = Variable(
    "component",
    "Component",
    f'{catalogue.COMPONENT_CALLS.name}{{scenario=~"$scenario"}}',
    "component",
    "What a query passes: rows repeat for each",
)
HISTORY: Final = Choice(
    "history",
    "Look back for runs",
    (("7 days", "7d"), ("1 day", "1d"), ("30 days", "30d")),
    "How far before the range earlier runs are looked for; further takes longer",
)
_TESTED: Final = f"{recorded.STARTED_QUERIES}{{{TESTS.matcher}}} > 0"
_OF_EACH_RELEASE: Final = f"timestamp({catalogue.BUILD_INFO.name} and on (job, instance) ({_TESTED}))"
TAIL_SECONDS: Final = 60
"""How long after its last query has begun a run may still answer."""


def _last_runs(moments: str, seconds: str) -> str:
    """Seconds for the last run of each release, by name; ``LAST`` in ``seconds`` is when each run ended."""
    last = f"max by (version, revision) (max_over_time(({moments})[$history:$__interval]))"
    named = f'label_replace({seconds.replace("LAST", last)}, "what", "last run of", "", "")'
    return f'label_join({named}, "run", " ", "what", "version", "revision")'


RUN: Final = Distance(
    "run",
    "Run",
    _last_runs(_OF_EACH_RELEASE, f"clamp_min(round(${{__to}} / 1000 - LAST - {TAIL_SECONDS}), 1)"),
    "run",
    (("in the range", 1),),
    "What is looked at: the run in the range, or the last one of a release, moved to the end of the range",
    stand_in="1",
)
"""Seconds by which the run that is looked at is moved; one at least, for Prometheus 2 takes no offset of 0.

A run ends at the last evaluation of the rules that saw one of its queries begin. `cmo_build_info` says which
release was there; during a roll-out a run belongs to both.
"""
_ITS_LAST_MOMENT: Final = f"max(max_over_time(timestamp({_TESTED})[$__range:$__interval] offset ${{run}}s))"
_BEFORE_IT: Final = f"{_OF_EACH_RELEASE} < ${{__to}} / 1000 - $__range_s - ${{run}}"
AGAINST: Final = Distance(
    "against",
    "Compare with",
    _last_runs(_BEFORE_IT, f"floor({_ITS_LAST_MOMENT} - on () group_right () LAST + ${{run}})"),
    "run",
    (("1 day earlier", 86_400), ("1 hour earlier", 3_600), ("7 days earlier", 604_800)),
    "Last run of each release before that run, or a distance from it; any number of seconds may be typed in",
    stand_in="10",
    counted_from=RUN,
)
"""Seconds by which the other run is moved, so that it ends where the one that is looked at does.

Rather a second after its end than before: what is recorded last may be all that a short run has.
"""
VARIABLES: Final[tuple[AnyVariable, ...]] = (JOB, INSTANCE, SCENARIO, COMPONENT, HISTORY, RUN, AGAINST)
"""All that a dashboard may have, in the order in which they narrow each other."""


def datasource_variable() -> builders.DatasourceVariable:
    """The data source: first on every dashboard, because all else is asked of it."""
    return builders.DatasourceVariable(DATASOURCE_NAME).label("Data source").type("prometheus")


def variable_builder(variable: AnyVariable) -> builders.QueryVariable | builders.CustomVariable:
    """What the SDK makes of a variable."""
    if isinstance(variable, Variable):
        return _query_variable(variable)
    return _choice(variable) if isinstance(variable, Choice) else _distance(variable)


def _query_variable(variable: Variable) -> builders.QueryVariable:
    question = f"label_values({variable.series}, {variable.label})"
    return (
        builders.QueryVariable(variable.name)
        .label(variable.title)
        .description(variable.help)
        .datasource(DATASOURCE)
        .definition(question)
        .query({"query": question, "refId": f"variable-{variable.name}", "qryType": _LABEL_VALUES})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(ALL)
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
        .allow_custom_value(allow_custom_value=False)
    )


def _choice(variable: Choice) -> builders.CustomVariable:
    options = [
        models.VariableOption(selected=index == 0, text=text, value=value)
        for index, (text, value) in enumerate(variable.options)
    ]
    return (
        builders.CustomVariable(variable.name)
        .label(variable.title)
        .description(variable.help)
        .values(", ".join(f"{text} : {value}" for text, value in variable.options))
        .options(options)
        .current(options[0])
        .allow_custom_value(allow_custom_value=False)
    )


def _distance(variable: Distance) -> builders.QueryVariable:
    question = f"query_result({variable.question})"
    text, seconds = variable.fixed[0]
    first = seconds + (variable.counted_from.fixed[0][1] if variable.counted_from else 0)
    return (
        builders.QueryVariable(variable.name)
        .label(variable.title)
        .description(variable.help)
        .datasource(DATASOURCE)
        .definition(question)
        .query({"query": question, "refId": f"variable-{variable.name}", "qryType": _QUERY_RESULT})
        .regex(variable.pattern)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .current(models.VariableOption(selected=True, text=text, value=str(first)))
        .allow_custom_value(allow_custom_value=True)
    )
