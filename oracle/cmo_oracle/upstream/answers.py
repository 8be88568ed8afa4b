"""What the stub answers: it recognises LightRAG's prompts and works each out from the text it is given.

Three prompts are LightRAG's own and have a fixed form: extract entities, summarise descriptions, extract
keywords. Any other prompt is a question, answered with the sentences of the supplied context that share
most with it; a question without context is answered from the corpus, which is all that this "web" holds.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from cmo_oracle.corpus import load_corpus
from cmo_oracle.upstream.glossary import Term, terms_in
from cmo_oracle.upstream.wording import STOP_WORDS, content_words

EXTRACTION_VERSION: Final = "1"
"""Change it whenever extraction, keywords or embeddings change: kept indexes are keyed by it."""

NO_ANSWER: Final = "The provided context does not contain enough information to answer this question."

Kind = Literal["extraction", "summary", "keywords", "question"]

_FIELD: Final = "<|#|>"
_END: Final = "<|COMPLETE|>"
_MAX_ENTITIES: Final = 30
_MAX_RELATIONS: Final = 60
_ANSWER_SENTENCES: Final = 4
_WEB_PASSAGES: Final = 2
_WORTH_SAYING: Final = 0.4
_INPUT_TEXT: Final = re.compile(r"---Input Text---\s*```\n(.*?)\n```", re.DOTALL)
_QUERY: Final = re.compile(r"---Real Data---\s*User Query: (.*?)\s*---Output---", re.DOTALL)
_DESCRIPTIONS: Final = re.compile(r"Description List:\s*```\n(.*?)\n```", re.DOTALL)
_CHUNK_BLOCK: Final = re.compile(r"Document Chunks [^\n]*\n\s*```json\n(.*?)\n```", re.DOTALL)
_REFERENCE: Final = re.compile(r"^\[(\d+)\] (.+)$", re.MULTILINE)
_SENTENCE_END: Final = re.compile(r"(?<=[.;?!])\s+(?=[A-Z0-9(])")


@dataclass(frozen=True)
class Prompt:
    """A request's messages, told apart: the kind, the question or text, and what surrounds it."""

    kind: Kind
    user: str
    system: str


def read_prompt(messages: list[dict[str, str]]) -> Prompt:
    """Say which prompt it is. The last user message counts as the question, all else as context."""
    user = next((str(m.get("content", "")) for m in reversed(messages) if m.get("role") == "user"), "")
    system = "\n".join(str(m.get("content", "")) for m in messages if m.get("role") == "system")
    kind: Kind = "question"
    if "---Input Text---" in user:
        kind = "extraction"
    elif "---Real Data---" in user:
        kind = "keywords"
    elif "Description List:" in user:
        kind = "summary"
    return Prompt(kind, user, system)


def answer(prompt: Prompt) -> str:
    """The complete answer to a prompt, always the same for the same prompt."""
    if prompt.kind == "extraction":
        return extract(_first(_INPUT_TEXT, prompt.user))
    if prompt.kind == "keywords":
        return json.dumps(keywords(_first(_QUERY, prompt.user)))
    if prompt.kind == "summary":
        return summarise(_first(_DESCRIPTIONS, prompt.user))
    return respond(prompt.user, prompt.system)


def extract(text: str) -> str:
    """Entities and relations of a passage in LightRAG's line format.

    Every sentence joins the first entity that it names with the others that it names; the first sentence
    is the title, so its first entity, the subject of the passage, is joined with all.
    """
    sentences = split_sentences(text)
    described: dict[Term, str] = {}
    relations: dict[tuple[str, str], str] = {}
    subject = next(iter(terms_in(text)), None)
    for sentence in sentences:
        terms = terms_in(sentence)
        for term in terms:
            described.setdefault(term, sentence)
        hub = terms[0] if terms else None
        for source, target in [(hub, term) for term in terms[1:]] + [(subject, term) for term in terms]:
            if source and source != target:
                relations.setdefault(_edge(source, target), sentence)
    entities = dict(list(described.items())[:_MAX_ENTITIES])
    names = {term.name for term in entities}
    lines = [_row("entity", term.name, term.kind, text_) for term, text_ in entities.items()]
    edges = [(edge, why) for edge, why in relations.items() if names.issuperset(edge)][:_MAX_RELATIONS]
    lines += [_row("relation", *edge, _relation_keywords(why, edge), why) for edge, why in edges]
    return "\n".join([*lines, _END])


