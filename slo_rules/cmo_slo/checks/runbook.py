"""Runbooks that alerts name and that are not there: found out at 3 in the morning otherwise."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from cmo_slo.checks.context import needs_action
from cmo_slo.checks.finding import Reporter, rules_in
from cmo_slo.checks.policy import RUNBOOK_ANNOTATIONS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from cmo_slo.checks.context import Context
    from cmo_slo.checks.finding import Finding
    from cmo_slo.checks.rules import RuleDocument

_REPORT: Final = Reporter("runbook")
_SUFFIX: Final = ".md"
_CLOSE: Final = 0.9
"""How alike names are of which one may be a slip of the other. Another prefix leaves them alike to 0.88."""


def check(documents: Sequence[RuleDocument], context: Context) -> Iterator[Finding]:
    """Every alert that somebody has to act on; nothing without a folder of runbooks to compare with."""
    if not context.runbooks:
        return
    there = {name.lower() for name in context.runbooks}
    for place, _, rule in rules_in(documents):
        if rule.alert is None or not needs_action(rule):
            continue
        link = next(
            (rule.annotations[name] for name in RUNBOOK_ANNOTATIONS if rule.annotations.get(name)), ""
        )
        if not link or "{{" in link:
            continue  # `policy` says that there is none; a template is known when it fires
        name = _file_name(link, rule.alert)
        # Addresses are often written in small letters, as kube-prometheus has them.
        if name.lower() not in there:
            yield _REPORT.error(
                place, _wrong(link), f"expected {name} among the runbooks; {_mend(name, context.runbooks)}"
            )


def _wrong(link: str) -> str:
    if "://" in link:
        return f"its runbook {link!r} is none of the given ones, and the address is not fetched"
    return f"its runbook {link!r} does not exist"


def _mend(name: str, runbooks: Collection[str]) -> str:
    by_stem = {one.removesuffix(_SUFFIX): one for one in sorted(runbooks)}
    near = difflib.get_close_matches(name.removesuffix(_SUFFIX), by_stem, n=1, cutoff=_CLOSE)
    return f"did you mean {by_stem[near[0]]}?" if near else "write it, or correct the link"


def _file_name(link: str, alert: str) -> str:
    """The file that a path or an address means; a link without a last part means the alert's own."""
    try:
        path = urlsplit(link).path
    except ValueError:
        path = link
    last = unquote(path).rstrip("/").rpartition("/")[2] or alert
    return last if last.endswith(_SUFFIX) else f"{last.removesuffix('.html')}{_SUFFIX}"
