"""Variables: what a dashboard can be narrowed to, each within what has been chosen in those before it.

Values are asked of Prometheus whenever the time range changes, so a scenario of last week is offered when
last week is looked at. "All" is a pattern that also matches what is not in the list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cmo_exporter import catalogue
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models

DATASOURCE_NAME: Final = "datasource"
DATASOURCE: Final = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
ALL: Final = ".+"


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
VARIABLES: Final = (JOB, INSTANCE, SCENARIO, COMPONENT)
"""All that a dashboard may have, in the order in which they narrow each other."""


def datasource_variable() -> builders.DatasourceVariable:
    """The data source: first on every dashboard, because all else is asked of it."""
    return builders.DatasourceVariable(DATASOURCE_NAME).label("Data source").type("prometheus")


def query_variable(variable: Variable) -> builders.QueryVariable:
    """What the SDK makes of a variable."""
    question = f"label_values({variable.series}, {variable.label})"
    return (
        builders.QueryVariable(variable.name)
        .label(variable.title)
        .description(variable.help)
        .datasource(DATASOURCE)
        .definition(question)
        .query({"query": question, "refId": f"variable-{variable.name}", "qryType": 1})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(ALL)
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
        .allow_custom_value(allow_custom_value=False)
    )
