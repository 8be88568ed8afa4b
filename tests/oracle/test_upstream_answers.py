"""What the stub makes of LightRAG's prompts: entities, keywords, vectors and answers, always the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
from cmo_oracle.corpus import load_corpus
from cmo_oracle.upstream import answers
from cmo_oracle.upstream.glossary import terms_in
from cmo_oracle.upstream.wording import DIMENSION, content_words, embed
from lightrag.prompt import PROMPTS

TEXT = (
    "Uric acid in gout. Xanthine oxidase makes uric acid from xanthine. "
    "Allopurinol inhibits xanthine oxidase. The transporter URAT1 reabsorbs uric acid."
)


def _extraction_prompt(text: str) -> answers.Prompt:
    user = PROMPTS["entity_extraction_user_prompt"].format(
        max_total_records=100, max_entity_records=40, completion_delimiter="<|COMPLETE|>",
        language="English", heading_context_block="", input_text=text,
    )  # fmt: skip
    return answers.read_prompt([{"role": "system", "content": "…"}, {"role": "user", "content": user}])


def test_extraction_prompt_yields_entities_and_relations_in_lightrags_format() -> None:
    prompt = _extraction_prompt(TEXT)
    rows = answers.answer(prompt).splitlines()
    assert prompt.kind == "extraction"
    assert rows[-1] == "<|COMPLETE|>"
    fields = [row.split("<|#|>") for row in rows[:-1]]
    assert {row[0]: len(row) for row in fields} == {"entity": 4, "relation": 5}
    entities = {row[1] for row in fields if row[0] == "entity"}
    assert {"Uric Acid", "Gout", "Xanthine Oxidase", "Allopurinol", "URAT1"} <= entities
    edges = {frozenset(row[1:3]) for row in fields if row[0] == "relation"}
    assert {frozenset({"Allopurinol", "Xanthine Oxidase"}), frozenset({"Uric Acid", "URAT1"})} <= edges
    assert all(edge <= entities for edge in edges)


@pytest.mark.parametrize("passage", load_corpus(), ids=lambda passage: passage.name)
def test_every_passage_has_entities_that_are_joined(passage: object) -> None:
    rows = answers.extract(getattr(passage, "text", "")).splitlines()
    assert sum(row.startswith("entity") for row in rows) >= 4
    assert sum(row.startswith("relation") for row in rows) >= 3


def test_keyword_prompt_yields_json_of_both_levels_from_the_query_alone() -> None:
    user = PROMPTS["keywords_extraction"].format(
        query="Why does TMAO rise in chronic kidney disease?", language="English",
        examples=PROMPTS["keywords_extraction_examples"][0],
    )  # fmt: skip
    prompt = answers.read_prompt([{"role": "user", "content": user}])
    found = json.loads(answers.answer(prompt))
    assert prompt.kind == "keywords"
    assert set(found) == {"high_level_keywords", "low_level_keywords"}
    assert {"Trimethylamine N-Oxide", "Chronic Kidney Disease"} <= set(found["low_level_keywords"])
    assert "chronic kidney" in found["high_level_keywords"]
    assert "retrieval" not in json.dumps(found).lower()


def test_a_greeting_has_no_keywords() -> None:
    assert answers.keywords("And you?") == {"high_level_keywords": [], "low_level_keywords": []}


def test_summary_prompt_joins_descriptions_without_repeating_them() -> None:
    listing = (
        '{"Description": "Glucose is a sugar. It is sweet."}\n{"Description": "Glucose is a sugar. Twice."}'
    )
    user = PROMPTS["summarize_entity_descriptions"].format(
        description_type="Entity", description_name="Glucose", description_list=listing, summary_length=100,
        language="English",
    )  # fmt: skip
    prompt = answers.read_prompt([{"role": "user", "content": user}])
    assert prompt.kind == "summary"
    assert answers.answer(prompt) == "Glucose is a sugar."


def _context(*chunks: str) -> str:
    lines = "\n".join(
        json.dumps({"reference_id": str(number), "content": chunk}) for number, chunk in enumerate(chunks, 1)
    )
    references = "\n".join(f"[{number}] passage-{number}.md" for number in range(1, len(chunks) + 1))
    data = PROMPTS["naive_query_context"].format(text_chunks_str=lines, reference_list_str=references)
    return str(PROMPTS["naive_rag_response"].format(response_type="x", user_prompt="", content_data=data))


def test_answer_is_made_of_the_nearest_sentences_of_the_context_and_cites_them() -> None:
    context = _context("Ceramides are lipids. Statins lower them.", "Gout is treated with allopurinol.")
    said = answers.respond("What is gout treated with?", context)
    assert "Gout is treated with allopurinol." in said
    assert "Ceramides" not in said
    assert "- [2] passage-2.md" in said


def test_answer_admits_that_the_context_holds_nothing() -> None:
    assert (
        answers.respond("Which guitar strings suit jazz?", _context("Gout is painful.")) == answers.NO_ANSWER
    )


def test_a_question_without_context_is_answered_from_the_corpus() -> None:
    assert "URAT1" in answers.respond("Which transporters cause hyperuricaemia in gout?", "")


def test_longest_name_wins_and_abbreviations_join_their_entity() -> None:
    names = [term.name for term in terms_in("TMAO is trimethylamine N-oxide; type 2 diabetes is not TMAO.")]
    assert names == ["Trimethylamine N-Oxide", "Type 2 Diabetes"]


def test_vectors_are_unit_length_and_near_when_words_are_shared() -> None:
    question, near, far = map(
        embed, ("ceramide in plasma", "Plasma ceramides predict", "bicycle tyre repair")
    )
    assert question.shape == (DIMENSION,)
    assert np.linalg.norm(question) == pytest.approx(1.0)
    assert question @ near > 0.5
    assert abs(float(question @ far)) < 0.15


def test_stop_words_and_case_do_not_move_a_vector() -> None:
    assert np.array_equal(embed("the lactate in the sepsis"), embed("LACTATE: sepsis?"))
    assert content_words("What is it?") == ()
    assert np.isfinite(embed("What is it?")).all()
