"""The command ``cmo check``: a verdict on a run, for a release manager or a pipeline.

Only the result goes to standard output; progress and errors go to standard error. Exit statuses are those of
`cmo_slo.exit_status`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import tempfile
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, cast

import click

from cmo_slo.exit_status import ExitStatus, status_of_outcome
from cmo_slo.fetch import Fetcher, Source
from cmo_slo.judge import judge
from cmo_slo.manifest import MANIFEST_NAME, load_manifest
from cmo_slo.objectives import ObjectivesError, find_objectives, load_objectives, objectives_hash
from cmo_slo.prometheus import Credentials, Prometheus, split_address
from cmo_slo.report import Report, as_json, as_text
from cmo_slo.verdict import Options

if TYPE_CHECKING:
    from cmo_slo.manifest import Run
    from cmo_slo.model import Objectives

_DISTRIBUTION: Final = "cmo-observability"
_FORMATS: Final = ("text", "json")


@dataclass(frozen=True)
class Output:
    """One form of the report, and the file it goes to; none is standard output."""

    form: Literal["text", "json"]
    file: Path | None = None


@dataclass(frozen=True)
class CheckRequest:
    """Everything that one check is asked to do."""

    prometheus_url: str
    objectives: str
    manifest: Path
    selector: str
    scenarios: tuple[str, ...] = ()
    options: Options = field(default_factory=Options)
    outputs: tuple[Output, ...] = (Output("text"),)
    wait_seconds: float | None = None
    quiet: bool = False


def run_check(request: CheckRequest) -> ExitStatus:
    """Judge a run and write the report; whatever goes wrong, no report of an earlier check is left.

    Raises:
        ObjectivesError: the objectives cannot be used.
        ManifestError: the manifest cannot be used.
        DataSourceError: Prometheus could not be read.
        click.UsageError: the request contradicts the objectives.
        click.FileError: a report could not be written, or the one before not removed.
    """
    _require_inputs_kept(request)
    modes = [_remove_older(output) for output in request.outputs]
    objectives = load_objectives(find_objectives(request.objectives))
    run = load_manifest(request.manifest)
    _require_known(request.scenarios, objectives)
    report = _judged(request, objectives, run)
    for output, mode in zip(request.outputs, modes, strict=True):
        _write(report, output, mode)
    return status_of_outcome(report.verdict.outcome)


def _judged(request: CheckRequest, objectives: Objectives, run: Run) -> Report:
    names = request.scenarios or objectives.scenarios
    scenarios = [one for one in run.scenarios if one.name in names]
    if not scenarios:
        raise click.UsageError(
            f"The run {run.run_id} holds none of the scenarios to be judged ({', '.join(names)}); it holds "
            f"{', '.join(one.name for one in run.scenarios)}."
        )
    with Prometheus(request.prometheus_url, credentials=Credentials.from_environment()) as prometheus:
        progress = _silent if request.quiet else _tell
        fetcher = Fetcher(prometheus, Source(request.selector), request.wait_seconds, progress)
        evidence = fetcher.fetch(run, scenarios, objectives)
    verdict = judge(objectives, run, evidence, scenarios=request.scenarios, options=request.options)
    return Report(
        verdict=verdict,
        objectives=objectives,
        objectives_hash=objectives_hash(objectives),
        run=run,
        evidence=evidence,
        options=request.options,
        data_source=prometheus.url,
        tool=f"cmo check {metadata.version(_DISTRIBUTION)}",
    )


def _require_inputs_kept(request: CheckRequest) -> None:
    inputs = [request.manifest, request.manifest / MANIFEST_NAME]
    with contextlib.suppress(ObjectivesError):  # which is told when they are read
        inputs.append(find_objectives(request.objectives))
    for file in inputs:
        for output in request.outputs:
            if output.file is not None and _is_same(output.file, file):
                raise click.UsageError(f"--format: {output.file} is read by this check; name another file.")


def _require_known(scenarios: tuple[str, ...], objectives: Objectives) -> None:
    unknown = [name for name in scenarios if name not in objectives.scenarios]
    if unknown:
        raise click.UsageError(
            f"--scenario {unknown[0]}: the objectives {objectives.name} have no such scenario; they have "
            f"{', '.join(objectives.scenarios)}."
        )


def _tell(text: str) -> None:
    with contextlib.suppress(OSError):  # a full or closed standard error is no reason to fail
        click.echo(text, err=True)


def _silent(_text: str) -> None:
    """Say nothing."""


def _remove_older(output: Output) -> int:
    """Remove the report of an earlier check, which could be taken for the verdict of one that fails.

    Returns the mode of the new file: that of the older, or the usual.
    """
    usual = 0o666 & ~_umask()
    if output.file is None:
        return usual
    try:
        if not output.file.is_file():  # a device or a pipe is no report
            return usual
        place = output.file.resolve()  # through a link, which stays
        if not os.access(place, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        mode = place.stat().st_mode & 0o777
        place.unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_write(output, error) from error
    return mode


def _write(report: Report, output: Output, mode: int) -> None:
    if output.form == "json":
        text = json.dumps(as_json(report), indent=2, allow_nan=False) + "\n"
    else:
        text = as_text(report, colour=output.file is None and _colour_wanted())
    try:
        if output.file is None:
            _print(text)
        else:
            _write_whole(output.file, text, mode)
    except BrokenPipeError:
        raise  # whoever read standard output has left: no error to tell anybody
    except OSError as error:
        raise _cannot_write(output, error) from error


def _cannot_write(output: Output, error: OSError) -> click.FileError:
    name = "standard output" if output.file is None else str(output.file)
    return click.FileError(name, error.strerror or str(error))


def _print(text: str) -> None:
    if sys.stdout is None:  # it was closed before we began
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    click.echo(text, nl=False, color=True)


def _write_whole(file: Path, text: str, mode: int) -> None:
    """Write a report so that whoever reads the file sees all of it or none, whoever else writes there."""
    if file.exists() and not file.is_file():
        file.write_text(text, encoding="utf-8")  # a device or a pipe cannot be replaced
        return
    place = file.resolve()
    handle, name = tempfile.mkstemp(prefix=".cmo-check-", dir=place.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as part:
            part.write(text)
            os.fchmod(part.fileno(), mode)
        Path(name).replace(place)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0o077)  # it cannot be read without being set
    os.umask(mask)
    return mask


def _colour_wanted() -> bool:
    return sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _outputs(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[Output, ...]:
    outputs = []
    for value in values or ("text",):
        form, colon, name = value.partition(":")
        if form not in _FORMATS or (colon and not name):
            raise click.BadParameter(f"{value!r} is no format; expected text, json, text:FILE or json:FILE.")
        file = Path(name) if name else None
        if file is not None and not _is_directory(file.parent):
            raise click.BadParameter(f"{value!r}: there is no directory {file.parent}.")
        outputs.append(Output(cast("Literal['text', 'json']", form), file))
    if sum(output.file is None for output in outputs) > 1:
        raise click.BadParameter("only one format can go to standard output; name a file for the others.")
    files = [output.file.resolve() for output in outputs if output.file is not None]
    if twice := [file for index, file in enumerate(files) if file in files[:index] and not _is_device(file)]:
        raise click.BadParameter(f"two formats go to {twice[0]}; name a file for each.")
    return tuple(outputs)


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # too long a name, for example
        return False


def _is_device(file: Path) -> bool:
    try:
        return file.exists() and not file.is_file()
    except OSError:
        return False


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.is_file() and one.samefile(other)
    except OSError:  # one of them is not there
        return False


def _address(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        split_address(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error
    return value


def _matchers(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    bare = value.strip().removeprefix("{").removesuffix("}").strip().rstrip(",")
    if not bare or "=" not in bare:
        raise click.BadParameter(f'{value!r} has no matcher of labels; expected for example job="cmo".')
    return bare


@click.command(
    epilog="""\b
