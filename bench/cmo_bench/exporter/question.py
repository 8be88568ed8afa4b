"""What is asked, by whoever asks."""

from __future__ import annotations

from typing import Final

QUERY_PATH: Final = "/query"
QUESTION: Final = b'{"question":"Which metabolites rise in ketosis?"}'
