"""The benchmark of the exporter says everything that it should, and contradicts itself nowhere.

Run with quick settings, whose numbers say little: no time is asserted.
"""

from __future__ import annotations

import os
import platform
import re
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from cmo_bench.exporter import comparison, machine, ordinary, variants
from cmo_bench.exporter.__main__ import main
from cmo_bench.exporter.children import Child, ChildError
from cmo_bench.exporter.figures import Estimate, Rounds, Spread
from cmo_bench.exporter.in_process import requests_in_process
from cmo_bench.exporter.laboratory import QUICK, Laboratory
from cmo_bench.exporter.load import CONNECTIONS
from cmo_bench.exporter.report import Section, Target, Verdict, failed, targets_table
from cmo_bench.exporter.scraping import scrape
from cmo_bench.exporter.sockets import requests_over_sockets
from prometheus_client.exposition import generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
SPREAD = re.compile(r"(-?[\d.]+) \((-?[\d.]+) to (-?[\d.]+)\)")
ROUNDING = 0.05


@dataclass(frozen=True)
class Run:
    status: int
    printed: str
    page: str
    group: int

    def rows(self, title: str) -> list[list[str]]:
        """The cells of the rows of a section's table."""
        section = self.page.split(f"\n## {title}\n")[1].split("\n## ")[0]
        lines = [line for line in section.splitlines() if line.startswith("|")]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_a_quick_run_says_everything_and_contradicts_itself_nowhere(tmp_path: Path) -> None:
    # One test, because a run takes long and tests of one module may be spread over processes.
    run = _quick_run(tmp_path / "page.md")
    _every_variant_is_in_the_table_with_what_it_adds(run)
    _every_target_is_judged_by_the_number_beside_it(run)
    _it_exits_with_1_exactly_when_it_says_that_a_target_failed(run)
    _the_page_says_with_what_it_was_made_and_not_by_whom(run)
    _nothing_that_it_started_is_left(run)
    _the_series_of_the_comparison_are_as_many_as_ours(run)


def _quick_run(page: Path) -> Run:
    search = os.pathsep.join((str(ROOT / "bench"), os.environ.get("PYTHONPATH", "")))
    with subprocess.Popen(
        [sys.executable, "-m", "cmo_bench.exporter", "--quick", "--output", str(page)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": search},
        start_new_session=True,
    ) as process:
        printed, complaints = process.communicate()
    assert process.returncode in (0, 1), complaints
    return Run(process.returncode, printed, page.read_text(encoding="utf-8"), process.pid)


def _every_variant_is_in_the_table_with_what_it_adds(run: Run) -> None:
    for way, names in (("In process", variants.TITLES), ("Over sockets", variants.JUDGED)):
        rows = {row[0]: row[1:] for row in run.rows(way)}
        assert list(rows) == [variants.TITLES[name] for name in names]
        others = _median(rows[variants.TITLES[variants.INSTRUMENTATOR]][1])
        for title, (own, added, share, *_) in rows.items():
            low, median, high = _numbers(own)
            assert 0 < low <= median <= high, title
            if added:
                # Three rounded numbers: what is added, and its factors.
                rounding = ROUNDING + abs(others) * ROUNDING / 10 + abs(float(share)) * ROUNDING
                assert _median(added) == pytest.approx(float(share) * others, abs=rounding + 1e-6), title


def _every_target_is_judged_by_the_number_beside_it(run: Run) -> None:
    targets = run.rows("Targets")
    assert len(targets) == 11
    for promise, found, verdict in targets:
        match = re.match(r"([\d.]+) \(.*\); at most ([\d.]+)", found)
        if match and abs(float(match[1]) - float(match[2])) > 0.01:
            expected = "HOLDS" if float(match[1]) < float(match[2]) else "FAILED"
            assert verdict.strip("*") == Verdict[expected], promise
        if not match:
            assert found
    assert all(" | ".join(row) in run.printed for row in targets), "what is printed is what is written"


def _it_exits_with_1_exactly_when_it_says_that_a_target_failed(run: Run) -> None:
    assert (run.status == 1) == ("**FAILED**" in run.page) == ("**FAILED**" in run.printed)
    assert (run.status == 1) == ("FAILED: not every target holds." in run.page)


def _the_page_says_with_what_it_was_made_and_not_by_whom(run: Run) -> None:
    assert "    python -m cmo_bench.exporter --quick\n" in run.page
    assert platform.python_version() in run.page
    assert f"{os.cpu_count()} cores" in run.page
    assert {row[0] for row in run.rows("With what")} == set(machine.PACKAGES)
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", run.page)
    assert not re.search(r"/(?:home|root|tmp|work|Users)\b", run.page)


def _nothing_that_it_started_is_left(run: Run) -> None:
    with pytest.raises(ProcessLookupError):
        os.killpg(run.group, 0)


def _the_series_of_the_comparison_are_as_many_as_ours(run: Run) -> None:
    counts = [int(row[1]) for row in run.rows("Scrapes")]
    assert counts[::2] == counts[1::2]
    assert counts[0] > 1000


def test_ordinary_metrics_are_made_with_the_same_series() -> None:
    exposition = (
        '# HELP a_total One.\n# TYPE a_total counter\na_total{x="1"} 3.0\na_total{x="2"} 0.0\n'
        "# HELP b Two.\n# TYPE b gauge\nb 1.5\n"
        "# HELP c_seconds Three.\n# TYPE c_seconds histogram\n"
        'c_seconds_bucket{le="0.5",y="z"} 1.0\nc_seconds_bucket{le="+Inf",y="z"} 1.0\n'
        'c_seconds_count{y="z"} 1.0\nc_seconds_sum{y="z"} 0.1\n'
    )
    made = generate_latest(ordinary.registry_like(exposition)).decode()
    assert _names_and_labels(made) == _names_and_labels(exposition)
    assert 'a_total{x="1"} 3.0' in made


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Laboratory]:
    with Laboratory(QUICK) as prepared:
        yield prepared


