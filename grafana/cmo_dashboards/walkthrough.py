"""The page that walks on-call through each dashboard, made of the panels' own descriptions."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cmo_dashboards.dashboard import Dashboard
    from cmo_dashboards.panels import Panel

_RUNBOOK: Final = re.compile(r"\b(CMO[A-Z][A-Za-z]+)(?:\.md)?\b")
"""Names of alerts, which are those of their runbooks."""
_HEAD: Final = """\
# Dashboards, panel by panel

<!-- Made by `cmo dashboards build --docs docs/dashboards.md` from the panels' descriptions; edit those. -->

For the person on call: what each panel answers, and what to do when it is red.

## Which page answers what

Called at night? Open **CMO overview**: its symptoms fit on one screen. The links on top of each page lead to
the others and keep the time that you look at.
"""

_AFTER_THE_TABLE: Final = """
CMOMonitoringSilent comes from the dead-man, when Prometheus or the Alertmanager may be gone, so no panel
of firing alerts ever shows it. A ticket names its dashboard and its runbook itself; all are in
[alerts.md](alerts.md).

## How to read them

- **Green** meets its target, **amber** meets it by less than the warning band, **vermilion** misses it;
  the same limits as in the verdict, taken from the same objectives file. **Grey** is no verdict. It has no
  target, or is as it should be (a target that is up, a closed breaker, *none* that fires, *passes*:
  nothing else fails), or it is not known, and then says so in words. No data and no traffic are never
  green. Tickets that fire are amber too, and states of a breaker between open and closed.
- **What to do** stands in the place of **When red** on panels that are never red.
- The dashed line in a time series is the target. Other colours of lines only tell them apart: outcomes,
  sources, scenarios, components, tiers and states of breakers each have their own on every panel;
  instances, models and the like are shades of one blue.
- **Marks** on time series: vermilion is an alert that fires, page or ticket; blue a deploy; grey a load
  test, for an hour after it too, while tickets on causes are silent. Alerts that the Alertmanager silences
  are marked and counted: Prometheus knows no silences.
- **Scenario** chooses what is shown: `live` is everything that no load test has named. "All test
  scenarios" is "overall" of a verdict: all scenarios of load tests, whatever is chosen, and never live
  traffic, nor `probe`, the prober's canaries, which "All" shows over time. The overview has no choice: it
  shows live traffic.
- **Verdict tiles** say a word: PASS, WARN or FAIL by the targets of `cmo check`; in grey *Too few to
  judge* (fewer events than a verdict needs), *No traffic* (nobody asked) and *No data* (nothing is
  recorded, or the service is not scraped); and in amber *Few, target missed*, which is no verdict yet:
  what there is, is bad.
- **A page fires, and its tile says PASS or *Too few to judge*?** Believe the page. It looks at minutes and
  needs 5 to 10 bad queries; the tile looks at 15 minutes and needs 100. See *Live success, and answers in
  time*.
- **Zero is a number and is drawn; a gap is no data.** A panel that is empty both without traffic and
  without data says so: *Targets up*, in the first row, tells which.
