"""What workers share, without servers around it: blocks, places, and what becomes of them."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING

import pytest
from cmo_exporter import (
    Exporter,
    ExporterSettings,
    MetricsAddressError,
    SharedDirectoryError,
    postponed_ends,
    queries,
)
from cmo_exporter.heartbeat import Heartbeat
from cmo_exporter.instruments import EXEMPLAR_WIDTH
from cmo_exporter.ledger import Ending
from cmo_exporter.membership import Membership
from cmo_exporter.memory import process_start_ticks
from cmo_exporter.values import PROCESS_ID, PROCESS_START, SEQUENCE, FullError, Numbers, Values

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cmo_exporter.workers import SharedDirectory

    Eventually = Callable[[Callable[[], object]], None]


def make(directory: Path, **settings: object) -> Exporter:
    return Exporter(
        ExporterSettings(
            scenarios=("rush",), components=("llm",), shared_directory=directory, **settings  # type: ignore[arg-type]  # each test its own
        )
    )  # fmt: skip


def value(exporter: Exporter, name: str, **labels: str) -> float | None:
    return exporter.registry.get_sample_value(name, labels)


def answer(exporter: Exporter, times: int = 1) -> None:
    for _ in range(times):
        with exporter.query() as query:
            query.answered("lightrag")


def answered(exporter: Exporter) -> float | None:
    return value(exporter, "cmo_queries_total", scenario="live", outcome="success")


def in_a_child(directory: Path, code: str) -> subprocess.Popen[str]:
    """Run code in a process of its own, with an exporter that has joined as `exporter`."""
    program = f"""
