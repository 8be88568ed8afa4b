"""What users ask: questions on the topics of the reference corpus, and how often each comes up.

A scenario asks each question of its share at least once, and repeats them by a Zipf-like popularity, so the
number of distinct questions, and with it the best hit rate that a cold cache can reach, is exact instead of
drawn. Popularity is seeded: another seed shares the questions out anew and makes others popular.
"""

from __future__ import annotations

import random
from importlib import resources
from typing import TYPE_CHECKING, Any

import yaml

from cmo_loadtest.scenarios import SCENARIOS, SHARED_QUESTIONS

if TYPE_CHECKING:
    from cmo_loadtest.scenarios import Scenario

_POOL_FILE = "questions.yml"


def pool() -> tuple[str, ...]:
    """Every question there is, each once, in the order of the pool file.

    Raises:
        ValueError: the pool file lacks something, or asks a question twice.
    """
    content: dict[str, Any] = yaml.safe_load(
        resources.files("cmo_loadtest").joinpath(_POOL_FILE).read_text(encoding="utf-8")
    )
    questions: list[str] = []
    for topic in content["topics"]:
        questions += (phrasing.format(subject=topic["subject"]) for phrasing in content["phrasings"])
        questions += topic["questions"]
    if len(set(questions)) != len(questions):
        doubled = sorted({question for question in questions if questions.count(question) > 1})
        raise ValueError(f"{_POOL_FILE}: asked twice: {'; '.join(doubled)}")
    return tuple(questions)


def share(scenario: Scenario, seed: int) -> tuple[str, ...]:
    """The questions of one scenario: the shared ones, then those that only it asks, most popular first.

    Raises:
        ValueError: the pool is too small, or the scenario is none of the known ones.
    """
    if scenario.name not in SCENARIOS:
        raise ValueError(f"{scenario.name}: unknown scenario; there are {', '.join(SCENARIOS)}")
    shuffled = list(pool())
    random.Random(f"pool {seed}").shuffle(shuffled)  # noqa: S311 - a seeded order, no secret
    first = SHARED_QUESTIONS
    for name, known in SCENARIOS.items():
        if name == scenario.name:
            break
        first += known.own_questions
    own = shuffled[first : first + scenario.own_questions]
    if len(own) < scenario.own_questions:
        raise ValueError(f"{_POOL_FILE}: {len(shuffled)} questions are too few for all scenarios")
    chosen = [*shuffled[:SHARED_QUESTIONS], *own]
    random.Random(f"popularity {scenario.name} {seed}").shuffle(chosen)  # noqa: S311 - as above
    return tuple(chosen)


def asked(scenario: Scenario, seed: int) -> tuple[str, ...]:
    """The question of each operation of the scenario, in the order in which operations are due."""
    questions = share(scenario, seed)
    draw = random.Random(f"asked {scenario.name} {seed}")  # noqa: S311 - as above
    popularity = [1.0 / rank**scenario.popularity_exponent for rank in range(1, len(questions) + 1)]
    repeats = draw.choices(questions, popularity, k=scenario.operations - len(questions))
    order = [*questions, *repeats]
    draw.shuffle(order)
    return tuple(order)
