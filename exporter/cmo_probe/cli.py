"""The command ``cmo probe``: its options, and how it ends."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import click
from cmo_exporter.catalogue import PROBE_SCENARIO

from cmo_probe.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cmo_probe.asking import Service
    from cmo_probe.canaries import Canaries
    from cmo_probe.prober import Asked

DEFAULT_URL: Final = "http://127.0.0.1:8000/query"
DEFAULT_METRICS_PORT: Final = 9465

_SUCCESS, _FAILURE, _UNREACHED = 0, 1, 4
_SLACK_SECONDS: Final = 60.0
_SECONDS: Final = click.FloatRange(min=0.0, max=86_400.0, min_open=True)


@click.command(
    epilog="""\b
Examples:
  cmo probe --once                          ask each canary of the reference service once
  cmo probe --once --format json | jq -r '.canaries[].result'
  cmo probe --url https://cmo.example.org/query --interval 60
  cmo probe --canaries my-canaries.yml --metrics-port 9500
\b
Exit status with --once: 0 all canaries succeeded, 1 one failed, 3 wrong usage or canaries,
4 the service could not be reached.
"""
)
@click.option(
    "--url", default=DEFAULT_URL, show_default=True, metavar="URL", help="Where questions are posted."
)
@click.option(
    "--canaries",
    "canaries_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The questions, in YAML; without it, those shipped with the package.",
)
@click.option(
    "--interval",
    type=_SECONDS,
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Between the starts of two questions. Fresh ones cost a model call each.",
)
@click.option(
    "--timeout",
    type=_SECONDS,
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a user would wait for a complete answer.",
)
@click.option(
    "--scenario",
    default=PROBE_SCENARIO,
    show_default=True,
    metavar="NAME",
    help="What the service is asked to count the questions under; empty for nothing.",
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Holds the bearer token that the service wants.",
)
@click.option(
    "--ca-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Certificates to trust instead of the system's.",
)
@click.option(
    "--metrics-host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Where /metrics is served.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65_535),
    default=DEFAULT_METRICS_PORT,
    show_default=True,
    metavar="PORT",
    help="Its port; 0 takes a free one.",
)
@click.option("--once", is_flag=True, help="Ask each canary once, print what came of it, and end.")
@click.option(
    "--format",
    "report_format",
    type=click.Choice(["table", "json"]),
    help="How --once prints it.  [default: table]",
)
@click.option("--quiet", is_flag=True, help="Show no progress. Failures are logged all the same.")
def probe(
    *,
    url: str,
    canaries_file: Path | None,
    interval: float,
    timeout: float,
    scenario: str,
    token_file: Path | None,
    ca_file: Path | None,
    metrics_host: str,
    metrics_port: int,
    once: bool,
    report_format: str | None,
    quiet: bool,
) -> int:
    """Ask a service canary questions from outside, and export what a user would have seen.

    It runs until Ctrl-C, one question each interval, and serves cmo_probe_* metrics. Each failure is one line
    of JSON on standard error.
    """
    from cmo_probe.asking import Service, trusted  # noqa: PLC0415 - help needs no extra, and stays fast
    from cmo_probe.canaries import default_file, load_canaries  # noqa: PLC0415 - as above

    if report_format and not once:
        raise click.UsageError("--format is how --once prints; add --once, or leave it out.")
    _check_url(url)
    canaries = load_canaries(canaries_file or default_file())
    service = Service(
        url=url,
        tls=trusted(ca_file),
        timeout_seconds=timeout,
        scenario=_header_value(scenario, "--scenario"),
        token=_header_value(_token(token_file), "--token-file"),
    )
    progress = _silent if quiet else _tell
    if once:
        return _once(service, canaries, report_format or "table", quiet=quiet)
    progress(f"Asking {url} one of {len(canaries.names)} canaries every {interval:g} s, until Ctrl-C.")
    _run(service, canaries, interval, (metrics_host, metrics_port), quiet=quiet)
    return _SUCCESS


def _once(service: Service, canaries: Canaries, report_format: str, *, quiet: bool) -> int:
    from cmo_probe.prober import ask_each_once  # noqa: PLC0415 - as above
    from cmo_probe.report import as_json, as_table  # noqa: PLC0415 - as above

    asked: list[Asked] = []
    for one in ask_each_once(service, canaries):
        asked.append(one)
        if not quiet and sys.stderr is not None and sys.stderr.isatty():
            _tell(f"{len(asked)} of {len(canaries.names)}: {one.canary.name}: {one.result}")
    click.echo(as_json(asked, service.url) if report_format == "json" else as_table(asked))
    status = _status(asked)
    if status == _UNREACHED and not quiet:
        _tell(
            f"Nothing could be reached at {service.url}. Start the service (`cmo stack up` starts the "
            "reference service), or name another with --url."
        )
    return status


def _run(
    service: Service, canaries: Canaries, interval: float, address: tuple[str, int], *, quiet: bool
) -> None:
    from cmo_exporter.errors import MetricsAddressError  # noqa: PLC0415 - as above
    from cmo_exporter.metrics_server import MetricsServer  # noqa: PLC0415 - as above

    from cmo_probe.metrics import ProbeMetrics, renderer  # noqa: PLC0415 - as above
    from cmo_probe.prober import ask_for_ever  # noqa: PLC0415 - as above

    metrics = ProbeMetrics(canaries.names)
    try:
        render = renderer(metrics, silent_seconds=interval + service.timeout_seconds + _SLACK_SECONDS)
        server = MetricsServer(render, *address)
    except MetricsAddressError as error:
        raise ProbeError(f"{error} Here that is --metrics-port and --metrics-host.") from error
    try:
        if not quiet:
            _tell(f"Metrics: {server.url}")
        ask_for_ever(service, canaries, metrics, interval_seconds=interval, tell=_tell)
    finally:
        server.close()


def _status(asked: Sequence[Asked]) -> int:
    if all(one.succeeded for one in asked):
        return _SUCCESS
    return _FAILURE if any(one.exchange.reached for one in asked) else _UNREACHED


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.fragment:
        raise click.BadParameter(f"{url!r} is no URL; expected one like {DEFAULT_URL}", param_hint="--url")
    if parts.username is not None:
        raise click.BadParameter(
            "credentials in the URL would be printed; use --token-file", param_hint="--url"
        )


def _token(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise ProbeError(f"{path} cannot be read: {reason}. Expected a file that holds a token.") from error
    if not token:
        raise ProbeError(f"{path} is empty. Expected a file that holds a token.")
    return token


def _header_value(value: str, option: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise ProbeError(f"{option} holds characters that no header can, such as a line break.")
    return value


def _tell(line: str) -> None:
    # A full disk, or a reader who has left, is no reason to stop watching the service.
    with contextlib.suppress(OSError):
        click.echo(line, err=True)


def _silent(_: str) -> None:
    """Nothing: the user wants it quiet."""
