"""What Prometheus fills in in the texts of alerts: Go templates, read as far as that needs no Go."""

from __future__ import annotations

import re
from typing import Final

_QUOTED: Final = r"\"(?:\\.|[^\"\\\n])*\"|`[^`]*`|/\*.*?\*/"
# One that is not closed as well: it is a mistake by itself, and what stands in it is no word of the text.
ACTION: Final = re.compile(rf"\{{\{{(?:{_QUOTED}|[^{{}}\"`])*\}}\}}|\{{\{{[^{{}}]*\}}{{0,2}}", re.DOTALL)
"""What stands in double braces, as a pattern."""

_LABEL: Final = re.compile(r"\$labels\.(\w+)")
_VARIABLE: Final = re.compile(r"\$(\w+)")
_DECLARED: Final = re.compile(r"\$(\w+)\s*(?:,\s*\$(\w+)\s*)?:=")

VARIABLES: Final = ("labels", "value", "externalLabels", "externalURL")
"""The variables that Prometheus gives every template."""


def actions(text: str) -> list[str]:
    """What stands in double braces, without its strings and comments."""
    return [re.sub(_QUOTED, '""', found, flags=re.DOTALL) for found in ACTION.findall(text)]


def labels_read(action: str) -> list[str]:
    """The labels of the alert's series that an action reads, in their order."""
    return _LABEL.findall(action)


def undefined_variables(text: str) -> list[str]:
    """Variables that neither Prometheus nor the text itself defines, each once."""
    found = actions(text)
    declared = {name for action in found for names in _DECLARED.findall(action) for name in names}
    read = [name for action in found for name in _VARIABLE.findall(action)]
    return [name for name in dict.fromkeys(read) if name not in declared and name not in VARIABLES]