def test_a_variant_that_did_not_record_what_it_was_sent_ends_the_run(laboratory: Laboratory) -> None:
    with laboratory.subject(variants.INSTRUMENTATOR) as subject:
        subject.ask("requests", 3)
        comparison.check_recorded(variants.INSTRUMENTATOR, subject, 3)
        with pytest.raises(ChildError, match="was sent 4 requests and shows 3"):
            comparison.check_recorded(variants.INSTRUMENTATOR, subject, 4)
        with pytest.raises(ChildError, match="no metrics"):
            comparison.check_sent(variants.OTEL, laboratory.telemetry_of(subject))


def test_what_one_process_has_sent_does_not_excuse_another(laboratory: Laboratory) -> None:
    with (
        laboratory.subject(variants.OTEL_METRICS) as sender,
        laboratory.subject(variants.OTEL_METRICS) as silent,
    ):
        sender.ask("requests", 3)
        sender.ask("close")
        assert laboratory.telemetry_of(sender).get("metrics")
        assert not laboratory.telemetry_of(silent)


@pytest.mark.parametrize("way", [requests_in_process, requests_over_sockets])
def test_variants_are_compared_in_several_fresh_processes(
    way: Callable[[Laboratory], Section], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = (variants.BARE, variants.OURS_TRACES, variants.INSTRUMENTATOR)
    monkeypatch.setattr(variants, "TITLES", {name: variants.TITLES[name] for name in few})
    monkeypatch.setattr(variants, "JUDGED", few)
    monkeypatch.setattr(comparison, "_PROMISES", ())
    with Laboratory(replace(QUICK, rounds=4, draws=2)) as laboratory:
        section = way(laboratory)
        for name in few:
            assert len(list(laboratory.directory.glob(f"{name}-[0-9]*"))) == 2
    assert len(section.table) == 2 + len(few)
    assert "Fresh processes of each variant: 2" in section.text


def test_a_client_that_has_left_a_service_meets_it_anew(laboratory: Laboratory) -> None:
    # The port of a process that has ended may be the next one's.
    with laboratory.subject(variants.INSTRUMENTATOR) as subject:
        port = subject.ask("serve")["port"]
        for _ in range(2):
            laboratory.load.ask("requests", port, CONNECTIONS)
            laboratory.load.ask("leave", port)
        comparison.check_recorded(variants.INSTRUMENTATOR, subject, 2 * CONNECTIONS)


def test_a_variant_with_exemplars_must_serve_some() -> None:
    bucket = 'cmo_query_duration_seconds_bucket{scenario="live",outcome="success",le="0.1"} 1.0'
    served = comparison.exemplars_target(f'{bucket} # {{trace_id="ab",span_id="cd"}} 0.05 1.0')
    assert served.verdict is Verdict.HOLDS
    assert comparison.exemplars_target(bucket).verdict is Verdict.FAILED


def test_a_process_that_ends_says_its_last_words(tmp_path: Path) -> None:
    arguments = ("no-such-variant", str(tmp_path), "http://127.0.0.1:9", "0")
    with (
        Child("subject", *arguments, log=tmp_path / "log") as child,
        pytest.raises(ChildError, match=r"(?s)subject no-such-variant ended at 'requests'.*KeyError"),
    ):
        child.ask("requests", 1)


def test_a_scrape_that_brings_no_metrics_is_an_error(laboratory: Laboratory) -> None:
    with laboratory.subject(variants.OURS) as subject:
        url = subject.ask("metrics_url")["url"]
        assert "cmo_queries_total" in scrape(url)
        with pytest.raises(ChildError, match="status 404"):
            scrape(url.replace("/metrics", "/elsewhere"))


def test_shares_are_of_what_is_added_within_each_round() -> None:
    # A machine that slows down by 100 in the second round slows all of them, and nothing follows from it.
    rounds = Rounds({"bare": [10, 110, 10], "a": [12, 112, 12], "b": [18, 118, 18]}, "bare")
    assert Spread.of(rounds.added("a")) == Spread(2, 2, 2)
    found = rounds.share("a", "b")
    assert (found.low, found.value, found.high) == (0.25, 0.25, 0.25)
    assert rounds.ratio("b", "a").value == 1.5


def test_an_interval_holds_its_value_and_widens_with_the_noise() -> None:
    quiet = Rounds({"bare": [0.0] * 9, "a": [9, 10, 11] * 3, "b": [20.0] * 9}, "bare").share("a", "b")
    noisy = Rounds({"bare": [0.0] * 9, "a": [1, 10, 30] * 3, "b": [20.0] * 9}, "bare").share("a", "b")
    assert noisy.low < quiet.low <= 0.5 <= quiet.high < noisy.high


def test_an_interval_widens_when_processes_differ() -> None:
    # The same numbers: once each draw has all of them, once each has its own.
    mixed, apart = (
        Rounds({"bare": [0.0] * 135, "a": added, "b": [20.0] * 135}, "bare", draws=3).share("a", "b")
        for added in ([8.0, 10.0, 12.0] * 45, [8.0] * 45 + [10.0] * 45 + [12.0] * 45)
    )
    assert (mixed.low, mixed.value, mixed.high) == (0.5, 0.5, 0.5)
    assert (apart.low, apart.value, apart.high) == (0.4, 0.5, 0.6)


def test_a_failed_target_is_shown_and_fails_the_run() -> None:
    at_limit = Target.at_most("one", Estimate(0.5, 0.4, 0.6), 0.5)
    above = Target.at_most("two", Estimate(0.51, 0.4, 0.6), 0.5)
    good, bad = Section("a", "", [], (at_limit,)), Section("b", "", [], (above,))
    assert not failed([good])
    assert failed([good, bad])
    assert targets_table([good, bad])[2:] == [
        "| one | 0.50 (0.40 to 0.60); at most 0.50 | **holds** |",
        "| two | 0.51 (0.40 to 0.60); at most 0.50 | **FAILED** |",
    ]


def test_a_page_that_could_not_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    refused = CliRunner().invoke(main, ["--output", str(tmp_path / "nowhere" / "page.md")])
    assert refused.exit_code == 2
    assert f"There is no folder {tmp_path / 'nowhere'}" in refused.output


def test_the_committed_page_is_of_a_whole_run_of_all_variants() -> None:
    page = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    missing = [title for title in variants.TITLES.values() if title not in page]
    assert not missing, "Run make bench-exporter."
    assert "\n    python -m cmo_bench.exporter\n" in page, "neither quick nor in part"


def _numbers(cell: str) -> tuple[float, float, float]:
    match = SPREAD.fullmatch(cell)
    assert match, cell
    median, low, high = map(float, match.groups())
    return low, median, high


def _median(cell: str) -> float:
    return _numbers(cell)[1]


def _names_and_labels(exposition: str) -> set[tuple[str, frozenset[str]]]:
    lines = [line for line in exposition.splitlines() if line and not line.startswith("#")]
    parts = [line.rpartition(" ")[0].partition("{") for line in lines]
    return {(name, frozenset(labels.rstrip("}").split(","))) for name, _, labels in parts}
