"""The command line: what it refuses, in which words and with which exit status."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cmo_oracle.profile import load_profile, profiles_directory
from cmo_oracle.settings import Settings, SettingsError, secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "sk-a-key-that-nobody-may-see"


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cmo_oracle", *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 3, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def test_wrong_usage() -> None:
    assert "No such option" in refused(run("--prot", "1"))
    assert "not in the range" in refused(run("--port", "99999"))


def test_a_profile_that_is_not_there() -> None:
    assert "no profile or file 'reprot'" in refused(run("--profile", "reprot"))


def test_a_profile_with_a_mistake_from_a_variable(tmp_path: Path) -> None:
    path = tmp_path / "mine.yml"
    text = (profiles_directory() / "report.yml").read_text()
    path.write_text(text.replace("enabled: true", "enabled: maybe"))
    line = text[: text.index("enabled: true")].count("\n") + 1
    message = refused(run(CMO_PROFILE=str(path)))
    assert f"{path}:{line}: perplexity.enabled: " in message
    assert "valid boolean" in message


def test_flags_go_before_variables() -> None:
    message = refused(run("--profile", "from-flag", CMO_PROFILE="from-variable"))
    assert "from-flag" in message
    assert "from-variable" not in message


def test_busy_ports(taken_port: int) -> None:
    message = refused(run("--port", str(taken_port), "--metrics-port", "0"))
    assert f"Cannot listen on 127.0.0.1:{taken_port}" in message
    assert "--port" in message
    assert str(taken_port) in refused(run("--port", "0", "--metrics-port", str(taken_port)))


def test_keys_come_from_a_variable_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert secret("CMO_TEST_KEY") == "none"
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    monkeypatch.setenv("CMO_TEST_KEY_FILE", str(path))
    assert secret("CMO_TEST_KEY") == KEY
    monkeypatch.setenv("CMO_TEST_KEY", "another")
    assert secret("CMO_TEST_KEY") == "another"


def test_a_key_file_that_cannot_be_read_is_told_without_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CMO_TEST_KEY_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match=r"CMO_TEST_KEY_FILE: .*nowhere cannot be read"):
        secret("CMO_TEST_KEY")
    (tmp_path / "nowhere").write_text("\n")
    with pytest.raises(SettingsError, match="is empty"):
        secret("CMO_TEST_KEY")
    (tmp_path / "nowhere").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="cannot be read"):
        secret("CMO_TEST_KEY")


@pytest.mark.parametrize(
    ("setting", "address"),
    [
        ("redis_url", f"redis://:{KEY}#@127.0.0.1:6379/0"),
        ("redis_url", f"http://:{KEY}@127.0.0.1"),
        ("redis_url", "127.0.0.1:6379"),
        ("upstream_url", "127.0.0.1:8090/v1"),
        ("perplexity_url", f"ftp://{KEY}@127.0.0.1"),
        ("perplexity_url", "https:///v1"),
    ],
)
def test_an_address_that_cannot_work_is_told_without_what_it_may_hold(
    setting: str, address: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=f"--{setting.replace('_', '-')} .*[Ee]xpected") as refusal:
        settings(tmp_path, **{setting: address})
    assert KEY not in str(refusal.value)


def settings(tmp_path: Path, **more: str) -> Settings:
    where = {"upstream_url": "http://127.0.0.1:8090/v1", **more}
    return Settings(profile=load_profile("report"), index_directory=tmp_path, **where)  # type: ignore[arg-type]  # any field


def test_keys_and_addresses_with_passwords_are_not_printed(tmp_path: Path) -> None:
    mine = settings(tmp_path, upstream_key=KEY, perplexity_key=KEY, redis_url=f"redis://:{KEY}@127.0.0.1/0")
    assert KEY not in repr(mine)


def test_the_stub_has_places_of_its_own_for_perplexity_and_the_index(tmp_path: Path) -> None:
    mine = settings(tmp_path)
    assert mine.fallback_url == "http://127.0.0.1:8090/perplexity/v1"
    assert mine.index_url == "http://127.0.0.1:8090/ingest/v1"
    named = settings(tmp_path, perplexity_url="https://perplexity.example/v1")
    assert named.fallback_url == "https://perplexity.example/v1"
