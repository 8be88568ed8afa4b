"""The series that this project's compiled rules record, with their fixed labels, read from the rule files."""

from __future__ import annotations

from pathlib import Path

import cmo_slo.model
import yaml


def rules_directory() -> Path:
    """The folder of compiled rules: in a wheel inside the package of the objectives, else beside it."""
    package = Path(cmo_slo.model.__file__).resolve().parent
    inside = package / "rules"
    return inside if inside.is_dir() else package.parent / "rules"


def recorded_series(directory: Path | None = None) -> dict[str, dict[str, tuple[str, ...]]]:
    """Names of recorded series, with the labels that their rules set and the values that they set them to."""
    recorded: dict[str, dict[str, tuple[str, ...]]] = {}
    for path in sorted((directory or rules_directory()).glob("*.yml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        for group in document.get("groups", []):
            for rule in group.get("rules", []):
                if "record" in rule:
                    labels = recorded.setdefault(rule["record"], {})
                    for label, value in (rule.get("labels") or {}).items():
                        labels[label] = tuple(sorted({*labels.get(label, ()), value}))
    return recorded