import os, signal, sys, time
from pathlib import Path
from cmo_exporter import Exporter, ExporterSettings
directory = Path({str(directory)!r})
exporter = Exporter(ExporterSettings(scenarios=("rush",), components=("llm",), shared_directory=directory))
exporter.start()
def answer(times=1):
    for _ in range(times):
        with exporter.query() as query:
            query.answered("lightrag")
    # What is written down is posted ten times a second; until then others do not see it.
    journal = exporter.recorder.journal
    while any(page.lines for page in (*journal.query_ends, *journal.beginnings)):
        time.sleep(0.001)
{textwrap.dedent(code)}
"""
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


KILL = "os.kill(os.getpid(), signal.SIGKILL)"


def shows_both(exporter: Exporter) -> bool:
    """Whether it shows what both have counted, and what is under way in one."""
    return answered(exporter) == 5 and value(exporter, "cmo_queries_in_progress", scenario="rush") == 1


def test_each_worker_shows_the_sum_and_itself(tmp_path: Path, eventually: Eventually) -> None:
    with make(tmp_path / "shared") as one, make(tmp_path / "shared") as other:
        answer(one, 2)
        answer(other, 3)
        query = other.query("rush")
        query.begin()
        for exporter in (one, other):
            eventually(functools.partial(shows_both, exporter))
            assert {
                sample.labels["worker"]
                for family in exporter.registry.collect()
                for sample in family.samples
                if sample.name == "cmo_worker_start_time_seconds"
            } == {"0", "1"}
        assert one.metrics_url == other.metrics_url
        query.finish()


def test_what_cannot_be_added_up_is_shown_as_in_the_worker_that_has_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = {"version": "1.2.3", "revision": "abc1234"}
    with make(tmp_path / "shared", **build) as one, make(tmp_path / "shared", **build) as other:
        now, under_way = time.monotonic(), []
        for exporter, l1, l2, began in ((one, 7, 2, now - 1000), (other, 5, 3, now - 600)):
            exporter.cache_entries("l1", l1)
            exporter.cache_entries("l2", l2)
            exporter.breaker_state("llm", "open")
            monkeypatch.setattr(queries, "monotonic", lambda began=began: began)
            under_way.append(exporter.query("rush"))
            under_way[-1].begin()
            list(exporter.registry.collect())  # each writes down what it alone knows
        for exporter in (one, other):
            assert value(exporter, "cmo_cache_entries", tier="l1") == 7
            assert value(exporter, "cmo_cache_entries", tier="l2") == 3
            assert value(exporter, "cmo_circuit_breaker_state", component="llm", state="open") == 1
            assert value(exporter, "cmo_build_info", **build) == 1
            oldest = value(exporter, "cmo_oldest_query_age_seconds", scenario="rush")
            assert oldest is not None
            assert 1000 <= oldest <= 1000 + time.monotonic() - now
        monkeypatch.undo()
        for query in under_way:
            query.finish()


def test_what_was_counted_before_joining_is_there(tmp_path: Path) -> None:
    exporter = make(tmp_path / "shared")
    answer(exporter, 2)
    with exporter, make(tmp_path / "shared") as other:
        assert answered(other) == 2


def test_a_killed_worker_loses_nothing_that_was_posted_and_its_place_is_taken(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    with make(directory) as survivor:
        for killed in (1, 2, 3):
            child = in_a_child(directory, f"exporter.query('rush').begin(); answer(10); {KILL}")
            assert child.wait(60) == -signal.SIGKILL
            assert answered(survivor) == 10 * killed
            assert value(survivor, "cmo_queries_in_progress", scenario="rush") == 0
            assert value(survivor, "cmo_queries_started_total", scenario="rush") == killed
            assert value(survivor, "cmo_worker_start_time_seconds", worker="1") is None, "gauges die"
        with make(directory) as successor:
            assert value(survivor, "cmo_worker_restarts_total", worker="1") == 3
            assert answered(successor) == 30
        assert sorted(file.name.partition(".")[0] for file in directory.glob("*.values")) == ["0", "1"]


def test_a_killed_worker_whose_process_id_another_process_has_got_is_gone(tmp_path: Path) -> None:
    with make(tmp_path) as exporter:
        child = in_a_child(tmp_path, f"answer(3); exporter.query('rush').begin(); answer(); {KILL}")
        assert child.wait(60) == -signal.SIGKILL
        (file,) = tmp_path.glob("1.*.values")
        with file.open("r+b") as block:  # this process has begun at another time
            block.seek(PROCESS_ID * 8)
            block.write(struct.pack("d", os.getpid()))
            block.seek(PROCESS_START * 8)
            block.write(struct.pack("d", (process_start_ticks(os.getpid()) or 0) - 1))
        assert answered(exporter) == 4
        assert value(exporter, "cmo_queries_in_progress", scenario="rush") == 0
        with make(tmp_path) as another:
            assert value(another, "cmo_worker_restarts_total", worker="1") == 1, "it has taken the place"


def test_a_worker_that_ends_without_closing_loses_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    code = """
    for _ in range(10):
        with exporter.query() as query:
            query.answered("lightrag")
    """
    with make(directory) as survivor:
        assert in_a_child(directory, code).wait(60) == 0
        assert answered(survivor) == 10


def test_a_service_that_starts_anew_counts_anew(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    child = in_a_child(directory, f"answer(10); exporter.query('rush', 'u').begin(); {KILL}")
    assert child.wait(60) == -signal.SIGKILL
    with make(directory) as exporter:
        assert answered(exporter) == 0
        assert value(exporter, "cmo_active_users", scenario="rush") == 0
        assert value(exporter, "cmo_worker_restarts_total", worker="0") == 0


def test_a_worker_killed_in_mid_change_hides_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    code = f"""
    from cmo_exporter.values import SEQUENCE
    answer(10)
    exporter.recorder.ledger._values.numbers[SEQUENCE] += 1.0
    {KILL}
    """
    with make(directory) as survivor:
        assert in_a_child(directory, code).wait(60) == -signal.SIGKILL
        assert answered(survivor) == 10


def test_a_forked_child_counts_nothing_of_its_own_until_it_starts(tmp_path: Path) -> None:
    with make(tmp_path / "shared") as parent:
        answer(parent, 2)
        assert answered(parent) == 2  # it is read, so that its child sees it, too
        port = parent.metrics_url

        def child(connection: multiprocessing.connection.Connection) -> None:
            answer(parent, 3)
            parent.start()
            connection.send((parent.metrics_url, answered(parent)))
            connection.recv()
            os._exit(0)

        here, there = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=child, args=(there,), daemon=True)
        process.start()
        try:
            assert here.recv() == (port, 5)
            assert answered(parent) == 5
        finally:
            here.send("done")
            process.join(60)
        assert answered(parent) == 5


def test_a_fork_without_a_shared_directory_is_another_service() -> None:
    exporter = Exporter(ExporterSettings())
    answer(exporter)
    here, there = multiprocessing.Pipe()

    def child() -> None:
        answer(exporter, 5)
        there.send(answered(exporter))
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    assert here.recv() == 5
    process.join(60)
    assert answered(exporter) == 1


def test_a_call_that_is_under_way_at_a_fork_is_the_parents() -> None:
    exporter = Exporter(ExporterSettings(components=("llm",)))
    here, there = multiprocessing.Pipe()
    name = "cmo_component_calls_total"
    labels = {"scenario": "live", "component": "llm", "outcome": "success"}
    with exporter.query() as query, query.component("llm") as call:
        postponed_ends.postpone(lambda: call.__exit__(None, None, None))

        def child() -> None:
            there.send(postponed_ends._waiting.qsize())
            call.__exit__(None, None, None)
            there.send(value(exporter, name, **labels))
            there.send(value(exporter, "cmo_component_in_progress", component="llm"))
            os._exit(0)

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        assert [here.recv() for _ in range(3)] == [0, 0, 0]
        process.join(60)
    assert value(exporter, name, **labels) == 1


def test_users_and_their_clock_are_of_one_instant(tmp_path: Path) -> None:
    with make(tmp_path / "shared") as exporter, exporter.session("somebody"):
        sessions = exporter.recorder.ledger.sessions
        seen = []
        for later in (0.0, 5.0):
            # As if another worker had looked a little later than this one read its clock.
            sessions.header[3] = time.monotonic() + later
            scraped = {
                sample.name: sample.value
                for family in exporter.registry.collect()
                for sample in family.samples
                if sample.labels.get("scenario", "live") == "live"
            }
            seen.append(
                (
                    scraped["cmo_active_user_seconds_total"],
                    scraped["cmo_active_user_clock_seconds_total"],
                )
            )
        (seconds, clock), (more_seconds, later_clock) = seen
        assert more_seconds - seconds == pytest.approx(later_clock - clock, rel=1e-6)
        assert later_clock - clock >= 5.0


def test_leaving_keeps_what_was_counted(tmp_path: Path) -> None:
    with make(tmp_path / "shared") as stays:
        with make(tmp_path / "shared") as leaves:
            answer(leaves, 4)
        assert answered(stays) == 4
        answer(leaves, 100)  # not a worker any more
        assert answered(stays) == 4


def test_a_line_that_is_written_while_its_worker_leaves_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with make(tmp_path / "shared") as stays:
        with make(tmp_path / "shared", query_log=True) as leaves:
            answer(leaves, 4)
        assert len(capsys.readouterr().err.splitlines()) == 4
        assert value(stays, "cmo_query_log_lines_total", result="written") == 4


def test_many_threads_and_two_workers_balance_in_every_scrape(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    child = in_a_child(directory, "print('ready', flush=True); answer(20_000); sys.stdin.read()")
    assert child.stdout is not None
    child.stdout.readline()
    with make(directory) as exporter:
        while True:
            samples = {
                (sample.name, sample.labels.get("outcome")): sample.value
                for family in exporter.registry.collect()
                for sample in family.samples
                if sample.labels.get("scenario") == "live"
            }
            finished = samples["cmo_queries_total", "success"]
            assert (
                samples["cmo_queries_started_total", None]
                == finished + samples["cmo_queries_in_progress", None]
            )
            assert samples["cmo_query_duration_seconds_count", "success"] == finished
            if finished == 20_000:
                break
    child.communicate("")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_that_some_other_service_has_is_an_error(tmp_path: Path, workers: int) -> None:
    with socket.socket() as busy:
        busy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        for _ in range(workers):
            with pytest.raises(MetricsAddressError, match="another port"):
                make(tmp_path / "shared", port=busy.getsockname()[1]).start()


def test_a_directory_that_others_can_write_in_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(SharedDirectoryError, match="can be written by others"):
        make(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SharedDirectoryError, match="cannot be made"):
        make(tmp_path / "file" / "below")


def test_nobody_else_can_read_the_files_and_files_of_others_are_left_alone(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    directory.mkdir(mode=0o700)
    (directory / "diary.txt").write_text("dear diary", encoding="utf-8")
    with make(directory) as exporter:
        with exporter.query(session="somebody@hospital.example") as query:
            query.answered("cache")
        for file in directory.iterdir():
            if file.name != "diary.txt":
                assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file
                assert b"somebody" not in file.read_bytes()
    with make(directory):
        assert (directory / "diary.txt").read_text(encoding="utf-8") == "dear diary"


def test_workers_that_count_other_things_are_not_added_up(tmp_path: Path) -> None:
    with make(tmp_path / "shared") as one:
        answer(one)
        other = Exporter(ExporterSettings(components=("another",), shared_directory=tmp_path / "shared"))
        with other:
            assert answered(other) == 0
            assert answered(one) == 1


def fill(values: Values) -> None:
    for width in (1000, 1):
        with contextlib.suppress(FullError):
            while True:
                values.allocate("filler#exemplars", (), width)
    values.allocate("filler#exemplars", (), 1)


def test_a_block_that_is_full_says_so() -> None:
    values = Values()
    with pytest.raises(FullError):
        fill(values)


def test_a_full_block_counts_errors_and_goes_on(tmp_path: Path) -> None:
    with make(tmp_path / "shared") as exporter:
        with pytest.raises(FullError):
            fill(exporter.recorder.ledger._values)
        exporter.current_query().fallback(source="cache", target="stale", reason="api_error")
        name = "cmo_instrumentation_errors_total"
        assert value(exporter, name, metric="cmo_fallbacks_total") == 1


def test_a_block_that_is_full_from_the_start_is_scraped_all_the_same() -> None:
    exporter = Exporter(ExporterSettings())
    with pytest.raises(FullError):
        fill(exporter.recorder.ledger._values)
    answer(exporter)
    assert answered(exporter) == 1
    assert value(exporter, "cmo_instrumentation_errors_total", metric="cmo_memory_bytes")


def test_what_finds_no_room_to_end_is_not_in_progress_for_ever() -> None:
    exporter = Exporter(ExporterSettings(components=("llm",)))
    with pytest.raises(FullError):
        fill(exporter.recorder.ledger._values)
    with exporter.query() as query:
        query.answered("a source that nobody knows")
        call = query.component("llm")
        call.__enter__()
        call.outcome("no outcome, either")
        call.__exit__(None, None, None)
    assert value(exporter, "cmo_queries_started_total", scenario="live") == 1
    assert value(exporter, "cmo_queries_in_progress", scenario="live") == 0
    assert value(exporter, "cmo_component_in_progress", component="llm") == 0
    for lost in ("cmo_queries_total", "cmo_component_calls_total"):
        assert value(exporter, "cmo_instrumentation_errors_total", metric=lost) == 1
    answer(exporter)
    assert answered(exporter) == 1


class WatchedNumbers:
    """Numbers that may be changed only while a reader can see that they are being changed."""

    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers
        self.changed: set[int] = set()

    def __getitem__(self, slot: int) -> float:
        return self.numbers[slot]

    def __setitem__(self, slot: int, number: float) -> None:
        if slot != SEQUENCE:
            assert self.numbers[SEQUENCE] % 2 == 1
            self.changed.add(slot)
        self.numbers[slot] = number


def test_what_belongs_together_is_changed_while_readers_wait() -> None:
    exporter = Exporter(ExporterSettings(components=("llm",)))
    answer(exporter)  # what is needed for the first time is put into the block before
    values = exporter.recorder.ledger._values
    values.journal.post()
    watched = WatchedNumbers(values.numbers)
    values.numbers = watched  # type: ignore[assignment]  # it looks like them
    answer(exporter)
    values.journal.post()
    assert len(watched.changed) == 7
    trace = {"trace_id": "1" * 32, "span_id": "2" * 16}
    duration = exporter.recorder.instruments.duration.child("live", "success")
    values.numbers = watched.numbers
    duration.remember(0.1, trace)  # the first makes the room
    values.numbers = watched  # type: ignore[assignment]  # as above
    duration.remember(0.1, trace)
    values.numbers = watched.numbers
    assert len(watched.changed) == 7 + EXEMPLAR_WIDTH, "an exemplar belongs together, too"
    assert values.numbers[SEQUENCE] % 2 == 0
    assert answered(exporter) == 2


def test_a_scrape_while_a_worker_joins_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its port is open by then, and its numbers are where others will see them, but do not yet."""
    exporter = make(tmp_path / "shared")
    answer(exporter)
    scraped: list[float | None] = []

    def scrape_first(process: int) -> int | None:
        if exporter.recorder.ledger._values.is_shared and not scraped:
            scraped.append(None)
            scraped.append(answered(exporter))
        return process_start_ticks(process)

    monkeypatch.setattr("cmo_exporter.workers.process_start_ticks", scrape_first)
    with exporter:
        assert answered(exporter) == 1
    assert len(scraped) == 2