- Success, answers in time, cache hits and users are exact: they add up what the [rules
  record](objectives.md#what-is-recorded), over the range that is chosen. Memory growth estimates where
  each test began. For a decision use `cmo check`, which knows when a run began and ended.
- **Prometheus must have loaded the rules.** Without them these panels are grey and without a number,
  whatever the traffic; so is the time before they were loaded. Its address with `/api/v1/rules` behind it
  says which are there, with `/api/v1/targets` what is scraped, each with its last error; Debian's
  Prometheus has no pages for it. When an evaluation fails, CMORulesFailing fires.
- Windows follow the scrape interval that Grafana's data source knows. The provisioned one takes it from
  `CMO_SCRAPE_INTERVAL`, 15 s if that is empty; with scrapes every second, set it to `1s`, or short
  scenarios look smoothed. Shorter than the interval of the rules, it leaves gaps in the number of users.

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

Each runbook is a dashboard too (`runbooks/`), at `/d/` and the name of its alert. Where runbooks are
published, links lead there; say so when you build, and give Grafana that folder:

```sh
cmo dashboards build --runbooks-url https://git.example.org/docs/runbooks --output /etc/grafana/cmo
```

These dashboards are those of the shipped objectives, and ask for the scrape job `cmo`. Another job, another
target: build from [objectives of your own](objectives.md#numbers-of-your-own). What shows something that
[they lack](objectives.md#fewer-objectives) is left out, and the exit status is 1.

```sh
cmo dashboards build my.yml --output /etc/grafana/cmo
```

## Are they true here?

```sh
cmo dashboards check    # the files: fresh, and nothing that Grafana would misread
cmo dashboards check --objectives my.yml /etc/grafana/cmo/*.json    # of objectives of your own
```

Whether every query finds something, and nothing that cannot be (a percentage 100 times too large), shows only
under load: live questions for a minute, and a load test. On a stack of
`cmo stack up --scrape-interval 1`:

```sh
cmo dashboards check --prometheus-url http://127.0.0.1:9090 --scrape-interval 1s --idle    # nothing green
while sleep 1; do    # live questions
  curl -s -o /dev/null -H 'Content-Type: application/json' -H 'X-CMO-Session: somebody' \\
    -d '{"question": "What does citrulline tell about gut mass?"}' http://127.0.0.1:8000/query
done &
cmo loadtest run
cmo dashboards check --prometheus-url http://127.0.0.1:9090 --scrape-interval 1s    # every query
kill %1
```

`--scrape-interval` is that Prometheus' own, `--range` how far back to look: windows follow from them as in
Grafana. `--objectives` are those of its rules. One line a finding. Exit status 0: nothing found; 1:
something; 3: wrong usage; 4: Prometheus cannot be read, or its answers would prove nothing: it does not
scrape the service, or the watchdog of its rules does not fire.
"""

_OVERVIEW: Final = "CMO overview"
_ON_CALL: Final = (
    ("CMOServiceDown", _OVERVIEW, ("Targets up", "Versions running")),
    (
        "CMOLiveQueriesFailing",
        _OVERVIEW,
        ("Live success, and answers in time", "Calls that fail, worst first"),
    ),
    (
        "CMOLiveQueriesHanging",
        _OVERVIEW,
        ("Oldest live query in progress", "Live queries in progress"),
    ),
    (
        "CMOLiveQueriesSlow",
        _OVERVIEW,
        ("P95 and P99 of live answers (estimated)", "Calls that are slow, worst first"),
    ),
    ("CMONoLiveTraffic", _OVERVIEW, ("Live queries by outcome", "Prober")),
    ("CMOMonitoringSilent", "The monitor itself", ("Watchdog", "Scrape jobs up")),
)
"""Where to look when an alert has woken somebody, in the order of looking."""


def walkthrough(dashboards: Sequence[Dashboard]) -> str:
    """The page, as Markdown."""
    headings = Counter(
        title
        for dashboard in dashboards
        for row in dashboard.rows
        for title in (row.title, *(panel.title for panel in row.panels))
    )
    lines = [_HEAD, *_choice(dashboards), *_pages(), _AFTER_THE_TABLE]
    for dashboard in dashboards:
        lines += _dashboard(dashboard, headings)
    return _RUNBOOK.sub(r"[\1](runbooks/\1.md)", "\n".join(lines))


def _choice(dashboards: Sequence[Dashboard]) -> Iterator[str]:
    """Which page answers what."""
    yield "| page | answers |"
    yield "|---|---|"
    for dashboard in dashboards:
        yield f"| [{dashboard.title}](#{_anchor(_heading(dashboard))}) | {dashboard.description} |"


def _pages() -> Iterator[str]:
    """What to open when an alert has woken somebody."""
    yield "\nCalled by an alert? Its runbook says what to do; these panels show it."
    yield "\n| alert and runbook | dashboard | panels, the first one first |"
    yield "|---|---|---|"
    for alert, dashboard, titles in _ON_CALL:
        yield f"| {alert} | {dashboard} | {', then '.join(f'*{title}*' for title in titles)} |"


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
    yield f"{panel.advice}\n"
    yield f"Without data it says: “{panel.no_value}”.\n"