def keywords(question: str) -> dict[str, list[str]]:
    """High-level keywords (phrases of the question) and low-level ones (entities and single words)."""
    words = re.findall(r"[A-Za-z0-9][\w,'-]*[A-Za-z0-9]|[A-Za-z0-9]", question)
    phrases: list[list[str]] = [[]]
    for word in words:
        if word.lower() in STOP_WORDS:
            phrases.append([])
        else:
            phrases[-1].append(word)
    high = [" ".join(phrase) for phrase in phrases if phrase]
    named = [term.name for term in terms_in(question)]
    single = [word for phrase in phrases for word in phrase if len(word) > 2]
    return {"high_level_keywords": _unique(high + named), "low_level_keywords": _unique(named + single)}


def summarise(descriptions: str) -> str:
    """One description out of many: the first sentences of each, in order, without repetition."""
    texts = []
    for line in descriptions.splitlines():
        try:
            texts.append(str(json.loads(line)["Description"]))
        except (ValueError, KeyError, TypeError):
            texts.append(line)
    return " ".join(_unique([split_sentences(text)[0] for text in texts if text.strip()])[:12])


def respond(question: str, context: str) -> str:
    """Answer a question with the sentences of the context nearest to it, and cite where they are from."""
    passages = _context_passages(context) if "---Context---" in context else _web_passages(question)
    wanted = set(content_words(question))
    scored = _score(wanted, passages)
    if not scored:
        return NO_ANSWER
    ranked = sorted(scored, key=lambda item: (-item[0], item[1]))[:_ANSWER_SENTENCES]
    best = [item for item in ranked if item[0] >= _WORTH_SAYING * ranked[0][0]]
    best.sort(key=lambda item: item[1])
    body = " ".join(sentence for _, _, sentence, _ in best)
    cited = _unique([reference for *_, reference in best])
    titles = dict(_REFERENCE.findall(context))
    references = "\n".join(f"- [{number}] {titles.get(number, 'source')}" for number in cited)
    return f"{body}\n\n### References\n\n{references}"


def split_sentences(text: str) -> tuple[str, ...]:
    """The sentences of a text, stripped; a semicolon before a capital ends one too."""
    return _split(text)


@lru_cache(maxsize=2_048)
def _split(text: str) -> tuple[str, ...]:
    flat = " ".join(text.split())
    return tuple(part.strip() for part in _SENTENCE_END.split(flat) if part.strip()) or ("",)


def _score(
    wanted: set[str], passages: list[tuple[str, str]]
) -> list[tuple[float, tuple[int, int], str, str]]:
    sentences = [
        ((number, position), sentence, reference, frozenset(content_words(sentence)))
        for number, (reference, text) in enumerate(passages)
        for position, sentence in enumerate(split_sentences(text))
    ]
    spread = Counter(word for *_, words in sentences for word in words & wanted)
    weight = {word: math.log(1 + len(sentences) / count) for word, count in spread.items()}
    scored = []
    for place, sentence, reference, words in sentences:
        score = sum(weight[word] for word in words & wanted)
        if score > 0:
            # Passages come best first; among equal sentences the better passage's one is taken.
            scored.append((score / (1 + 0.15 * place[0]), place, sentence, reference))
    return scored


def _context_passages(context: str) -> list[tuple[str, str]]:
    block = _first(_CHUNK_BLOCK, context)
    passages = []
    for line in block.splitlines():
        try:
            entry = json.loads(line)
            passages.append((str(entry.get("reference_id", "")), str(entry["content"])))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return passages


def _web_passages(question: str) -> list[tuple[str, str]]:
    wanted = set(content_words(question))
    ranked = sorted(
        ((len(wanted & words), -number, text) for number, (text, words) in enumerate(_web())), reverse=True
    )
    return [(str(place), text) for place, (shared, _, text) in enumerate(ranked[:_WEB_PASSAGES], 1) if shared]


@lru_cache(maxsize=1)
def _web() -> tuple[tuple[str, frozenset[str]], ...]:
    return tuple((passage.text, frozenset(content_words(passage.text))) for passage in load_corpus())


def _edge(source: Term, target: Term) -> tuple[str, str]:
    first, second = sorted((source.name, target.name))
    return first, second


def _relation_keywords(sentence: str, edge: tuple[str, str]) -> str:
    names = {word for name in edge for word in re.findall(r"\w+", name.lower())}
    words = [
        word for word in re.findall(r"[a-z][a-z-]{4,}", sentence.lower()) if word not in STOP_WORDS | names
    ]
    return ", ".join(_unique([*words])[:6]) or "association"


def _row(*fields: str) -> str:
    return _FIELD.join(field.replace("\n", " ") for field in fields)


def _first(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match.group(1) if match else ""


def _unique(items: list[str]) -> list[str]:
    return list(dict.fromkeys(items))
