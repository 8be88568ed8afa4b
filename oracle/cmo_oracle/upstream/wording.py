"""Words and vectors: the stub's whole understanding of language.

A text becomes a bag of stemmed words without stop words, and the bag a vector by hashing each word to a
few coordinates with signs. Texts that share rare words point the same way, which is all that retrieval by
cosine needs; two texts without a common word are nearly orthogonal.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

DIMENSION: Final = 1024
"""Length of an embedding."""

_COORDINATES_PER_WORD: Final = 4
_WORD: Final = re.compile(r"[a-z0-9]+(?:[-'][a-z0-9]+)*")
_MINIMUM_STEM: Final = 4
_SUFFIXES: Final = (
    "aemias", "aemia", "emias", "emia", "urias", "uria", "ations", "ation", "ating", "ated", "ates", "ate",
    "ings", "ing", "ies", "ied", "es", "ed", "s", "y", "e",
)  # fmt: skip

STOP_WORDS: Final = frozenset(
    """a about above after again against all also although am an and any are as ask at be because been before
    being below between both but by can cannot could did do does doing down during each few for from further
    give had has have having he her here him his how i if in into is it its itself just let like list many may
    me mean means might more most much must my no nor not now of off on once one only or other ought our out
    over own please rather s same say says shall she should so some such t tell than that the their them then
    there these they this those through to too two under until up upon us use used uses using very was we were
    what when where whether which while who whom why will with within without would you your yes near
    change changes changing explain describe discuss compare happen happens matter matters role difference
    different important know known
    patient patients people disease disorder level levels value values concentration concentrations raise
    raised raises rise rises high higher low lower lowers measure measured measurement measures test tests
    show shows shown clinical""".split()  # noqa: SIM905 - a paragraph reads better than two hundred strings
)


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """Cut the commonest endings, so that ``ceramides`` meets ``ceramide`` and ``acidaemia`` its plural."""
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= _MINIMUM_STEM:
            return word.removesuffix(suffix)
    return word


@lru_cache(maxsize=4_096)
def content_words(text: str) -> tuple[str, ...]:
    """The words of a text that carry meaning, stemmed, in order, hyphenated words also by their parts."""
    words: list[str] = []
    for match in _WORD.finditer(text.lower()):
        whole = match.group()
        parts = [part for part in re.split(r"[-']", whole) if len(part) > 1] if "-" in whole else []
        words.extend(stem(word) for word in (whole, *parts) if word not in STOP_WORDS and len(word) > 1)
    return tuple(words)


@lru_cache(maxsize=4_096)
def embed(text: str) -> npt.NDArray[np.float32]:
    """The unit vector of a text (length ``DIMENSION``); a text without any content word gets a fixed one."""
    vector = np.zeros(DIMENSION, dtype=np.float32)
    for word in content_words(text) or ("\0nothing",):
        coordinates, signs = _coordinates(word)
        vector[coordinates] += signs
    vector /= np.linalg.norm(vector)
    vector.flags.writeable = False
    return vector


@lru_cache(maxsize=20_000)
def _coordinates(word: str) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    digest = hashlib.blake2b(word.encode(), digest_size=4 * _COORDINATES_PER_WORD).digest()
    numbers = np.frombuffer(digest, dtype="<u4")
    # Coordinates come from disjoint quarters, so a word never cancels itself.
    quarter = DIMENSION // _COORDINATES_PER_WORD
    coordinates = (numbers % quarter).astype(np.intp) + quarter * np.arange(_COORDINATES_PER_WORD)
    return coordinates, np.where(numbers & 0x80000000, 1.0, -1.0).astype(np.float32)
