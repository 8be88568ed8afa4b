"""``cmo rules check``: the checks of `cmo_slo.checks` on files, and for our own whether they are fresh.

The edge of the checks: files are read and promtool is run here. Findings go to standard output, sorted, and
nothing else does; what was left out, and the count, go to standard error.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from cmo_slo.checks import CHECKS, Context, Finding, ReadFile, RuleDocument, Severity, read_rules, run_checks
from cmo_slo.checks.alertmanager_config import AlertmanagerConfigError, read_alertmanager
from cmo_slo.checks.context import (
    DEFAULT_BUDGET_SAMPLES_PER_MINUTE,
    FOREIGN_SEVERITIES,
    OWN_SEVERITIES,
    Alertmanager,
)
from cmo_slo.cli_links import link_options, links_given_as_flags, with_links
from cmo_slo.compile import DEFAULT_SCRAPE_INTERVAL, CompileError
from cmo_slo.durations import DAY, DurationError, duration, parse_duration
from cmo_slo.objectives import (
    ObjectivesError,
    find_objectives,
    load_objectives,
)
from cmo_slo.rulefile import (
    LARGEST_RULE_FILE_BYTES,
    GeneratedFile,
    promtool_complaint,
    render,
    shipped_files,
    shipped_rules_directory,
)
from cmo_slo.text_file import UnreadableFileError, read_text_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FORMAT_VERSION: Final = "cmo-rules-check/1"
SHIPPED_RETENTION: Final = 40 * DAY
"""What our own rules need: their longest window is 30 days, and Prometheus drops whole blocks."""

_EXIT_FOUND: Final = 1
_FRESH: Final = "fresh"
_BUILD: Final = "run `cmo rules build`"
_LINKS: Final = "--runbooks-url and --dashboards-url that it was built with"
_PROMTOOL: Final = "promtool"
_PROMTOOL_PLACE: Final = re.compile(r"(?:(\d+):\d+: )?(.*)")


class WrongInputError(click.ClickException):
    """Objectives, files or arguments are wrong; the message has one line a mistake."""

    exit_code = ObjectivesError.exit_status


def _duration(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """A duration of the command line as milliseconds."""
    if value is None:
        return None
    try:
        found = parse_duration(value)
    except DurationError as error:
        raise click.BadParameter(str(error), context, parameter) from error
    if not found:
        raise click.BadParameter(f"{value} is too short: expected one such as 15s", context, parameter)
    return found


@dataclass(frozen=True)
class _Checked:
    """What was found in how many files."""

    files: int
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """How many findings are of this severity."""
        return sum(finding.severity is severity for finding in self.findings)


@click.command(
    epilog="""\b
Examples:
  cmo rules check                                        what is shipped
  cmo rules check my-rules.yml other-rules.yml           any rule files, as loaded together
  cmo rules check rules.yml --retention 90d --runbooks docs/runbooks
  cmo rules check own.yml --objectives own-objectives.yml
                                                         and that it is what they compile to