Examples:
  cmo check --run .cmo/runs/20261123T233100Z-1a2b3c
  cmo check --run manifest.json --objectives cmo-015 --format text --format json:verdict.json
  cmo check --run manifest.json --selector 'job="cmo",replica="a"' --confidence

\b
Exit status: 0 compliant, 1 non-compliant, 2 inconclusive, 3 wrong usage or objectives,
4 Prometheus could not be read, 5 a fault of our own.
"""
)
@click.option(
    "--run",
    "manifest",
    required=True,
    metavar="MANIFEST",
    type=click.Path(path_type=Path),
    help="The manifest of a load test, or the directory that holds it.",
)
@click.option(
    "--prometheus-url",
    envvar="CMO_PROMETHEUS_URL",
    default="http://127.0.0.1:9090",
    show_default=True,
    show_envvar=True,
    callback=_address,
    help="Where Prometheus answers.",
)
@click.option(
    "--objectives",
    envvar="CMO_OBJECTIVES",
    default="cmo-015",
    show_default=True,
    show_envvar=True,
    metavar="FILE|NAME",
    help="What to judge by: objectives that come with this project, or a file.",
)
@click.option("--job", default="cmo", show_default=True, help="The scrape job of the service.")
@click.option(
    "--selector",
    metavar="MATCHERS",
    callback=_matchers,
    help='Label matchers in place of --job, for example \'job="cmo",replica="a"\'.',
)
@click.option(
    "--scenario", "scenarios", multiple=True, metavar="NAME", help="Judge only this scenario; several."
)
@click.option("--confidence", is_flag=True, help="An interval that holds its target is INCONCLUSIVE.")
@click.option("--strict", is_flag=True, help="A WARN is a FAIL.")
@click.option(
    "--format",
    "outputs",
    multiple=True,
    metavar="FORMAT[:FILE]",
    callback=_outputs,
    help="text or json, to standard output or to a file; several.  [default: text]",
)
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(min=0, max=3600),
    metavar="SECONDS",
    help="How long to wait after the end of the run for its last samples.  [default: 3 scrapes and 5 s]",
)
@click.option("--quiet", is_flag=True, help="No progress on standard error.")
@click.pass_context
def check(
    context: click.Context,
    *,
    manifest: Path,
    prometheus_url: str,
    objectives: str,
    job: str,
    selector: str | None,
    scenarios: tuple[str, ...],
    confidence: bool,
    strict: bool,
    outputs: tuple[Output, ...],
    wait_seconds: float | None,
    quiet: bool,
) -> None:
    """Judge a load test by its objectives, from what Prometheus has stored."""
    request = CheckRequest(
        prometheus_url=prometheus_url,
        objectives=objectives,
        manifest=manifest,
        selector=selector or f"job={json.dumps(job)}",
        scenarios=scenarios,
        options=Options(confidence=confidence, strict=strict),
        outputs=outputs,
        wait_seconds=wait_seconds,
        quiet=quiet,
    )
    context.exit(run_check(request))