def test_a_scrape_waits_for_a_worker_that_joins_and_sees_the_users_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its port is open by then: without their users, counters of the service would seem to begin again."""
    first, joining = make(tmp_path / "shared"), make(tmp_path / "shared")
    scraped: list[float | None] = []
    scrape = threading.Thread(
        target=lambda: scraped.append(value(joining, "cmo_active_users", scenario="live"))
    )

    def share_while_it_is_scraped(membership: Membership, directory: SharedDirectory) -> None:
        scrape.start()
        scrape.join(0.3)  # it is to wait, so nothing tells that it has been long enough
        share(membership, directory)

    share = Membership._share
    with first, first.session("alice"):
        monkeypatch.setattr(Membership, "_share", share_while_it_is_scraped)
        with joining:
            scrape.join()
    assert scraped == [1.0]


def test_a_worker_posts_what_waits_before_it_says_that_it_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Heartbeat, "_run", lambda _: None)
    post, written_by = Ending.post, []

    def noting(page: Ending, numbers: Numbers, lines: list[float]) -> None:
        written_by.append(numbers[PROCESS_ID])
        post(page, numbers, lines)

    monkeypatch.setattr(Ending, "post", noting)
    with make(tmp_path / "shared") as exporter:
        answer(exporter)
    assert written_by == [os.getpid()], "nobody waits for the change of a worker that has left"


def test_a_reader_waits_for_a_change_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "shared"
    with make(directory) as writer, make(directory) as reader:
        book, numbers = writer.recorder.ledger.scenario("live"), writer.recorder.ledger._values.numbers
        numbers[SEQUENCE] += 1.0
        book.post(numbers, [None])
        numbers[book.in_progress] -= 1.0

        def end_the_change(_seconds: float) -> None:
            monkeypatch.undo()
            numbers[book.in_progress] += 1.0
            numbers[SEQUENCE] += 1.0

        monkeypatch.setattr("cmo_exporter.values.pause", end_the_change)
        assert value(reader, "cmo_queries_started_total", scenario="live") == 1
        assert value(reader, "cmo_queries_in_progress", scenario="live") == 1


def test_the_directory_is_asked_by_many_at_once(tmp_path: Path) -> None:
    children = [
        in_a_child(tmp_path / "shared", "answer(100); print('ready', flush=True); sys.stdin.read()")
        for _ in range(6)
    ]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    with make(tmp_path / "shared") as exporter:
        assert answered(exporter) == 600
    for child in children:
        child.communicate("")
    assert threading.active_count() < 50
