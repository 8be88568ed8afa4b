"""What a panel says in words, colours, lines, units and links is what its query counts.

The other tests ask whether a dashboard is well formed and answered. These read the compiled JSON as on-call
does, and what it should say is written here once more, not taken from the code: a red PASS is well formed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import pytest
from cmo_dashboards import Dashboard, shipped_dashboards
from cmo_dashboards.colours import Step, colour_of
from cmo_dashboards.document import defaults_of, panels
from cmo_slo.indicators import LatencyIndicator
from cmo_slo.objectives import load_objectives, shipped_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmo_dashboards.document import Document

GREEN, AMBER, RED, GREY = "#009E73", "#E69F00", "#D55E00", "#808080"
MEANT: Final = {
    "No data": (-1, GREY),
    "No traffic": (0, GREY),
    "Too few to judge": (1, GREY),
    "FAIL": (2, RED),
    "WARN": (3, AMBER),
    "PASS": (4, GREEN),
    "passes": (5, GREY),
    "Few, target missed": (6, AMBER),
    "down": (0, RED),
    "up": (1, GREY),
    "fails": (0, RED),
    "answered": (1, GREY),
    "no news": (-1, GREY),
    "silent": (0, RED),
    "fires": (1, GREY),
    "refused": (0, RED),
    "accepted": (1, GREY),
    "none": (0, GREY),
    "ticket": (1, AMBER),
    "page": (2, RED),
    "closed": (1, GREY),
    "maintenance": (2, AMBER),
    "budget_limited": (3, AMBER),
    "rate_limited": (4, AMBER),
    "degraded": (5, AMBER),
    "half_open": (6, AMBER),
    "open": (7, RED),
}
"""The value of each word, and the colour that it stands on."""
BESIDE_NUMBERS: Final = {"No traffic": (-2,)}
"""Its value where the others are shares of 0 to 1."""
OF_OUTCOMES: Final = {"success": GREEN, "failure": RED, "error": RED, "timeout": AMBER}
UNITS: Final = ((r"_bytes\b", {"decbytes"}), (r"^histogram_quantile\(", {"s"}))
"""Units of what a query begins with or is made of."""
SAYS_THAT_IT_MAY_NOT_KNOW: Final = re.compile(r", (if|or) ")
SAYS_THAT_ALL_IS_WELL: Final = re.compile(
    r"\b(PASS|OK|passes|answered|accepted)\b|^None |^Nothing is |^No (breaker changes|call is|query falls)"
)


@pytest.fixture(params=shipped_dashboards(), ids=lambda board: board.uid)
def document(request: pytest.FixtureRequest) -> Document:
    board: Dashboard = request.param
    return board.document


def _steps(panel: dict[str, Any]) -> tuple[Step, ...]:
    return tuple(Step(step["value"], step["color"]) for step in defaults_of(panel)["thresholds"]["steps"])


def _words(panel: dict[str, Any]) -> Iterator[tuple[str, float, str]]:
    """Each word of a panel, its value and its colour."""
    for mapping in defaults_of(panel)["mappings"]:
        if mapping["type"] == "value":
            for value, result in mapping["options"].items():
                yield (
                    result["text"],
                    float(value),
                    result.get("color") or colour_of(float(value), _steps(panel)),
                )


def test_each_word_has_its_value_and_its_colour(document: Document) -> None:
    for panel in panels(document):
        for word, value, colour in _words(panel):
            meant, meant_colour = MEANT[word]
            known = {meant, *BESIDE_NUMBERS.get(word, ())}
            assert (value in known, colour) == (True, meant_colour), (panel["title"], word)


def test_of_several_breakers_the_worst_is_shown(document: Document) -> None:
    """Its number is the highest."""
    for panel in panels(document):
        if "half_open" in {word for word, _, _ in _words(panel)}:
            for target in panel["targets"]:
                assert target["expr"].startswith("max by (component"), panel["title"]


def test_outcomes_have_their_colours(document: Document) -> None:
    for panel in panels(document):
        for override in panel["fieldConfig"]["overrides"]:
            name = str(override["matcher"].get("options")).removeprefix("^").removesuffix("(,.*)?$")
            for setting in override["properties"]:
                if setting["id"] == "color" and name in OF_OUTCOMES:
                    assert setting["value"]["fixedColor"] == OF_OUTCOMES[name], (panel["title"], name)


def test_no_data_is_never_told_as_good_news(document: Document) -> None:
    for panel in panels(document):
        said = defaults_of(panel)["noValue"]
        assert not SAYS_THAT_ALL_IS_WELL.search(said) or SAYS_THAT_IT_MAY_NOT_KNOW.search(said), (
            panel["title"],
            said,
        )
        [nothing] = [each for each in defaults_of(panel)["mappings"] if each["type"] == "special"]
        assert nothing["options"]["result"]["text"] == said


def test_lines_that_stand_in_no_title_are_where_the_objectives_are() -> None:
    objectives = load_objectives(shipped_directory() / "cmo-015.yml")
    promised = {objective.name: objective for objective in objectives.objectives}
    within = promised["within_2s"].indicator
    assert isinstance(within, LatencyIndicator)
    expected = {
        "P95 and P99 of live answers (estimated)": {within.threshold_seconds},
        "Live success, and answers in time": {promised["success"].target, promised["within_2s"].target},
        "Live queries that users cancelled": {objectives.cancelled_limit},
        "Burn rate: Success rate": {1.0},
        "Burn rate: Answered within 2 s": {1.0},
        "Pages firing": {1.0},
        "Tickets firing": {1.0},
    }
    found = {
        panel["title"]: {step.value for step in _steps(panel)} - {None}
        for board in shipped_dashboards()
        for panel in panels(board.document)
    }
    assert {title: found[title] for title in expected} == expected


def test_units_are_those_of_what_is_counted(document: Document) -> None:
    for panel in panels(document):
        unit, has_words = defaults_of(panel)["unit"], any(_words(panel))
        for target in panel["targets"]:
            for pattern, units in UNITS:
                if re.search(pattern, target["expr"]) and not has_words and "rate(" not in target["expr"]:
                    assert unit in units, (panel["title"], target["expr"])
        if defaults_of(panel).get("max") == 1.0:
            assert unit == "percentunit", panel["title"]


def test_a_quantile_is_the_one_that_its_legend_names_and_never_a_mean_of_others(document: Document) -> None:
    for panel in panels(document):
        for target in panel["targets"]:
            assert not re.search(
                r"\b(avg|sum|min|max)\b[^(]*\(\s*(1000 \* )?histogram_quantile", target["expr"]
            )
            named = re.match(r"P(\d+)", target["legendFormat"])
            ranks = re.findall(r"histogram_quantile\(([\d.]+)", target["expr"])
            if named and ranks:
                assert {float(rank) * 100 for rank in ranks} == {float(named[1])}, panel["title"]


def test_windows_are_those_that_their_legends_name() -> None:
    windows = {"15 min": "15m", "1 h": "1h"}
    seen = 0
    for board in shipped_dashboards():
        for panel in panels(board.document):
            for target in panel["targets"]:
                if target["legendFormat"] in windows:
                    seen += 1
                    named = set(re.findall(r'window="([^"]+)"', target["expr"]))
                    assert named == {windows[target["legendFormat"]]}, panel["title"]
    assert seen


def test_a_panel_asks_for_the_objective_that_its_title_names() -> None:
    objectives = load_objectives(shipped_directory() / "cmo-015.yml").objectives
    indicators = {objective.name: objective.indicator for objective in objectives}
    seen = set()
    for board in shipped_dashboards():
        for panel in panels(board.document):
            for objective in objectives:
                begins = re.match(
                    rf"(.*: )?{re.escape(objective.title)}(: | over| \(|,? compared|$)", panel["title"]
                )
                asked = {
                    name
                    for target in panel["targets"]
                    for name in re.findall(r'objective="([^"]+)"', target["expr"])
                }
                if begins and asked:
                    seen.add(objective.name)
                    # Two targets of the same events are two lines of one panel.
                    assert all(indicators[name] == objective.indicator for name in asked), panel["title"]
    assert {"success", "within_2s", "cache_hits"} <= seen


def test_budgets_are_those_of_live_traffic_alone() -> None:
    for board in shipped_dashboards():
        for panel in panels(board.document):
            if re.match(r"Error budget left|Burn rate|Bad live events", panel["title"]):
                for target in panel["targets"]:
                    selectors = re.findall(r"\{([^}]*)\}", target["expr"])
                    assert selectors
                    assert all('scenario="live"' in each for each in selectors), panel["title"]


def test_targets_up_are_those_of_the_objectives() -> None:
    job = load_objectives(shipped_directory() / "cmo-015.yml").service.job
    asked = {
        target["expr"]
        for board in shipped_dashboards()
        for panel in panels(board.document)
        if panel["title"] == "Targets up"
        for target in panel["targets"]
    }
    assert asked == {f'up{{job="{job}"}}'}


def test_every_query_is_drawn_and_links_keep_time_and_variables(document: Document) -> None:
    [link] = document["links"]
    assert link["keepTime"]
    assert link["includeVars"]
    for annotation in document["annotations"]["list"]:
        assert annotation["enable"]
    for panel in panels(document):
        assert not [target for target in panel["targets"] if target.get("hide")], panel["title"]
        for each in panel.get("links") or []:
            assert not each["url"].startswith("/d/") or "${__url_time_range}" in each["url"]


def test_stats_show_the_last_value_in_the_colour_of_its_threshold(document: Document) -> None:
    for panel in panels(document):
        assert defaults_of(panel)["thresholds"]["mode"] == "absolute"
        if panel["type"] == "stat":
            assert panel["options"]["reduceOptions"]["calcs"] == ["lastNotNull"]
            assert panel["options"]["colorMode"] == "background_solid"
            for override in panel["fieldConfig"]["overrides"]:
                for setting in override["properties"]:
                    assert setting["value"] == {"mode": "fixed", "fixedColor": GREY}, panel["title"]


def test_nothing_is_cut_off_rounded_away_or_bridged(document: Document) -> None:
    for panel in panels(document):
        defaults = defaults_of(panel)
        assert defaults.get("max") in (None, 1.0), panel["title"]
        assert defaults.get("min", 0) <= 0, panel["title"]
        if panel["type"] == "timeseries":
            assert defaults["custom"]["spanNulls"] is False, panel["title"]
        if panel["type"] == "stat" and defaults["unit"] == "percentunit":
            # 94.96 % is no 95 %.
            assert defaults.get("decimals", 1) >= 1, panel["title"]
        for transformation in panel.get("transformations") or []:
            hidden = transformation["options"].get("excludeByName", {})
            assert set(hidden) <= {"Time", "Value", "__name__", "alertstate"}, panel["title"]


def test_alerts_are_those_that_fire_and_somebody_is_told_of(document: Document) -> None:
    """One that is pending may never fire; of tickets somebody is told, too."""
    asked = [target["expr"] for panel in panels(document) for target in panel["targets"]]
    asked += [each["expr"] for each in document["annotations"]["list"]]
    selectors = [each for one in asked for each in re.findall(r"ALERTS\{([^}]*)\}", one)]
    assert selectors
    for each in selectors:
        assert 'alertstate="firing"' in each
    assert any('severity=~"page|ticket"' in each for each in selectors)