"""
)
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--objectives", metavar="NAME_OR_FILE", help="Objectives that the one FILE must be compiled from."
)
@click.option(
    "--scrape-interval",
    metavar="DURATION",
    callback=_duration,
    help=f"How often targets are scraped.  [default: {DEFAULT_SCRAPE_INTERVAL}; of what is shipped, its own]",
)
@click.option(
    "--retention",
    metavar="DURATION",
    callback=_duration,
    help="How long Prometheus keeps samples.  [default: 15d, Prometheus' own; for what is shipped 40d]",
)
@click.option(
    "--time-to-page", metavar="DURATION", callback=_duration, help="Time that a page may take.  [default: 5m]"
)
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    default=DEFAULT_BUDGET_SAMPLES_PER_MINUTE,
    show_default=True,
    metavar="SAMPLES_PER_MINUTE",
    help="Samples that one group may read in a minute.",
)
@click.option(
    "--runbooks",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of runbooks, one ALERT.md each.",
)
@click.option(
    "--alertmanager-config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Alertmanager's configuration, for its inhibitions.",
)
@click.option(
    "--promtool",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="promtool to check the files with.  [default: the one on PATH, else one unpacked by `make setup`]",
)
@click.option(
    "--disable",
    "disabled",
    multiple=True,
    type=click.Choice([*CHECKS, _PROMTOOL]),
    help="A check to leave out; several times for several.",
)
@click.option("--strict", is_flag=True, help="Warnings count as well.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="One line a finding, or one JSON object.",
)
@link_options
@click.pass_context
def check(
    command: click.Context,
    files: tuple[Path, ...],
    objectives: str | None,
    scrape_interval: int | None,
    retention: int | None,
    time_to_page: int | None,
    budget: int,
    runbooks: Path | None,
    alertmanager_config: Path | None,
    promtool: Path | None,
    disabled: tuple[str, ...],
    strict: bool,  # noqa: FBT001 - click passes options by name
    output_format: str,
    runbooks_url: str | None,
    dashboards_url: str | None,
) -> None:
    """Check rule FILEs that one Prometheus loads together; without any, every shipped file.

    Files are Prometheus' own or PrometheusRule manifests, whoever wrote them. What each check finds, why it
    matters and how to mend it is in docs/rules-check.md. Exits 0 when nothing was found (warnings are printed
    and do not count without --strict), 1 when something was, 3 when arguments or objectives are wrong or a
    file cannot be read.
    """
    if objectives is not None and len(files) != 1:
        raise click.UsageError("--objectives needs the one FILE that was compiled from them.")
    if objectives is None and (given := links_given_as_flags(command)):
        raise click.UsageError(f"{' and '.join(given)}: name the --objectives that FILE was compiled from.")
    if scrape_interval is not None and not files:
        raise click.UsageError("--scrape-interval needs FILEs: what is shipped is for its own intervals.")
    around = _Surroundings(runbooks, alertmanager_config)
    around = around if files else around.or_shipped()
    context = Context(
        scrape_interval=scrape_interval or parse_duration(DEFAULT_SCRAPE_INTERVAL),
        retention=retention or (Context.retention if files else SHIPPED_RETENTION),
        time_to_page=time_to_page or Context.time_to_page,
        budget=budget,
        severities=FOREIGN_SEVERITIES if files else OWN_SEVERITIES,
        runbooks=around.runbook_names(),
        alertmanager=around.alertmanager(),
    )
    run = _Run(context, None if _PROMTOOL in disabled else promtool or _promtool_on_path(), disabled)
    compiled = None
    if objectives is not None:
        compiled = _compiled(
            objectives, context.scrape_interval, runbooks_url=runbooks_url, dashboards_url=dashboards_url
        )
    checked = run.on_given(tuple(dict.fromkeys(files)), compiled) if files else run.on_shipped()
    notes = [*around.notes()]
    if run.promtool is None and _PROMTOOL not in disabled:
        notes.append("no promtool was found, so the rules were not checked by it (--promtool FILE).")
    _print(checked, notes, output_format)
    if checked.count(Severity.ERROR) or (strict and checked.findings):
        command.exit(_EXIT_FOUND)


@dataclass(frozen=True)
class _Surroundings:
    """The runbooks and the Alertmanager configuration that rules are held against, where given."""

    runbooks: Path | None
    alertmanager_config: Path | None

    def runbook_names(self) -> frozenset[str] | None:
        """Names of the files in the folder of runbooks."""
        if self.runbooks is None:
            return None
        try:
            return frozenset(path.name for path in self.runbooks.iterdir() if path.suffix == ".md")
        except OSError as error:
            raise WrongInputError(
                f"{self.runbooks} cannot be read: {error.strerror}; check the path."
            ) from error

    def alertmanager(self) -> Alertmanager | None:
        """The inhibitions of the configuration."""
        if self.alertmanager_config is None:
            return None
        try:
            return read_alertmanager(_read(self.alertmanager_config), str(self.alertmanager_config))
        except AlertmanagerConfigError as error:
            raise WrongInputError(str(error)) from error

    def or_shipped(self) -> _Surroundings:
        """Where none is given, those of this project: in the tree, or in a wheel, which has no runbooks."""
        root = shipped_rules_directory().parents[1]
        folder = root / "docs/runbooks"
        places = (root / "alertmanager/alertmanager.yml", root / "cmo_stack/alertmanager/alertmanager.yml")
        return _Surroundings(
            self.runbooks or (folder if folder.is_dir() else None),
            self.alertmanager_config or next((path for path in places if path.is_file()), None),
        )

    def notes(self) -> Iterator[str]:
        """What was not looked at, and how it can be."""
        if self.runbooks is None:
            yield "runbooks were not looked up (--runbooks DIR)."
        if self.alertmanager_config is None:
            yield "inhibitions were not checked (--alertmanager-config FILE)."


@dataclass(frozen=True)
class _Run:
    """One run of the checks; ``promtool`` is ``None`` where it is not there, or not wanted."""

    context: Context
    promtool: Path | None
    disabled: tuple[str, ...]

    def on_given(self, files: Sequence[Path], compiled: str | None) -> _Checked:
        """Files that one Prometheus loads together; of one, whether it holds what was ``compiled``."""
        findings: list[Finding] = []
        if compiled is not None:
            generated = GeneratedFile(files[0], compiled)
            findings += _freshness(generated, _mend(generated, duration(self.context.scrape_interval)))
            if not files[0].exists():
                return _Checked(1, tuple(findings))
        documents: list[RuleDocument] = []
        for file in files:
            read, found = self._file(file)
            documents += read
            findings += found
        findings += run_checks(documents, self.context, self.disabled)
        return _Checked(len(files), _sorted(findings))

    def on_shipped(self) -> _Checked:
        """What this project ships: rule files one at a time, since each is for another scrape interval."""
        files = _shipped()
        findings: list[Finding] = []
        for file in files:
            findings += _freshness(file)
            if file.holds_rules and file.path.exists():
                documents, found = self._file(file.path)
                findings += found
                findings += run_checks(documents, _as_compiled(self.context, documents), self.disabled)
        return _Checked(len(files), _sorted(findings))

    def _file(self, file: Path) -> tuple[Sequence[RuleDocument], list[Finding]]:
        read = read_rules(_read(file), str(file))
        return read.documents, [*read.findings, *_promtool(self.promtool, file, read)]


def _as_compiled(context: Context, documents: Sequence[RuleDocument]) -> Context:
    """The context of compiled rules: what looks at raw samples is evaluated as often as they are scraped."""
    intervals = [group.interval for document in documents for group in document.groups if group.interval]
    return replace(context, scrape_interval=min(intervals, default=context.scrape_interval))


def _shipped() -> list[GeneratedFile]:
    try:
        return shipped_files()
    except (ObjectivesError, CompileError) as error:
        raise WrongInputError(str(error)) from error


def _compiled(
    name: str, scrape_interval: int, *, runbooks_url: str | None, dashboards_url: str | None
) -> str:
    try:
        objectives = with_links(load_objectives(find_objectives(name)), runbooks_url, dashboards_url)
        return render(objectives, duration(scrape_interval))
    except (ObjectivesError, CompileError) as error:
        raise WrongInputError(str(error)) from error


def _freshness(file: GeneratedFile, mend: str = _BUILD) -> Iterator[Finding]:
    if not file.path.exists():
        yield _of_file(file.path, _FRESH, "is missing", _BUILD)
    elif not file.fresh:
        yield _of_file(file.path, _FRESH, "is not what the objectives compile to", mend)


def _mend(file: GeneratedFile, scrape_interval: str) -> str:
    """How to mend a file that is stale; to build it for another interval would make it a wrong one."""
    said = file.compiled_for
    if said is None:
        return f"{_BUILD}, or give the --scrape-interval, {_LINKS}"
    if said != scrape_interval:
        return f"it was compiled for scrapes every {said}: give --scrape-interval {said}"
    interval = "" if said == DEFAULT_SCRAPE_INTERVAL else f" --scrape-interval {said}"
    return f"run `cmo rules build{interval}`, or give the {_LINKS}"


def _promtool(promtool: Path | None, file: Path, read: ReadFile) -> Iterator[Finding]:
    if promtool is None or not all(document.native for document in read.documents):
        return  # promtool reads no manifests
    told = {finding.line for finding in read.findings if finding.severity is Severity.ERROR}
    for line, wrong in _complaints(promtool_complaint(promtool, file) or "", file):
        if line not in told:  # what is told already is not told twice
            yield _of_file(
                file, _PROMTOOL, wrong, "correct it, or Prometheus refuses the file", line=line or 1
            )


def _complaints(said: str, file: Path) -> Iterator[tuple[int | None, str]]:
    """What promtool says, one by one, each with its line where it names one."""
    rest = []
    for each in said.splitlines():
        if each.startswith(f"{file}: "):
            line, wrong = _PROMTOOL_PLACE.findall(each.removeprefix(f"{file}: "))[0]
            yield int(line) if line else None, wrong
        else:
            rest.append(each)
    if wrong := " ".join(" ".join(rest).replace("FAILED:", "").split()):
        yield None, wrong


def _of_file(file: Path, name: str, wrong: str, mend: str, *, line: int = 1) -> Finding:
    return Finding(str(file), line, "", "", name, Severity.ERROR, wrong, mend)


def _sorted(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(dict.fromkeys(findings), key=lambda finding: finding.place))


def _print(checked: _Checked, notes: Sequence[str], output_format: str) -> None:
    if output_format == "json":
        click.echo(json.dumps(_document(checked, notes), indent=2, ensure_ascii=False))
    else:
        for finding in checked.findings:
            click.echo(str(finding))
    for note in notes:
        click.echo(note, err=True)
    errors, warnings = checked.count(Severity.ERROR), checked.count(Severity.WARNING)
    if checked.findings:
        click.echo(f"{_number(errors, 'error')} and {_number(warnings, 'warning')} found.", err=True)
    else:
        click.echo(f"{_number(checked.files, 'file')} checked, nothing found.", err=True)


def _document(checked: _Checked, notes: Sequence[str]) -> dict[str, Any]:
    return {
        "version": FORMAT_VERSION,
        "files": checked.files,
        "errors": checked.count(Severity.ERROR),
        "warnings": checked.count(Severity.WARNING),
        "findings": [asdict(finding) for finding in checked.findings],
        "notes": list(notes),
    }


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _read(file: Path) -> str:
    try:
        return read_text_file(file, LARGEST_RULE_FILE_BYTES)
    except FileNotFoundError as error:
        raise WrongInputError(f"{file} cannot be read: {error.strerror}; check the path.") from error
    except UnreadableFileError as error:
        raise WrongInputError(f"{file} {error}.") from error


def _promtool_on_path() -> Path | None:
    found = shutil.which("promtool")
    return Path(found) if found else None
