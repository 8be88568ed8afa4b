"""``cmo dashboards``: what is written, what is printed, and the exit statuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml
from click.testing import CliRunner
from cmo_dashboards.cli import dashboards
from cmo_dashboards.shipped import compiled_directory
from cmo_slo.objectives import shipped_directory
from cmo_stack.free_ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def test_build_writes_the_same_files_and_prints_where(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "dashboards.md"
    done = CliRunner().invoke(dashboards, ["build", "--output", str(tmp_path / "new"), "--docs", str(page)])
    assert done.exit_code == 0, done.output
    committed = _files(compiled_directory())
    assert _files(tmp_path / "new") == committed
    assert sorted(done.stdout.splitlines()) == sorted(
        [*(str(tmp_path / "new" / name) for name in committed), str(page)]
    )


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.json")}


def test_build_with_published_runbooks_links_each_alert_to_its_own(tmp_path: Path) -> None:
    options = ["--output", str(tmp_path), "--runbooks-url", "https://git.example.org/runbooks/"]
    done = CliRunner().invoke(dashboards, ["build", *options])
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "runbooks").exists(), "links lead to those that are published"
    for name in ("cmo-overview", "cmo-015"):
        document = json.loads((tmp_path / f"{name}.json").read_text())
        [table] = [panel for panel in document["panels"] if panel["type"] == "table"]
        [link] = table["fieldConfig"]["defaults"]["links"]
        assert link["url"] == "https://git.example.org/runbooks/${__data.fields.alertname}.md"
        assert "placement" not in link
    document = json.loads((tmp_path / "cmo-overview.json").read_text())
    pages = [panel["links"][0]["url"] for panel in document["panels"] if panel["title"].startswith("Success")]
    assert pages == ["https://git.example.org/runbooks/CMOLiveQueriesFailing.md"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--output", "made", "--runbooks-url", "docs/runbooks"], "no browser could open that"),
        (["--output", "made", "--runbooks-url", "https://"], "expected"),
        (["--runbooks-url", "https://git.example.org"], "need --output"),
    ],
)
def test_runbooks_that_nobody_could_open_exit_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(dashboards, ["build", *options])
    assert done.exit_code == 3
    assert words in done.stderr
    assert "pydantic" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_check_of_the_compiled_dashboards_is_clean() -> None:
    done = CliRunner().invoke(dashboards, ["check"])
    assert (done.exit_code, done.stdout) == (0, "")


def test_check_prints_one_line_a_finding_and_exits_1(tmp_path: Path) -> None:
    document = json.loads((compiled_directory() / "cmo-015.json").read_text())
    document["panels"][1]["targets"][0].update(expr="sum(cmo_querys_total)", legendFormat="")
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(document))
    done = CliRunner().invoke(dashboards, ["check", str(bad)])
    assert done.exit_code == 1
    [line] = done.stdout.splitlines()
    assert line.startswith(f"{bad}: names: ")
    assert "cmo_querys_total" in line


@pytest.mark.parametrize("character", ["\n", "\x1b", "\ud800"])
def test_what_a_finding_quotes_does_not_break_its_line(tmp_path: Path, character: str) -> None:
    document = json.loads((compiled_directory() / "cmo-015.json").read_text())
    document["panels"][1]["targets"][0].update(expr=f"sum(cmo_querys_total){character}", legendFormat="")
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(document))
    done = CliRunner().invoke(dashboards, ["check", str(bad)])
    assert done.exit_code == 1
    assert done.stdout.rstrip("\n").isprintable()


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what is compiled, which the command takes for it."""
    copied = tmp_path / "compiled"
    shutil.copytree(compiled_directory(), copied)
    monkeypatch.setattr("cmo_dashboards.cli.compiled_directory", lambda: copied)
    return copied


def test_check_says_what_of_the_compiled_dashboards_is_stale_or_stray(compiled: Path) -> None:
    document = json.loads((compiled / "cmo-015.json").read_text())
    document["description"] = "edited by hand"
    (compiled / "cmo-015.json").write_text(json.dumps(document))
    (compiled / "runbooks/CMOServiceDown.json").unlink()
    (compiled / "left-over.json").write_text('{"panels": []}')
    done = CliRunner().invoke(dashboards, ["check"])
    assert done.exit_code == 1
    stale = "fresh: is stale; run `cmo dashboards build` and commit what it writes"
    assert done.stdout.splitlines() == [
        f"{compiled}/cmo-015.json: {stale}",
        f"{compiled}/runbooks/CMOServiceDown.json: {stale}",
        f"{compiled}/left-over.json: fresh: nothing builds it; remove it",
    ]


