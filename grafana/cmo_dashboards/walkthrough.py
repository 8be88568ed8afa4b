"""The page that walks on-call through each dashboard, made of the panels' own descriptions."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cmo_dashboards.dashboard import Dashboard
    from cmo_dashboards.panels import Panel

_HEAD: Final = """\
# Dashboards, panel by panel

<!-- Made by `cmo dashboards build --docs docs/dashboards.md` from the panels' descriptions; edit those. -->

For the person on call: what each panel answers, and what to do when it is red.

## Which page answers what

Called at night? Open **CMO overview**: its symptoms fit on one screen. The links on top of each page lead to
the others and keep the time that you look at.
"""

_AFTER_THE_CHOICE: Final = """
## How to read them

- **Green** meets its target, **amber** meets it by less than the warning band, **vermilion** misses it; the
  same limits as in the verdict, taken from the same objectives file. **Grey** has no target, or no data: the
  tile then says so in words. No data and no traffic are never green.
- The dashed line in a time series is the target.
- **Scenario** chooses what is shown: `live` is everything that no load test has named. "All test scenarios"
  is "overall" of a verdict: all scenarios of load tests, whatever is chosen, and never live traffic, nor
  `probe`, the prober's canaries, which "All" shows over time. The overview has no choice: it shows live
  traffic.
- **Verdict tiles** say a word: PASS, WARN or FAIL by the targets of `cmo check`; in grey *Too few to judge*
  (fewer events than a verdict needs), *No traffic* (nobody asked) and *No data* (nothing is recorded, or the
  service is not scraped); and in amber *Few, target missed*, which is no verdict yet: what there is, is bad.
  Zero is a number and is drawn; a gap is no data.
- **A page fires, and its tile says PASS or *Too few to judge*?** Believe the page. It looks at minutes and
  needs 5 to 10 bad queries; the tile looks at 15 minutes and needs 100. See *Live success, and answers in
  time*.
- Success, answers in time, cache hits and users are exact: they add up what the
  [rules record](objectives.md#what-is-recorded), over the range that is chosen. Memory growth estimates where
  each test began. For a decision use `cmo check`, which knows when a run began and ended.
- **Prometheus must have loaded the rules.** Without them these panels are grey and without a number, whatever
  the traffic; so is the time before they were loaded. `curl "$CMO_PROMETHEUS_URL/api/v1/rules"` says which
  are there, `/api/v1/targets` what is scraped, each with its last error; Debian's Prometheus has no pages for
  it. When an evaluation fails, CMORulesFailing fires.
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

Without provisioning: import the files of `grafana/dashboards/` by hand and choose a Prometheus data source.

Alerts link to their runbooks where these are published; say so when you build, and give Grafana that folder:

```sh
cmo dashboards build --runbooks-url https://git.example.org/docs/runbooks --output /etc/grafana/cmo
```

## Are they true here?

```sh
cmo dashboards check    # the files: fresh, and nothing that Grafana would misread
cmo dashboards check --prometheus-url http://127.0.0.1:9090    # every query, asked under load
cmo dashboards check --prometheus-url http://127.0.0.1:9090 --idle    # without traffic nothing is green
```

The second prints a line for each query that fails, that returns nothing though a busy service has a value
there, or that returns a value outside the range written beside the panel (a percentage that is 100 times too
large). `--range` and `--scrape-interval` say what Grafana would fill in. Exit status 0: nothing found; 1:
something; 3: wrong usage; 4: Prometheus cannot be read.
"""


def walkthrough(dashboards: Sequence[Dashboard]) -> str:
    """The page, as Markdown."""
    headings = Counter(
        title
        for dashboard in dashboards
        for row in dashboard.rows
        for title in (row.title, *(panel.title for panel in row.panels))
    )
    lines = [_HEAD, *_choice(dashboards), _AFTER_THE_CHOICE]
    for dashboard in dashboards:
        lines += _dashboard(dashboard, headings)
    return "\n".join(lines)


def _choice(dashboards: Sequence[Dashboard]) -> Iterator[str]:
    """Which page answers what."""
    yield "| page | answers |"
    yield "|---|---|"
    for dashboard in dashboards:
        yield f"| [{dashboard.title}](#{_anchor(_heading(dashboard))}) | {dashboard.description} |"


def _heading(dashboard: Dashboard) -> str:
    return f"{dashboard.title} (`{dashboard.uid}`)"


def _anchor(heading: str) -> str:
    """Where a link to a heading leads, as GitHub and most others have it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _dashboard(dashboard: Dashboard, headings: Counter[str]) -> Iterator[str]:
    def unique(title: str) -> str:
        return title if headings[title] == 1 else f"{title} ({dashboard.title})"

    yield f"## {_heading(dashboard)}\n"
    yield f"{dashboard.description}\n"
    for row in dashboard.rows:
        yield f"### {unique(row.title)}\n"
        if row.folded:
            yield "Folded at first: click on its title.\n"
        for panel in row.panels:
            yield f"#### {unique(panel.title)}\n"
            yield from _panel(panel)


def _panel(panel: Panel) -> Iterator[str]:
    yield f"{panel.answers}\n"
    yield f"**When red:** {panel.when_red}\n"
    yield f"Without data it says: “{panel.no_value}”.\n"
