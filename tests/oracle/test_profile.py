from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cmo_oracle.profile import PROFILE_NAMES, ProfileError, load_profile, profiles_directory

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", PROFILE_NAMES)
def test_every_shipped_profile_loads_under_its_own_name(name: str) -> None:
    assert load_profile(name).name == name


def test_the_report_has_the_settings_it_criticises_and_healthy_mends_them() -> None:
    report, healthy = load_profile("report"), load_profile("healthy")
    assert report.lightrag.timeout_seconds == 3.0
    assert healthy.lightrag.timeout_seconds == 4.5
    assert report.lightrag.breaker.failure_threshold == 10
    assert healthy.lightrag.breaker.failure_threshold == 15
    assert report.lightrag.breaker.recovery_seconds == 2 * healthy.lightrag.breaker.recovery_seconds
    assert report.lightrag.retries.times == 0
    assert healthy.lightrag.retries.times == 2
    assert healthy.cache.l1.entries == 15_000
    assert (report.upstream_calibration, healthy.upstream_calibration) == ("busy", "calm")


def test_a_threshold_for_real_embeddings_can_be_set() -> None:
    changed = load_profile("report", ("models.embedding.similarity_threshold=0.25",))
    assert changed.models.embedding.similarity_threshold == 0.25
    with pytest.raises(ProfileError, match="similarity_threshold"):
        load_profile("report", ("models.embedding.similarity_threshold=1.5",))


def edited(tmp_path: Path, old: str, new: str) -> Path:
    text = (profiles_directory() / "report.yml").read_text()
    assert text.count(old) == 1, old
    path = tmp_path / "mine.yml"
    path.write_text(text.replace(old, new))
    return path


def line_of(path: Path, text: str) -> int:
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)


@pytest.mark.parametrize(
    ("old", "new", "at", "field", "expected"),
    [
        ("  at_once: 200", "  at_onec: 200", "at_onec", "query.at_onec", "is not a setting"),
        ("  at_once: 200", "  at_once: many", "at_once: many", "query.at_once", "integer, not 'many'"),
        ("  at_once: 200", "  at_once: 0", "at_once: 0", "query.at_once", "equal to 1, not 0"),
        ("  at_once: 200\n", "", "query:", "query.at_once", "is missing"),
        (
            "breaker: {failure_threshold: 10,",
            "breaker: {failure_threshold: '10',",
            "failure_threshold",
            "lightrag.breaker.failure_threshold",
            "valid integer, not '10'",
        ),
        ("calibration: busy", "calibration: wild", "wild", "upstream_calibration", "'busy' or 'calm'"),
        ("  enabled: true", "  enabled: 1", "enabled: 1", "perplexity.enabled", "valid boolean"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named_by_file_line_and_field(
    tmp_path: Path, old: str, new: str, at: str, field: str, expected: str
) -> None:
    path = edited(tmp_path, old, new)
    with pytest.raises(ProfileError) as refused:
        load_profile(str(path))
    message = str(refused.value)
    assert f"{path}:{line_of(path, at)}: {field}: " in message
    assert expected in message
    assert message.count("\n") == (1 if "onec" in new else 0)


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = edited(tmp_path, "  at_once: 200\n  characters: 2000", "  at_once: no\n  characters: no")
    with pytest.raises(ProfileError) as refused:
        load_profile(str(path))
    assert len(str(refused.value).splitlines()) == 2


def test_a_deadline_shorter_than_the_engine_is_refused() -> None:
    with pytest.raises(
        ProfileError, match=r"query\.deadline_seconds must be at least lightrag\.timeout_seconds"
    ):
        load_profile("report", ("query.deadline_seconds=1.0",))


def test_what_is_not_yaml_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yml"
    path.write_text("version: cmo-oracle/v1\nname: [report\n")
    with pytest.raises(ProfileError, match=r"mine\.yml:3: is not YAML"):
        load_profile(str(path))
    path.write_text("- a list\n")
    with pytest.raises(ProfileError, match=r"mine\.yml:1: a profile is a mapping"):
        load_profile(str(path))


def test_a_profile_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(ProfileError, match=r"no profile or file 'reprot'.*report, healthy"):
        load_profile("reprot")


def test_fields_can_be_changed_one_by_one() -> None:
    profile = load_profile("report", ("cache.l1.entries=15000", "lightrag.timeout_seconds=4.5"))
    assert profile.cache.l1.entries == 15_000
    assert profile.lightrag.timeout_seconds == 4.5
    assert profile.cache.l2 == load_profile("report").cache.l2


@pytest.mark.parametrize("change", ["cache.l1.entires=10", "cache.l9.entries=10", "cache.l1.entries", "=3"])
def test_a_change_of_a_field_that_is_not_there_is_refused(change: str) -> None:
    with pytest.raises(ProfileError, match=f"--set {change}: expected FIELD=VALUE"):
        load_profile("report", (change,))


def test_a_change_of_the_wrong_type_is_told_as_such() -> None:
    with pytest.raises(ProfileError, match=r"^--set: cache\.l1\.entries: .*valid integer, not 'ten'"):
        load_profile("report", ("cache.l1.entries=ten",))