@pytest.mark.parametrize("options", [[], ["cmo-overview.json"]])
def test_a_compiled_file_that_cannot_be_read_is_named(compiled: Path, options: list[str]) -> None:
    (compiled / "cmo-015.json").write_text("<<<<<<< HEAD")
    done = CliRunner().invoke(dashboards, ["check", *(str(compiled / name) for name in options)])
    assert done.exit_code == 3
    assert f"{compiled / 'cmo-015.json'} is not JSON" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--idle"], "--idle needs --prometheus-url"),
        (["--range", "1h"], "--range needs --prometheus-url"),
        (["--scrape-interval", "15s"], "--scrape-interval needs --prometheus-url"),
        (["--prometheus-url", "http://127.0.0.1:1", "some.json"], "exclude each other"),
        (["--prometheus-url", "http://127.0.0.1:1", "--range", "an hour"], "such as 15s"),
        (["--prometheus-url", "http://127.0.0.1:1", "--range", "0s"], "expected from 1s to 366d"),
        (["--prometheus-url", "http://127.0.0.1:1", "--range", "9" * 400 + "d"], "such as 15s"),
        (["--prometheus-url", "http://127.0.0.1:1", "--range", "9999999d"], "expected from 1s to 366d"),
        (["--prometheus-url", "http://127.0.0.1:1", "--scrape-interval", "1"], "such as 15s"),
    ],
)
def test_options_of_a_live_check_that_make_no_sense_exit_3(options: list[str], words: str) -> None:
    done = CliRunner().invoke(dashboards, ["check", *options])
    assert done.exit_code == 3
    assert words in done.stderr
    assert done.stdout == ""


def test_a_prometheus_that_is_not_there_exits_4_in_words() -> None:
    command = [sys.executable, "-m", "cmo_stack.cli", "dashboards", "check"]
    url = f"http://127.0.0.1:{free_port()}"
    done = subprocess.run([*command, "--prometheus-url", url], capture_output=True, text=True)
    assert done.returncode == 4
    assert f"No connection to {url}" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def _panel(defaults: dict[str, object], expression: str = "up") -> str:
    panel = {"type": "stat", "fieldConfig": {"defaults": defaults}, "targets": [{"expr": expression}]}
    return json.dumps({"panels": [panel]})


@pytest.mark.parametrize(
    "expression",
    ["job:up", "job:up:sum:5m", 'cmo_queries_total{outcome=~"[s|e].+"}', 'up{job=~"(a|b"}', "up{{"],
)
def test_expressions_of_others_are_found_fault_with_in_words(tmp_path: Path, expression: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(_panel({}, expression))
    done = CliRunner().invoke(dashboards, ["check", str(path)])
    assert done.exit_code == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is not there"),
        ('"' + "a" * 10_000_000 + '"', "is larger than 10 MB"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is no dashboard"),
        ("{}", "is no dashboard"),
        ('{"panels": [null]}', "can be checked"),
        ('{"panels": [{"targets": [null]}]}', "can be checked"),
        (_panel({"thresholds": {"steps": [{"value": "high"}]}}), "can be checked"),
        (_panel({"mappings": [{"type": "value", "options": {"down": {}}}]}), "can be checked"),
    ],
)
def test_a_file_that_is_no_dashboard_exits_3(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "file.json"
    if content is not None:
        path.write_text(content)
    done = CliRunner().invoke(dashboards, ["check", str(path)])
    assert done.exit_code == 3
    assert words in done.stderr
    assert done.stdout == ""


def test_the_page_is_not_written_over_the_objectives(tmp_path: Path) -> None:
    mine = _own(tmp_path)
    done = CliRunner().invoke(dashboards, ["build", mine, "--output", str(tmp_path / "new"), "--docs", mine])
    assert done.exit_code == 3
    assert "would be written over the objectives that it is made of" in done.stderr
    assert "objectives:" in (tmp_path / "my.yml").read_text()


def test_what_is_no_file_exits_3_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = CliRunner().invoke(dashboards, ["check", str(tmp_path / "pipe")])
    assert done.exit_code == 3
    assert "is no regular file" in done.stderr


def test_a_build_that_cannot_be_ended_leaves_what_was_there(tmp_path: Path) -> None:
    there = tmp_path / "cmo-overview.json"
    there.write_text("{}")
    build = f"ulimit -f 1; exec {sys.executable} -m cmo_stack.cli dashboards build --output {tmp_path}"
    done = subprocess.run(["bash", "-c", build], capture_output=True, text=True)
    assert done.returncode == 3
    assert f"{there} cannot be written: File too large" in done.stderr
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {there.name: "{}"}


def test_wrong_objectives_exit_3_with_the_place(tmp_path: Path) -> None:
    mine = _own(tmp_path, ("target: 50", "target: fifty"))
    done = CliRunner().invoke(dashboards, ["build", mine, "--output", str(tmp_path / "new")])
    assert done.exit_code == 3
    assert re.search(r"my\.yml:\d+: objectives\[0\]\.target", done.stderr)
    assert not (tmp_path / "new").exists()


def _own(folder: Path, *changes: tuple[str, str]) -> str:
    """A file of one's own objectives: the shipped ones with changes."""
    text = (shipped_directory() / "cmo-015.yml").read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "my.yml").write_text(text)
    return str(folder / "my.yml")


