"""``python -m cmo_stack.vmalert_rules``: the compiled rules, in groups as vmalert has to evaluate them.

Prometheus' rules see at once what the rules before them have recorded. vmalert writes results to a database
that shows them seconds later, so a rule sees what the one before it said an evaluation ago. For most that is
a delay; but a difference between a copy of a counter and the copy before it would always be 0, for it
would see the same copy twice. So here the rules are those of Prometheus, word for word, and only their groups
differ: each step of the chain is a group of its own, evaluated for the same moments as the step before it, so
much later that the results of that step are there (``eval_delay``). A page is later by as much.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml
from cmo_slo import rulefile
from cmo_slo.objectives import ObjectivesError, find_objectives, load_objectives

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Rule = Mapping[str, Any]

ARRIVAL_SECONDS: Final = 5
"""How late a sample may arrive: a second in the queue of Prometheus' remote write, the rest for its way."""

VISIBLE_SECONDS: Final = 4
"""How long until a result can be read: half a second in vmalert, a second or two in VictoriaMetrics."""

_HEAD: Final = """\
# Made of {name} by `python -m cmo_stack.vmalert_rules`, for vmalert: the same rules, in groups that are
# evaluated one after the other (docs/compose.md says why). Change the objectives, and make it again.
"""


_ALERTS_SELECTOR: Final = re.compile(r"\bALERTS\{[^}]*\}")


def depths(rules: Sequence[Rule]) -> list[int]:
    """For each rule, how many rules one after the other it needs the results of.

    An alert that asks whether others fire (``ALERTS``) needs those of them that stand before it. Those
    after it have not been evaluated yet for the same moment, in Prometheus either.
    """
    recorded_depths = _recorded_depths(rules)
    of_alerts: dict[str, int] = {}
    found = []
    for rule, depth in zip(rules, recorded_depths, strict=True):
        asked = "".join(_ALERTS_SELECTOR.findall(str(rule["expr"])))
        before = [of_alerts[name] for name in _any_of(of_alerts).findall(asked)] if of_alerts else []
        found.append(max([depth, *(1 + other for other in before)]))
        if "alert" in rule:
            of_alerts[rule["alert"]] = found[-1]
    return found


def _recorded_depths(rules: Sequence[Rule]) -> list[int]:
    """How many recording rules one after the other each rule needs the results of."""
    recorded: dict[str, list[Rule]] = {}
    for rule in rules:
        if "record" in rule:
            recorded.setdefault(rule["record"], []).append(rule)
    names = _any_of(recorded)
    known: dict[str, int] = {}

    def depth_of_series(name: str, under_way: frozenset[str]) -> int:
        if name not in known:
            inner = under_way | {name}
            known[name] = max(depth_of_rule(rule, inner) for rule in recorded[name])
        return known[name]

    def depth_of_rule(rule: Rule, under_way: frozenset[str]) -> int:
        needed = set(names.findall(str(rule["expr"]))) - under_way
        return max((1 + depth_of_series(name, under_way) for name in needed), default=0)

    return [depth_of_rule(rule, frozenset({rule["record"]} if "record" in rule else ())) for rule in rules]


def regrouped(document: Mapping[str, Any], scrape_interval_seconds: int) -> dict[str, Any]:
    """The same rules in the same order, in groups by depth.

    Groups that are evaluated at every scrape are taken apart. The others sum up what those have recorded over
    minutes and hours, so they wait for the last that records; what is chained in them may be a minute old.
    """
    step = scrape_interval_seconds + VISIBLE_SECONDS
    every_scrape = f"{scrape_interval_seconds}s"
    every_rule = [rule for group in document["groups"] for rule in group["rules"]]
    depth_of = dict(zip(map(id, every_rule), depths(every_rule), strict=True))
    recorded_at_every_scrape = [
        depth_of[id(rule)]
        for group in document["groups"]
        if group["interval"] == every_scrape
        for rule in group["rules"]
        if "record" in rule
    ]
    steps_to_all_recorded = max(recorded_at_every_scrape, default=-1) + 1
    groups = []
    for group in document["groups"]:
        if group["interval"] != every_scrape:
            groups.append({**group, "eval_delay": f"{ARRIVAL_SECONDS + steps_to_all_recorded * step}s"})
            continue
        of_group = {depth_of[id(rule)] for rule in group["rules"]}
        groups += [
            {
                "name": f"{group['name']}-{depth}",
                "interval": group["interval"],
                "eval_delay": f"{ARRIVAL_SECONDS + depth * step}s",
                "rules": [rule for rule in group["rules"] if depth_of[id(rule)] == depth],
            }
            for depth in sorted(of_group)
        ]
    return {"groups": [_rules_last(group) for group in groups]}


def render(objectives_name: str, scrape_interval_seconds: int) -> str:
    """The rule file for vmalert, as text.

    Raises:
        ObjectivesError: the objectives cannot be used.
    """
    objectives = load_objectives(find_objectives(objectives_name))
    interval = f"{scrape_interval_seconds}s"
    document = yaml.safe_load(rulefile.render(objectives, interval))
    name = rulefile.rule_file_name(objectives, interval)
    groups = regrouped(document, scrape_interval_seconds)
    text = yaml.dump(groups, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)
    return _HEAD.format(name=name) + text


class _Dumper(yaml.SafeDumper):
    """Writes expressions as people write them, several lines as a block."""

    def ignore_aliases(self, data: object) -> bool:
        """Write what stands twice twice."""
        del data
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def _rules_last(group: Mapping[str, Any]) -> dict[str, Any]:
    return {**{key: content for key, content in group.items() if key != "rules"}, "rules": group["rules"]}


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile(rf"(?<![\w:])(?:{'|'.join(map(re.escape, longest_first))})(?![\w:])")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the rules; 0, or 3 when the objectives cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m cmo_stack.vmalert_rules", description="Compile objectives into rules for vmalert."
    )
    parser.add_argument("objectives", help="a file, or the name of objectives that come with this project")
    parser.add_argument(
        "--scrape-interval",
        type=int,
        default=15,
        metavar="SECONDS",
        help="how often Prometheus scrapes; 5 or more (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    options = parser.parse_args(arguments)
    if options.scrape_interval < VISIBLE_SECONDS + 1:
        parser.error(f"--scrape-interval: at least {VISIBLE_SECONDS + 1}, or results are not there in time")
    try:
        options.output.write_text(render(options.objectives, options.scrape_interval), encoding="utf-8")
    except (ObjectivesError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
