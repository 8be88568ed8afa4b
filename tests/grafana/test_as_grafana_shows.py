"""Texts and colours of the compiled dashboards, as Grafana's own code shows them.

Whatever else says which colour a value has (`PanelQuery.colour`, and with it `cmo dashboards check` and the
tests on live series) is our reading of Grafana. Here Grafana is asked: its library, of the version that runs
in docker-compose.yml, is in a package, although the whole of it is not.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from cmo_dashboards import PanelQuery, queries, shipped_dashboards
from cmo_dashboards.colours import FAIL, LINES, NEUTRAL, PASS, WARN
from cmo_dashboards.dashboard import series_colours
from cmo_dashboards.document import panels, title_of

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ROOT / "requirements/grafana-library"
BOARDS: Final = shipped_dashboards()
COLOURED: Final = ("stat", "state-timeline")
"""Panels that give a colour to values; in others it is that of a series."""
Json = dict[str, Any]


@dataclass(frozen=True)
class Grafana:
    """Grafana's library, in a process of its own."""

    node: Path

    def ask(self, panels_: list[Json], tables: list[Json] | None = None) -> Json:
        """The units that it knows; of each panel for each field texts and colours; of each table its rows."""
        done = subprocess.run(
            [self.node, Path(__file__).with_name("as_grafana_shows.cjs")],
            input=json.dumps({"panels": panels_, "tables": tables or []}),
            env={"NODE_PATH": str(self.node.parents[1] / "node_modules")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answer: Json = json.loads(done.stdout)
        return answer

    def shown(self, panels_: list[Json]) -> list[list[list[tuple[str, str]]]]:
        """Of each panel for each field, text and colour of each value."""
        answers = self.ask(panels_)["panels"]
        return [
            [[(shown["text"], shown["color"]) for shown in field] for field in fields] for fields in answers
        ]


@pytest.fixture(scope="module")
def grafana() -> Grafana:
    node = ROOT / ".venv-grafana/bin/node"
    if not node.exists():
        pytest.fail(f"There is no {node}. Run `make setup-test`, which makes .venv-grafana.")
    return Grafana(node)


def test_it_is_of_the_version_that_compose_runs() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    wanted = json.loads((PACKAGES / "package.json").read_text())["dependencies"]
    assert services["grafana"]["image"] == f"grafana/grafana:{wanted['@grafana/data']}"


def test_its_packages_are_pinned_to_their_hashes_and_come_from_no_named_index() -> None:
    lock = json.loads((PACKAGES / "package-lock.json").read_text())
    wanted = json.loads((PACKAGES / "package.json").read_text())["dependencies"]
    assert lock["packages"].pop("")["dependencies"] == wanted, "the lock is stale: run `make pins`"
    for name, package in lock["packages"].items():
        assert re.fullmatch(r"sha512-[\w+/]+=*", package["integrity"]), name
        assert not package.keys() & {"resolved", "link", "hasInstallScript"}, name
    assert "://" not in (PACKAGES / "package-lock.json").read_text()


def test_every_unit_is_one_that_grafana_knows(grafana: Grafana) -> None:
    known = set(grafana.ask([])["units"])
    used = {query.unit for board in BOARDS for query in queries(board)}
    assert used
    assert used <= known
    assert "furlongs" not in known


def test_every_value_has_the_colour_that_we_say(grafana: Grafana) -> None:
    """At each threshold, just below and just above it, and at each value with a text of its own."""
    asked = [
        (query, panel, _telling_values(query))
        for board in BOARDS
        for query, panel in _queries_of(board)
        if panel["type"] in COLOURED
    ]
    shown = grafana.shown([_asking(panel, query.ref_id, values) for query, panel, values in asked])
    wrong = [
        f"{query.place}: {value!r} is {colour}, not {query.colour(value)}"
        for (query, _, values), [field] in zip(asked, shown, strict=True)
        for value, (_, colour) in zip(values, field, strict=True)
        if colour != query.colour(value)
    ]
    assert wrong == []
    colours = {colour for [field] in shown for _, colour in field}
    assert len(colours) > 3, "this compared grey with grey"


def test_no_value_and_nan_are_grey_and_say_what_is_missing(grafana: Grafana) -> None:
    all_panels = [panel for board in BOARDS for panel in panels(board.document)]
    shown = grafana.shown([_asking(panel, "A", [None, "NaN"]) for panel in all_panels])
    for panel, [field] in zip(all_panels, shown, strict=True):
        said = panel["fieldConfig"]["defaults"]["noValue"]
        assert said
        assert field == [(said, NEUTRAL)] * 2, title_of(panel)


def test_values_that_stand_for_words_are_shown_as_words(grafana: Grafana) -> None:
    described = [
        (panel, source)
        for board in BOARDS
        for panel in panels(board.document)
        for row in board.rows
        for source in row.panels
        if source.title == title_of(panel) and source.value_texts
    ]
    asked = [_asking(panel, "A", [value for value, _ in source.value_texts]) for panel, source in described]
    for (panel, source), [field] in zip(described, grafana.shown(asked), strict=True):
        assert [text for text, _ in field] == [text for _, text in source.value_texts], title_of(panel)


def test_a_series_has_its_own_colour_on_every_panel(grafana: Grafana) -> None:
    """Outcomes, sources and scenarios, also where something follows after a comma, and no other series."""
    asked: list[tuple[str, Json, dict[str, str]]] = []
    for board in BOARDS:
        colours = series_colours(board.scenarios)
        for panel in panels(board.document):
            legends = [target.get("legendFormat", "") for target in panel["targets"]]
            named = {
                f"{name}{rest}": colour
                for label, of_label in colours.items()
                for name, colour in of_label.items()
                if any(legend.startswith(f"{{{{{label}}}}}") for legend in legends)
                for rest in ("", ", within 2 s")
            }
            if named and panel["type"] == "timeseries":
                asked.append((f"{board.uid}: {title_of(panel)}", panel, named))
    assert len(asked) > 10
    others = ("success rate", "livelier", "")
    answers = grafana.shown(
        [
            {
                "fieldConfig": panel["fieldConfig"],
                "fields": [{"name": name, "refId": "A", "values": [0.5]} for name in (*named, *others)],
            }
            for _, panel, named in asked
        ]
    )
    for (place, _, named), fields in zip(asked, answers, strict=True):
        colours_shown = [colour for [(_, colour)] in fields]
        assert dict(zip(named, colours_shown, strict=False)) == named, place
        assert not set(colours_shown[len(named) :]) & set(named.values()), place


def test_what_may_be_called_anything_is_blue_and_looks_like_no_verdict(grafana: Grafana) -> None:
    names = [f"10.0.0.{number}:9464" for number in range(11)]
    fields = [{"name": name, "refId": "Z", "values": [0.5]} for name in names]
    lines = [panel for board in BOARDS for panel in panels(board.document) if panel["type"] == "timeseries"]
    shown = grafana.shown([{"fieldConfig": panel["fieldConfig"], "fields": fields} for panel in lines])
    assert len(lines) > 40
    for panel, fields_shown in zip(lines, shown, strict=True):
        colours = {colour for [(_, colour)] in fields_shown}
        assert len(colours) == len(names), title_of(panel)
        for colour in colours:
            red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
            assert blue > max(red, green), (title_of(panel), colour)


def test_the_table_of_what_fires_has_pages_first_and_says_for_how_long(grafana: Grafana) -> None:
    labels = {
        "alertname": ["CMOSeriesDropped", "CMOSuccessBudgetBurn", "CMOBreakerOpen"],
        "component": ["", "", "lightrag"],
        "severity": ["ticket", "page", "ticket"],
    }
    fields = [
        {"name": "Time", "type": "time", "values": [0, 0, 0]},
        *({"name": name, "type": "string", "values": values} for name, values in labels.items()),
        {"name": "Value", "type": "number", "values": [7200, 90, 600]},
    ]
    tables = [
        panel
        for board in BOARDS
        for panel in panels(board.document)
        if title_of(panel) == "What fires, and its runbook"
    ]
    assert len(tables) > 1
    asked = [
        {"fieldConfig": one["fieldConfig"], "transformations": one["transformations"], "fields": fields}
        for one in tables
    ]
    for rows in grafana.ask([], asked)["tables"]:
        assert rows == [
            ["alertname", "severity", "true for", "component"],
            ["CMOSuccessBudgetBurn", "page", "1.50 mins", ""],
            ["CMOSeriesDropped", "ticket", "2 hours", ""],
            ["CMOBreakerOpen", "ticket", "10 mins", "lightrag"],
        ]


def test_lines_whose_names_are_written_have_a_colour_each(grafana: Grafana) -> None:
    asked = []
    for board in BOARDS:
        for panel in panels(board.document):
            legends = {target["refId"]: target.get("legendFormat", "") for target in panel["targets"]}
            written = {ref_id: legend for ref_id, legend in legends.items() if "{{" not in legend}
            if panel["type"] == "timeseries" and written:
                asked.append((panel, written))
    assert any(set(written.values()) == {"sent", "errors", "dropped"} for _, written in asked)
    shown = grafana.shown(
        [
            {
                "fieldConfig": panel["fieldConfig"],
                "fields": [
                    {"name": legend, "refId": ref_id, "values": [0.5]} for ref_id, legend in written.items()
                ],
            }
            for panel, written in asked
        ]
    )
    for (panel, written), fields in zip(asked, shown, strict=True):
        colours = [colour for [(_, colour)] in fields]
        assert len(set(colours)) == len(written), title_of(panel)
        assert set(colours) <= {*LINES, NEUTRAL}, title_of(panel)


def test_what_waits_and_what_works_look_different_in_one_picture(grafana: Grafana) -> None:
    [panel] = [
        panel
        for board in BOARDS
        for panel in panels(board.document)
        if title_of(panel) == "Where the time of a call of LightRAG goes"
    ]
    waiting, working = "{{component}}, waiting for a turn", "{{component}}, under way"
    legends = {target["legendFormat"]: target["refId"] for target in panel["targets"]}
    named = [
        *((f"{name}, waiting for a turn", legends[waiting]) for name in ("lightrag", "llm", "embedding")),
        *((f"{name}, under way", legends[working]) for name in ("llm", "embedding")),
        ("the rest of LightRAG", legends["the rest of LightRAG"]),
    ]
    fields = [{"name": name, "refId": ref_id, "values": [0.5]} for name, ref_id in named]
    [shown] = grafana.shown([{"fieldConfig": panel["fieldConfig"], "fields": fields}])
    colours = [colour for [(_, colour)] in shown]
    assert len(set(colours)) == len(named), dict(zip(named, colours, strict=True))
    assert not {PASS, WARN, FAIL} & set(colours)


def _queries_of(board: Any) -> list[tuple[PanelQuery, Json]]:
    by_title = {title_of(panel): panel for panel in panels(board.document)}
    return [(query, by_title[query.panel]) for query in queries(board)]


def _telling_values(query: PanelQuery) -> list[float]:
    edges = [step.value for step in query.steps if step.value is not None]
    edges = [edge for edge in edges if abs(edge) < 1e300]  # the lowest number that there is has none below it
    below = [math.nextafter(edge, -math.inf) for edge in edges]
    above = [math.nextafter(edge, math.inf) for edge in edges]
    return [
        *below,
        *edges,
        *above,
        *(value for value, _ in query.value_colours),
        -1.0,
        0.0,
        1.0,
        12_345_678.9,
    ]


def _asking(panel: Json, ref_id: str, values: list[Any]) -> Json:
    fields = [{"name": "a series", "refId": ref_id, "values": values}]
    return {"fieldConfig": panel["fieldConfig"], "fields": fields}