def _without(folder: Path, place: str, name: str) -> str:
    """The shipped objectives without an entry of a list, by its name or kind."""
    read = yaml.safe_load((shipped_directory() / "cmo-015.yml").read_text())
    kept = [one for one in read[place] if name not in (one.get("name"), one.get("kind"))]
    assert len(kept) == len(read[place]) - 1
    (folder / "my.yml").write_text(yaml.safe_dump({**read, place: kept}, sort_keys=False))
    return str(folder / "my.yml")


def _built(objectives: str, folder: Path, *options: str) -> Result:
    return CliRunner().invoke(dashboards, ["build", objectives, "--output", str(folder), *options])


def _checked(folder: Path, *options: str) -> Result:
    files = [str(path) for path in sorted(folder.glob("*.json"))]
    assert files
    return CliRunner().invoke(dashboards, ["check", *options, *files])


def test_dashboards_of_another_job_ask_for_no_other(tmp_path: Path) -> None:
    jobs = "{job: oracle, probe_job: oracle-probe,"
    changes = ("{job: cmo,", jobs), ("jobs: [cmo, probe, ", "jobs: [oracle, oracle-probe, ")
    mine = _own(tmp_path, *changes)
    done = _built(mine, tmp_path / "new")
    assert (done.exit_code, done.stderr) == (0, "")
    shipped, made = _files(compiled_directory()), _files(tmp_path / "new")
    assert made.keys() == shipped.keys()
    for job, theirs in ((b"cmo", b"oracle"), (b"probe", b"oracle-probe")):
        asked = [name for name, text in shipped.items() if b'job=\\"%s\\"' % job in text]
        assert "cmo-overview.json" in asked
        assert [name for name, text in made.items() if b'job=\\"%s\\"' % job in text] == []
        assert [name for name, text in made.items() if b'job=\\"%s\\"' % theirs in text] == asked
    assert b"there should be oracle, oracle-probe, prometheus" in made["cmo-monitor.json"]
    checked = _checked(tmp_path / "new", "--objectives", mine)
    assert (checked.exit_code, checked.stdout) == (0, "")
    of_others = _checked(tmp_path / "new").stdout.splitlines()
    assert len(of_others) > 100
    assert all("the objectives' jobs are cmo and probe" in line for line in of_others)


def test_targets_titles_and_the_name_follow_the_objectives(tmp_path: Path) -> None:
    mine = _own(tmp_path, ("name: cmo-015", "name: my-slo"), ("target: 0.70", "target: 0.60"))
    done = _built(mine, tmp_path / "new")
    assert (done.exit_code, done.stderr) == (0, "")
    texts = {name: text.decode() for name, text in _files(tmp_path / "new").items()}
    assert [name for name, text in texts.items() if 'slo=\\"cmo-015' in text or "/d/cmo-015" in text] == []
    assert 'slo=\\"my-slo\\"' in texts["runbooks/CMOProbeFailing.json"]
    assert "CMO-015" not in "".join(texts[name] for name in texts if "/" not in name).replace(
        "CMO-LIGHTRAG-015", ""
    )
    document = json.loads(texts["my-slo.json"])
    assert (document["uid"], document["title"]) == ("my-slo", "MY-SLO compliance")
    [tile] = [one for one in document["panels"] if one["title"] == "Cache hit rate (target > 60 %)"]
    steps = [step["value"] for step in tile["fieldConfig"]["defaults"]["thresholds"]["steps"]]
    assert steps[-1] == 0.62, "the target and its warning band"
    done = _checked(tmp_path / "new", "--objectives", mine)
    assert (done.exit_code, done.stdout) == (0, "")
    assert _checked(tmp_path / "new").exit_code == 1, "they are not those of cmo-015"


