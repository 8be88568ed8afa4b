"""The passages that the reference service answers from.

About thirty short texts on clinical metabolomics, one Markdown file each: a title, then a paragraph. They
were written for this project so that a load test has something real to retrieve; they teach the engine,
not clinicians.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PACKAGE_DIRECTORY: Final = Path(__file__).resolve().parent


class CorpusError(Exception):
    """The corpus cannot be read; the message says which file, and what was expected."""


@dataclass(frozen=True)
class Passage:
    """One text. ``name`` is its file's name without the suffix, and how tests and citations call it."""

    name: str
    title: str
    body: str

    @property
    def text(self) -> str:
        """What is indexed: the title as the first sentence, then the body in one line."""
        return f"{self.title}. {self.body}"


def corpus_directory() -> Path:
    """The folder of the shipped passages: inside the package in a wheel, beside it in a checkout."""
    in_wheel = _PACKAGE_DIRECTORY / "corpus"
    return in_wheel if in_wheel.is_dir() else _PACKAGE_DIRECTORY.parent / "corpus"


def load_corpus(directory: Path | None = None) -> tuple[Passage, ...]:
    """Read every passage, in the order of their names.

    Raises:
        CorpusError: there is no passage, or a file is not a title and a paragraph.
    """
    folder = directory or corpus_directory()
    passages = tuple(_read(path) for path in sorted(folder.glob("*.md")))
    if not passages:
        raise CorpusError(f"{folder}: no passage found; expected Markdown files (*.md). Check the path.")
    return passages


def corpus_fingerprint(passages: tuple[Passage, ...]) -> str:
    """SHA-256 over names and texts: equal for equal corpora, different for any change of a letter."""
    digest = hashlib.sha256()
    for passage in passages:
        digest.update(f"{passage.name}\0{passage.text}\0".encode())
    return digest.hexdigest()


def _read(path: Path) -> Passage:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: cannot be read as UTF-8 text ({type(error).__name__}).") from error
    heading, _, rest = text.partition("\n")
    body = " ".join(rest.split())
    if not heading.startswith("# ") or not body:
        raise CorpusError(f"{path}: expected a first line '# Title' and a paragraph after it.")
    return Passage(path.stem, heading.removeprefix("# ").strip(), body)
