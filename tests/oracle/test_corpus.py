"""The corpus: complete, well-formed, and told apart by its fingerprint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cmo_oracle.corpus import CorpusError, Passage, corpus_directory, corpus_fingerprint, load_corpus

if TYPE_CHECKING:
    from pathlib import Path

# A word or two that the passage of each topic must hold, so that a question of the load test meets it.
TOPICS = [
    "TMAO", "homocysteine", "phenylketonuria", "maple syrup", "insulin resistance", "octanoylcarnitine",
    "cholestasis of pregnancy", "kynurenine", "ceramides", "2-hydroxyglutarate", "lactate", "succinate",
    "butyrate", "gout", "cystatin C", "galactose-1-phosphate", "orotic acid", "methylmalonic acid",
    "nonketotic hyperglycinaemia", "citrulline", "p-cresol sulfate", "indoxyl sulfate", "ADMA",
    "beta-hydroxybutyrate", "1,5-anhydroglucitol", "17-hydroxyprogesterone", "7-dehydrocholesterol",
    "newborn screening", "NMR", "quality control samples", "statin",
]  # fmt: skip


@pytest.mark.parametrize("topic", TOPICS)
def test_every_topic_has_a_passage_of_its_own(topic: str) -> None:
    titles = [passage.text.split(".")[0] + passage.body[:200] for passage in load_corpus()]
    assert any(topic.lower() in title.lower() for title in titles)


def test_passages_are_short_and_named_once() -> None:
    passages = load_corpus()
    assert len({passage.name for passage in passages}) == len(passages) >= 30
    for passage in passages:
        assert 80 <= len(passage.body.split()) <= 200, passage.name
        assert passage.body.endswith("."), passage.name


def test_corpus_lives_where_the_package_says() -> None:
    assert {path.suffix for path in corpus_directory().iterdir()} == {".md"}


def test_fingerprint_changes_with_a_letter() -> None:
    one = (Passage("a", "Title", "Body."),)
    assert corpus_fingerprint(one) == corpus_fingerprint((Passage("a", "Title", "Body."),))
    assert corpus_fingerprint(one) != corpus_fingerprint((Passage("a", "Title", "Bodi."),))
    assert corpus_fingerprint(one) != corpus_fingerprint((Passage("b", "Title", "Body."),))


def test_an_empty_folder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=str(tmp_path)):
        load_corpus(tmp_path)


@pytest.mark.parametrize("content", ["no heading\n\nBody.", "# Title alone\n", ""])
def test_a_malformed_passage_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "odd.md").write_text(content)
    with pytest.raises(CorpusError, match=r"odd\.md.*# Title"):
        load_corpus(tmp_path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.md").write_bytes(b"# \xff\xfe\n\nx")
    with pytest.raises(CorpusError, match=r"binary\.md.*UTF-8"):
        load_corpus(tmp_path)
