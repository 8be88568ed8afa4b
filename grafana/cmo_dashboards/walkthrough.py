"""The page that walks on-call through each dashboard, made of the panels' own descriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cmo_dashboards.dashboard import Dashboard
    from cmo_dashboards.panels import Panel, Row

_HEAD: Final = """\
# Dashboards, panel by panel

<!-- Made by `cmo dashboards build --docs docs/dashboards.md` from the panels' descriptions; edit those. -->

For the person on call: what each panel answers, and what to do when it is red.

## How to read them

- **Green** meets its target, **amber** meets it by less than the warning band, **vermilion** misses it; the
  same limits as in the verdict, taken from the same objectives file. **Grey** has no target, or no data: the
  tile then says so in words. No data and no traffic are never green.
- The dashed line in a time series is the target.
- **Scenario** chooses what is shown: `live` is everything that no load test has named. "All test scenarios"
  pools the chosen scenarios of load tests, as "overall" does in a verdict: never live traffic, nor `probe`,
  the prober's canaries, which "All" shows over time.
- Success, answers in time, cache hits and users are exact: they add up what the
  [rules record](objectives.md#what-is-recorded), over the range that is chosen. Memory growth estimates where
  each test began. For a decision use `cmo check`, which knows when a run began and ended.
- **Prometheus must have loaded the rules.** Without them these panels are grey and without a number, whatever
  the traffic; so is the time before they were loaded. Prometheus' page /rules says which are there.
- Windows follow the scrape interval that Grafana's data source knows. The provisioned one takes it from
  `CMO_SCRAPE_INTERVAL`, 15 s if that is empty; with scrapes every second, set it to `1s`, or short scenarios
  look smoothed. Shorter than the interval of the rules, it leaves gaps in the number of users.

## Putting them into Grafana

For Grafana 12 or later. Addresses and paths come from the environment:

```sh
export CMO_PROMETHEUS_URL=http://127.0.0.1:9090 CMO_SCRAPE_INTERVAL=15s
export CMO_DASHBOARDS_DIR="$PWD/grafana/dashboards"
export GF_PATHS_PROVISIONING="$PWD/grafana/provisioning"
grafana server --homepath /usr/share/grafana
```

Prometheus needs the compiled rules for its scrape interval: `prometheus/prometheus.yml` names them.

Without provisioning: import `grafana/dashboards/cmo-015.json` by hand and choose a Prometheus data source.
"""


def walkthrough(dashboards: Sequence[Dashboard]) -> str:
    """The page, as Markdown."""
    return "\n".join([_HEAD, *(line for dashboard in dashboards for line in _dashboard(dashboard))])


def _dashboard(dashboard: Dashboard) -> Iterator[str]:
    yield f"## {dashboard.title} (`{dashboard.uid}`)\n"
    yield f"{dashboard.description}\n"
    for row in dashboard.rows:
        yield from _row(row)


def _row(row: Row) -> Iterator[str]:
    yield f"### {row.title}\n"
    for panel in row.panels:
        yield from _panel(panel)


def _panel(panel: Panel) -> Iterator[str]:
    yield f"#### {panel.title}\n"
    yield f"{panel.answers}\n"
    yield f"**When red:** {panel.when_red}\n"
    yield f"Without data it says: “{panel.no_value}”.\n"
