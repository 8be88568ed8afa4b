"""The benchmark of the rules: its truth is true, its copies are rules, and it says what it should.

On little more than a day of data and one objective, whose numbers say little: no time is asserted.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
import time
from typing import TYPE_CHECKING

import pytest
import requests
from click.testing import CliRunner
from cmo_bench.exporter.report import Verdict, failed
from cmo_bench.rules import cost, exactness, page, pyrra, sloth
from cmo_bench.rules.__main__ import main
from cmo_bench.rules.backfill import Written, backfill, promtool, series_text, write_constants
from cmo_bench.rules.history import DAY_SECONDS, HOUR_SECONDS, STEP_SECONDS, TARGET_LABELS, month
from cmo_bench.rules.laboratory import OURS, PYRRA, QUICK, RULES_BEGIN_SECONDS, SLOTH, Laboratory, Month
from cmo_bench.rules.objective import Events, other_objectives
from cmo_bench.rules.paging import PACES, Pace, _row, _target
from cmo_bench.rules.reads import plan, reads
from cmo_bench.rules.receiver import Receiver
from cmo_bench.rules.replay import first_evaluated, replay
from cmo_bench.rules.rule_groups import DAY, HOUR, MINUTE, Rule, RuleGroup, parse_groups, render_groups
from cmo_bench.rules.server import MeasurementError, Store
from cmo_bench.rules.surroundings import surround
from cmo_exporter import catalogue
from cmo_slo import recorded
from cmo_slo.objectives import find_objectives, load_objectives
from cmo_stack.free_ports import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cmo_bench.rules.history import History

# Long enough for the restart that comes a day and some hours before the end.
SECONDS = DAY_SECONDS + 5 * HOUR_SECONDS
SUCCESS = {"outcome": ("success",)}
SERIES = series_text(catalogue.QUERIES.name, {**TARGET_LABELS, "scenario": "live", "outcome": "success"})


def test_a_small_month_is_counted_truly_and_told_on_a_page(tmp_path: Path) -> None:
    # One test, because the month takes seconds to make and tests of one module may be spread over processes.
    laboratory = Laboratory(QUICK)
    laboratory.compared = laboratory.compared[:1]
    history = month(_end_of_a_history_that_begins_late_in_a_block(), SECONDS)
    with Store(tmp_path) as store:
        backfilled = backfill(history, store.blocks, tmp_path)
        store.reopen()
        _prometheus_has_what_the_history_says(history, store)
        _samples_read_are_those_of_a_known_query(history, store)
        groups = laboratory.rule_groups()
        groups[OURS] = behind_the_30_day_result(groups[OURS])
        longest = SECONDS * 1000
        surround(plan(groups[OURS], longest), history, {"cmo": EXPOSED}, store.blocks, tmp_path)
        store.reopen()
        _what_else_is_exposed_is_there_and_the_history_is_as_it_was(history, store)
        everything = plan([group for of_tool in groups.values() for group in of_tool], longest)
        passes = replay(everything, store, tmp_path, history.start + RULES_BEGIN_SECONDS, history.end)
        made = Month(history, store, groups, backfilled, Written(0, 0), passes, 1, 1.0)
        laboratory.__dict__["month"] = made
        _the_recorded_result_is_the_exact_count(laboratory, made)
        _the_page_says_it_all(laboratory)
    assert not list(tmp_path.glob("*.om")), "the text is deleted"


def _end_of_a_history_that_begins_late_in_a_block() -> int:
    """The last one: no rule that is evaluated by the hour need be evaluated in what is left of that block."""
    an_hour_ago = int(time.time()) // HOUR_SECONDS * HOUR_SECONDS - HOUR_SECONDS
    block = 18 * HOUR_SECONDS
    return an_hour_ago - (an_hour_ago - SECONDS + HOUR_SECONDS) % block


@pytest.mark.parametrize(
    ("start", "end", "first"),
    [
        (17 * HOUR_SECONDS - 1, 40 * HOUR_SECONDS, 17 * HOUR_SECONDS - 1),
        (17 * HOUR_SECONDS, 40 * HOUR_SECONDS, 18 * HOUR_SECONDS),
        (18 * HOUR_SECONDS - 1, 40 * HOUR_SECONDS, 18 * HOUR_SECONDS),
        (18 * HOUR_SECONDS, 40 * HOUR_SECONDS, 18 * HOUR_SECONDS),
        (17 * HOUR_SECONDS, 18 * HOUR_SECONDS, 17 * HOUR_SECONDS),
    ],
)
def test_promtool_is_not_asked_to_begin_where_it_may_give_a_rule_up(start: int, end: int, first: int) -> None:
    assert first_evaluated(start, end, HOUR_SECONDS) == first


EXPOSED = """# TYPE cmo_queries_total counter
cmo_queries_total{outcome="success",scenario="live"} 7.0
cmo_queries_total{outcome="success",scenario="clinical_rush"} 7.0
# TYPE cmo_nothing_total counter
cmo_nothing_total 7.0
"""


def behind_the_30_day_result(groups: Sequence[RuleGroup]) -> tuple[RuleGroup, ...]:
    """The rules that record the 30-day window, and those that they build on."""
    rules = [rule for group in groups for rule in group.rules]
    kept = [rule for rule in rules if rule.labels.get("window") == "30d"]
    for rule in kept:  # which grows meanwhile
        for read in reads(rule.expression):
            kept += [
                other
                for other in rules
                if other.record
                and other not in kept
                and read.may_find({**other.labels, "__name__": other.record})
            ]
    return tuple(
        RuleGroup(
            group.name, group.interval_milliseconds, tuple(rule for rule in group.rules if rule in kept)
        )
        for group in groups
        if any(rule in kept for rule in group.rules)
    )


def _prometheus_has_what_the_history_says(history: History, store: Store) -> None:
    (restart,) = history.restarts
    before, after = restart - 40, restart + 40
    moment = history.start + after * STEP_SECONDS
    (series,) = store.query(f"{SERIES}[{(after - before) * STEP_SECONDS + 1}s]", moment).result
    values = [float(value) for _, value in series["values"]]
    assert len(values) == after - before + 1
    gained = sum(new - old if new >= old else new for old, new in itertools.pairwise(values))
    live = {"scenario": ("live",), **SUCCESS}
    lost = sum(
        int(counts[restart])
        for key, counts in history.lost.items()
        if key[0] == catalogue.QUERIES.name and ("outcome", "success") in key[1]
    )
    assert values[40] < values[39], "the counter has begun anew"
    assert lost > 0
    assert history.count(catalogue.QUERIES.name, live, before, after) == gained + lost
    everything = history.count(catalogue.QUERIES.name, {}, before, after)
    assert everything > history.count(catalogue.QUERIES.name, live, before, after) > 0


def _what_else_is_exposed_is_there_and_the_history_is_as_it_was(history: History, store: Store) -> None:
    (rush,) = store.query('cmo_queries_total{scenario="clinical_rush"}[20h]', history.end).result
    assert {value for _, value in rush["values"]} == {"7"}
    assert len(rush["values"]) == 20 * HOUR_SECONDS / STEP_SECONDS
    (live,) = store.query(f"{SERIES}[20h]", history.end).result
    assert "7" not in {value for _, value in live["values"][-100:]}
    assert not store.query("cmo_nothing_total", history.end).result, "no rule reads it"


def _samples_read_are_those_of_a_known_query(history: History, store: Store) -> None:
    assert store.query(f"sum(rate({SERIES}[5m]))", history.end).samples_read == 20
    assert store.query(SERIES, history.end).samples_read == 1
    group = RuleGroup("g", 30_000, (Rule(SERIES, record="a"), Rule(f"rate({SERIES}[1h])", record="b")))
    (measured,) = cost.group_costs([group], store, history.end)
    assert (measured.samples, measured.samples_per_minute) == (241, 482)
    silent = cost.silent_selectors(
        [RuleGroup("g", 30_000, (Rule(f"{SERIES} + nobody + rate(nowhere[5m] offset 1h)", record="a"),))],
        store,
        history.end,
    )
    assert silent == ["nobody", "nowhere[5m] offset 1h"]
    with pytest.raises(MeasurementError, match=r"refuses sum\("):
        store.query("sum(", history.end)


def _the_recorded_result_is_the_exact_count(laboratory: Laboratory, made: Month) -> None:
    own = [one for one in laboratory.compared if one.name == "success"]
    for series, events in (
        (recorded.GOOD_EVENTS_HOURLY, own[0].good),
        (recorded.TOTAL_EVENTS_HOURLY, own[0].total),
    ):
        answer = made.store.query(f'{series}{{objective="success"}}[20h]', made.end).result
        evaluated = [float(moment) for moment, _ in answer[0]["values"]]
        first, last = (
            exactness._counted_step(made, "success", moment)
            for moment in (evaluated[0] - HOUR_SECONDS, evaluated[-1])
        )
        counted = sum(float(value) for _, value in answer[0]["values"])
        assert counted == made.history.count(events.metric, events.labels, first, last) > 0


def _the_page_says_it_all(laboratory: Laboratory) -> None:
    sections = [
        measure(laboratory)
        for measure in (cost.cost, cost.cost_by_group, cost.cost_by_rule, exactness.exactness, page.data)
    ]
    text = page.page(sections, laboratory, ["--quick"], 1.2)
    targets = re.findall(r"^\| (.*) \| (.*) \| \*\*(holds|FAILED)\*\* \|$", text, re.MULTILINE)
    assert len(targets) == 3, "two tools and the 30-day result"
    for promise, found, verdict in targets:
        measured, limit = re.findall(r"[-+]?\d[\d.]*", found.split("(")[0])[0], found.rpartition(" ")[2]
        assert (verdict == "holds") == (abs(float(measured)) <= float(limit)), promise
    assert ("FAILED: not every target holds." in text) == failed(sections)
    for tool in (OURS, SLOTH, PYRRA):
        assert f"{tool}" in text
    rows = {row[0].strip("*"): row for row in _rows(text, "Samples read")}
    samples = {name: float(row[2].replace(",", "")) for name, row in rows.items()}
    assert samples[OURS] / samples[SLOTH] == pytest.approx(float(rows[SLOTH][3]), abs=0.0006)
    assert samples[PYRRA] > samples[f"{PYRRA}, burn rates and their alerts alone"] > samples[OURS] > 0
    by_group = sum(float(row[4].replace(",", "")) for row in _rows(text, "Samples read, by group"))
    assert by_group == pytest.approx(samples[OURS], abs=len(rows) + 3)
    by_rule = [float(row[2].replace(",", "")) for row in _rows(text, "Samples read, by rule")]
    assert by_rule == sorted(by_rule, reverse=True)
    made = laboratory.month
    most = max(
        samples * 60_000 / group.interval_milliseconds
        for group in cost.group_costs(made.groups[OURS], made.store, made.end)
        for _, samples in group.rules
    )
    assert by_rule[0] == round(most)
    assert samples[OURS] / 10 < sum(by_rule) <= samples[OURS] + 8
    sloth_says = [row for row in _rows(text, "The 30-day result") if row[:2] == ["success", SLOTH]]
    assert sloth_says[0][2] == "NaN", "nights without queries"
    (whole_hours,) = [row for row in _rows(text, "The 30-day result") if "whole hours" in row[1]]
    assert abs(float(whole_hours[4])) < 0.05
    told, exact = (float(cell.removesuffix(" %")) for cell in whole_hours[2:4])
    assert told - exact == pytest.approx(float(whole_hours[4]), abs=2e-4)
    assert "\n    python -m cmo_bench.rules --quick\n" in text
    assert "| prometheus | " in text
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text)
    assert not re.search(r"/(?:home|root|tmp|work|Users)\b", text)


def _rows(text: str, title: str) -> list[list[str]]:
    section = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_copies_of_other_tools_are_rules_that_promtool_accepts(tmp_path: Path) -> None:
    objectives = other_objectives(load_objectives(find_objectives("cmo-015")))
    assert {"success", "within_2s", "cache_hits"} <= {one.name for one in objectives}
    for name, groups in (("sloth", sloth.groups(objectives, 15_000)), ("pyrra", pyrra.groups(objectives))):
        file = tmp_path / f"{name}.yml"
        file.write_text(render_groups(groups), encoding="utf-8")
        said = promtool(["check", "rules", "--lint-fatal"], [str(file)])
        assert f"{sum(len(group.rules) for group in groups)} rules found" in said


def test_other_tools_are_told_the_same_objectives() -> None:
    told = {one.name: one for one in other_objectives(load_objectives(find_objectives("cmo-015")))}
    success, within, cache = told["success"], told["within_2s"], told["cache_hits"]
    assert str(success.bad) == 'cmo_queries_total{scenario="live",outcome=~"error|timeout|rejected"}'
    assert str(within.good) == 'cmo_query_duration_seconds_bucket{scenario="live",outcome="success",le="2.0"}'
    assert str(within.total) == 'cmo_query_duration_seconds_count{scenario="live",outcome=~"success|failure"}'
    assert within.bad is None
    assert cache.target == 0.7
    assert str(cache.bad) == 'cmo_query_cache_results_total{scenario="live",result="miss"}'


def test_other_tools_are_told_no_indicator_twice() -> None:
    objectives = load_objectives(find_objectives("cmo-015"))
    (success,) = [one for one in objectives.objectives if one.name == "success"]
    again = success.model_copy(update={"name": "again", "target": 0.5})
    more = objectives.model_copy(update={"objectives": (*objectives.objectives, again)})
    assert again.name not in {one.name for one in other_objectives(more)}
    assert other_objectives(more) == other_objectives(objectives)
    alone = objectives.model_copy(update={"objectives": (again,)})
    assert [one.name for one in other_objectives(alone)] == ["again"]


def test_windows_and_intervals_are_those_that_the_tools_document() -> None:
    success = [
        one for one in other_objectives(load_objectives(find_objectives("cmo-015"))) if one.name == "success"
    ]
    ratios, metadata, alerts = sloth.groups(success, 15_000)
    windows = [rule.labels["sloth_window"] for rule in ratios.rules]
    assert windows == ["5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d"]
    assert (len(metadata.rules), len(alerts.rules)) == (7, 2)
    assert (
        ratios.rules[0].expression
        == f"(sum(rate({success[0].bad}[5m]))) / (sum(rate({success[0].total}[5m])))"
    )
    increase, burn_rates = pyrra.groups(success)
    assert (increase.interval_milliseconds, burn_rates.interval_milliseconds) == (150_000, 30_000)
    names = [rule.record for rule in burn_rates.rules if rule.record]
    assert names == [
        f"cmo_queries:burnrate{window}"
        for window in ("5m", "32m", "1h4m", "2h9m", "6h26m", "1d1h43m", "4d6h51m")
    ]
    assert len([rule for rule in burn_rates.rules if rule.alert]) == 4


def test_the_same_seed_gives_the_same_month_and_another_seed_another() -> None:
    end = 1_800_000_000
    one, same, other = (month(end, DAY_SECONDS, seed) for seed in (1, 1, 2))
    for key, counts in one.seen.items():
        assert (counts == same.seen[key]).all()
    assert any((counts != other.seen[key]).any() for key, counts in one.seen.items())
    assert one.end == end
    assert one.count(catalogue.QUERIES.name, {}, 0, one.steps) > 10_000


def test_a_day_has_a_rush_hour_with_ten_percent_errors_and_a_night_without_queries() -> None:
    history = month(1_800_000_000, DAY_SECONDS)
    hour = HOUR_SECONDS // STEP_SECONDS
    judged = {"outcome": ("success", "error", "timeout", "rejected")}
    # The day ends at 15 o'clock.
    shares = {}
    for clock in range(24):
        last = history.steps - 1 - ((15 - clock - 1) % 24) * hour
        total = history.count(catalogue.QUERIES.name, judged, last - hour, last)
        good = history.count(catalogue.QUERIES.name, SUCCESS, last - hour, last)
        shares[clock] = (total, good / total if total else None)
    assert all(shares[clock][0] == 0 for clock in range(6))
    busiest = max(shares, key=lambda clock: shares[clock][0])
    assert busiest == 9
    assert shares[9][1] == pytest.approx(0.9, abs=0.01)
    assert shares[14][1] == pytest.approx(0.99, abs=0.01)


def test_what_an_expression_reads_and_how_far_back() -> None:
    found = {
        read.name: read.milliseconds
        for read in reads('a{x="y"} + rate(b[1h] offset 1d) > max_over_time(c[2h:1m])')
    }
    assert found == {"a": 5 * MINUTE, "b": DAY + HOUR, "c": 2 * HOUR + 5 * MINUTE}
    (read,) = reads('a{x="y",z=~"1|2",w!="0"}')
    assert read.may_find({"__name__": "a", "x": "y", "z": "2"})
    assert read.may_find({"__name__": "a"}), "other labels may come from its expression"
    for label, value in (("__name__", "b"), ("x", "n"), ("z", "3"), ("w", "0")):
        assert not read.may_find({"__name__": "a", label: value})


def test_rules_are_evaluated_in_layers_as_far_back_as_they_are_read() -> None:
    group = RuleGroup(
        "g",
        MINUTE,
        (
            Rule("sum_over_time(hourly[30d])", record="month"),
            Rule("sum_over_time(step[1h])", record="hourly"),
            Rule("raw", record="step"),
            Rule('short{window="5m"} > 1', alert="Page"),
            Rule("sum_over_time(step[5m])", record="short", labels={"window": "5m"}),
            Rule("vector(1)", record="short", labels={"window": "other"}),
        ),
    )
    made = plan([group], 40 * DAY)
    layers = {(placed.rule.record, placed.rule.labels.get("window")): placed for placed in made.rules}
    assert {name: placed.layer for name, placed in layers.items()} == {
        ("step", None): 0,
        ("hourly", None): 1,
        ("short", "5m"): 1,
        ("short", "other"): 0,
        ("month", None): 2,
    }
    assert layers["hourly", None].milliseconds >= 30 * DAY
    assert layers["step", None].milliseconds >= 30 * DAY + HOUR
    assert layers["short", "5m"].milliseconds < HOUR
    assert made.raw_milliseconds["raw"] >= 30 * DAY + HOUR
    assert made.raw_at_the_end_milliseconds == {"raw": 5 * MINUTE}


def test_a_rule_file_is_read_as_it_was_written() -> None:
    groups = (
        RuleGroup("a", HOUR, (Rule("x", record="r", labels={"w": "1"}), Rule("x > 1", alert="A"))),
        RuleGroup("b", 150_000, (Rule("y", record="s"),)),
    )
    assert parse_groups(render_groups(groups)) == groups
    with pytest.raises(ValueError, match="either records"):
        Rule("x")


def test_constants_are_written_at_every_step(tmp_path: Path) -> None:
    text = tmp_path / "constants.om"
    written = write_constants(text, {'a{b="c"}': 1.5}, 0, 30)
    assert text.read_text() == 'a{b="c"} 1.5 0\na{b="c"} 1.5 15\na{b="c"} 1.5 30\n# EOF\n'
    assert written == Written(3, text.stat().st_size)


def test_events_match_by_one_value_or_several() -> None:
    assert str(Events("a", {"x": ("1",), "y": ("2", "3")})) == 'a{x="1",y=~"2|3"}'


def test_promtool_says_what_it_does_not_like(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yml"
    bad.write_text("groups: [{name: g, rules: [{record: a, expr: 'sum('}]}]")
    with pytest.raises(MeasurementError, match=r"(?s)promtool check rules fails: .*parse"):
        promtool(["check", "rules"], [str(bad)])


def test_a_receiver_knows_when_an_alert_first_fired() -> None:
    port = free_port()
    with Receiver(port) as receiver:
        assert receiver.firing_since("A") is None
        for alert, status in (("B", "firing"), ("A", "resolved")):
            body = {"alerts": [{"status": status, "labels": {"alertname": alert}}]}
            assert requests.post(f"http://127.0.0.1:{port}/alerts", json=body, timeout=10).ok
        assert receiver.firing_since("A") is None, "a resolution is no page"
        began = time.time()
        body = {"alerts": [{"status": "firing", "labels": {"alertname": "A"}}]}
        times = []
        for _ in range(2):
            requests.post(f"http://127.0.0.1:{port}/alerts", json=body, timeout=10)
            times.append(receiver.firing_since("A", 10))
        assert times[0] is not None
        assert began <= times[0] <= time.time()
        assert times[1] == times[0], "the first one counts"


def test_times_to_the_page_are_judged_by_their_mean_and_none_is_infinite() -> None:
    pace = Pace(1, 4.0, 4)
    assert _target(pace, [3.0, 5.0]).verdict is Verdict.HOLDS
    assert _target(pace, [3.0, 5.1]).verdict is Verdict.FAILED
    assert _target(pace, [1.0, float("inf")]).verdict is Verdict.FAILED
    assert _row(pace, [1.0, 2.0, 6.0]) == ("every 1 s", "3", "3", "3.00", "2.00", "1.00", "6.00")
    assert [(one.interval_seconds, one.limit_seconds) for one in PACES] == [(1, 4.0), (15, 60.0)]


def test_a_page_that_could_not_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    refused = CliRunner().invoke(main, ["--output", str(tmp_path / "nowhere" / "page.md")])
    assert refused.exit_code == 2
    assert f"There is no folder {tmp_path / 'nowhere'}" in refused.output


def test_the_committed_page_is_of_a_whole_run(request: pytest.FixtureRequest) -> None:
    text = (request.config.rootpath / "docs/benchmarks-rules.md").read_text(encoding="utf-8")
    assert "\n    python -m cmo_bench.rules\n" in text, "neither quick nor in part: run make bench-rules"
    titles = ("Targets", "Samples read", "The 30-day result", "From fault to page")
    assert all(f"\n## {title}\n" in text for title in titles)
    assert not re.search(r"/(?:home|root|tmp|work|Users)\b", text)
    assert os.sep + "venv" not in text
