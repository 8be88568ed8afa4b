"""How much memory a service takes more with the exporter than without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cmo_bench.exporter import variants
from cmo_bench.exporter.figures import Rounds, Spread
from cmo_bench.exporter.laboratory import turns
from cmo_bench.exporter.report import Section, Target, Verdict, table

if TYPE_CHECKING:
    from cmo_bench.exporter.laboratory import Laboratory

_LIMIT_MEGABYTES: Final = 20
_MEGABYTE: Final = 1e6
_KINDS: Final = ("rss", "pss")
_NAMES: Final = (variants.BARE, variants.OURS, variants.INSTRUMENTATOR)


def memory(laboratory: Laboratory) -> Section:
    """Start fresh processes in turns, let them serve, and read their memory."""
    effort = laboratory.effort
    read: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in _NAMES} for kind in _KINDS}
    for turn in turns(_NAMES, effort.processes, "memory"):
        for name in turn:
            with laboratory.subject(name) as subject:
                subject.ask("requests", effort.warm_up)
                sizes = subject.ask("memory")
                subject.ask("close")
            for kind in _KINDS:
                read[kind][name].append(sizes[kind] / _MEGABYTE)
    rounds = {kind: Rounds(read[kind], variants.BARE) for kind in _KINDS}
    rows = [
        (
            variants.TITLES[name],
            *(str(rounds[kind].spread(name)) for kind in _KINDS),
            *(str(Spread.of(rounds[kind].added(name))) for kind in _KINDS),
        )
        for name in _NAMES
    ]
    found = max(Spread.of(rounds[kind].added(variants.OURS)).median for kind in _KINDS)
    verdict = Verdict.HOLDS if found < _LIMIT_MEGABYTES else Verdict.FAILED
    promise = f"Under {_LIMIT_MEGABYTES} MB of memory, imports included, traces off"
    return Section(
        "Memory",
        f"Fresh processes that have served {effort.warm_up} requests: resident and proportional memory in MB "
        "of 10⁶ bytes, and what of it the instrumentation adds.",
        table(("variant", "RSS", "PSS", "RSS added", "PSS added"), rows),
        (Target(promise, f"{found:.1f} MB", verdict),),
    )