def test_where_the_objectives_say_that_runbooks_are_published_links_lead_there(tmp_path: Path) -> None:
    published = "links: {runbooks: 'HTTPS://wiki.example.org/runbooks/'}\nservice: {job: cmo,"
    done = _built(_own(tmp_path, ("service: {job: cmo,", published)), tmp_path / "new")
    assert done.exit_code == 0, done.stderr
    assert not (tmp_path / "new/runbooks").exists()
    assert "https://wiki.example.org/runbooks/CMOLiveQueriesFailing.md" in (
        tmp_path / "new/cmo-overview.json"
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("place", "name", "left_out", "lacking"),
    [
        ("objectives", "memory_growth", ["cmo-015", "cmo-resources", "cmo-load-test"], "'memory_growth'"),
        ("objectives", "cache_hits", ["cmo-components", "cmo-015", "cmo-load-test"], "'cache_hits'"),
        ("alerts", "watchdog", ["cmo-overview", "cmo-015", "cmo-monitor"], "alert of kind 'watchdog'"),
        ("components", "within_2s", ["cmo-overview"], "an entry 'within_2s'"),
    ],
)
def test_a_dashboard_that_shows_what_is_lacking_is_left_out_and_said_so(
    tmp_path: Path, place: str, name: str, left_out: list[str], lacking: str
) -> None:
    mine = _without(tmp_path, place, name)
    done = _built(mine, tmp_path / "new")
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert [line.partition(" is left out")[0] for line in lines] == [
        f"{mine}: the dashboard {uid}" for uid in left_out
    ]
    assert all(lacking in line and "add that as cmo-015.yml has it" in line for line in lines)
    written = {path.stem for path in (tmp_path / "new").glob("*.json")}
    assert written == {path.stem for path in compiled_directory().glob("*.json")} - set(left_out)
    done = _checked(tmp_path / "new", "--objectives", mine)
    assert (done.exit_code, done.stdout) == (0, "")


@pytest.mark.parametrize("name", ["cmo-overview", "a" * 41])
def test_no_dashboard_takes_the_uid_of_another_or_one_that_grafana_refuses(tmp_path: Path, name: str) -> None:
    done = _built(_own(tmp_path, ("name: cmo-015", f"name: {name}")), tmp_path / "new")
    assert done.exit_code == 1
    assert f"the dashboard {name} is left out" in done.stderr
    assert "`name` of at most 40 characters" in done.stderr
    assert json.loads((tmp_path / "new/cmo-overview.json").read_text())["title"] == "CMO overview"


def test_only_the_shipped_objectives_may_be_written_over_the_compiled_dashboards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cmo_dashboards.cli.compiled_directory", lambda: tmp_path / "compiled")
    done = CliRunner().invoke(dashboards, ["build", _own(tmp_path, ("target: 0.70", "target: 0.60"))])
    assert done.exit_code == 3
    assert "need --output" in done.stderr
    assert not (tmp_path / "compiled").exists()


def test_objectives_that_are_not_there_exit_3(tmp_path: Path) -> None:
    for command in (["build", "--output", str(tmp_path / "new")], ["check", "--objectives"]):
        done = CliRunner().invoke(dashboards, [*command, "cmo-051"])
        assert done.exit_code == 3
        assert "did you mean cmo-015?" in done.stderr


def test_a_live_check_of_objectives_that_nothing_could_prove_exits_3(tmp_path: Path) -> None:
    options = ["--prometheus-url", "http://127.0.0.1:1", "--objectives"]
    done = CliRunner().invoke(dashboards, ["check", *options, _without(tmp_path, "alerts", "watchdog")])
    assert done.exit_code == 3
    assert "lack an alert of kind 'watchdog'" in done.stderr


def test_a_check_of_the_compiled_dashboards_takes_no_other_objectives(tmp_path: Path) -> None:
    mine = _own(tmp_path, ("target: 0.70", "target: 0.60"))
    done = CliRunner().invoke(dashboards, ["check", "--objectives", mine])
    assert done.exit_code == 3
    assert "--objectives needs FILES or --prometheus-url" in done.stderr


def test_a_place_that_cannot_be_written_exits_3(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder is wanted")
    done = CliRunner().invoke(dashboards, ["build", "--output", str(tmp_path / "taken")])
    assert done.exit_code == 3
    assert "cannot be written" in done.stderr
