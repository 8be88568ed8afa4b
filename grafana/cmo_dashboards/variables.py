"""Variables: what a dashboard can be narrowed to, each within what has been chosen in those before it.

Values are asked of Prometheus whenever the time range changes, so a scenario of last week is offered when
last week is looked at. "All" is a pattern that also matches what is not in the list.

A run has no label, because labels are closed lists; a release has one, but only on `cmo_build_info`, and what
the rules record knows no instance to join that with. So what another run is compared with is a distance in
time (`AGAINST`): how many seconds earlier the same queries are asked again. Nobody should have to work that
out, so it is offered by name, as "last run of" each release, and by plain distances for whoever knows better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cmo_exporter import catalogue
from cmo_slo import recorded
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models

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
    """One variable: seconds that lie between what is looked at and what it is compared with.

    Attributes:
        name: how expressions refer to it.
        title: what people call it.
        found: PromQL whose results are offered; their values are seconds.
        label: the label of those results that names each.
        fixed: texts and seconds that are always offered, so that it is never without a value; the first is
            chosen at first.
        help: what it is measured from.
        stand_in: seconds that stand for it where nobody chooses, short enough for a stack just started.
    """

    name: str
    title: str
    found: str
    label: str
    fixed: tuple[tuple[str, int], ...]
    help: str
    stand_in: str

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
        always = (
            f'label_replace(vector({seconds}), "{self.label}", "{text}", "", "")'
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
_NO_TESTS: Final = f"{catalogue.LIVE}|{catalogue.PROBE_SCENARIO}"
_TESTED: Final = f'{recorded.STARTED_QUERIES}{{scenario=~"$scenario", scenario!~"{_NO_TESTS}"}} > 0'
_LAST_MOMENT: Final = f"max(max_over_time(timestamp({_TESTED})[$__range:$__interval]))"
_LAST_MOMENT_OF_EACH_RELEASE: Final = (
    "max by (version, revision) (max_over_time(timestamp("
    f"{catalogue.BUILD_INFO.name} and on (job, instance) ({_TESTED})"
    ")[$history:$__interval] offset $__range))"
)
AGAINST: Final = Distance(
    "against",
    "Compare with",
    "label_join(label_replace("
    f'{_LAST_MOMENT} - on () group_right () {_LAST_MOMENT_OF_EACH_RELEASE}, "what", "last run of", "", ""'
    '), "run", " ", "what", "version", "revision")',
    "run",
    (("1 day earlier", 86_400), ("1 hour earlier", 3_600), ("7 days earlier", 604_800)),
    "Last run of each release before the range, or a distance; any number of seconds may be typed in",
    stand_in="10",
)
"""Seconds from the end of another run to the end of the run in the range.

Both ends are the last evaluation of the rules that saw a query begin, so the two runs are laid over each
other by their ends. `cmo_build_info` says which release was there; during a roll-out a run belongs to both.
"""
VARIABLES: Final[tuple[AnyVariable, ...]] = (JOB, INSTANCE, SCENARIO, COMPONENT, HISTORY, AGAINST)
"""All that a dashboard may have, in the order in which they narrow each other."""


def datasource_variable() -> builders.DatasourceVariable:
    """The data source: first on every dashboard, because all else is asked of it."""
    return builders.DatasourceVariable(DATASOURCE_NAME).label("Data source").type("prometheus")


def variable_builder(variable: AnyVariable) -> builders.QueryVariable | builders.CustomVariable:
    """What the SDK makes of a variable."""
    if isinstance(variable, Variable):
        return query_variable(variable)
    return _choice(variable) if isinstance(variable, Choice) else _distance(variable)


def query_variable(variable: Variable) -> builders.QueryVariable:
    """What the SDK makes of a variable."""
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
        .current(models.VariableOption(selected=True, text=text, value=str(seconds)))
        .allow_custom_value(allow_custom_value=True)
    )
