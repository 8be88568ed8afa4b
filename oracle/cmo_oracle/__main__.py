"""``python -m cmo_oracle``: run one instance of the service.

Settings come from flags, then ``CMO_*`` variables, then the profile. One process, to which the exporter, the
breaker and L1 belong; or several workers (`cmo_oracle.workers`), each with a breaker and an L1 of its own.
"""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
from cmo_exporter import ExporterError

from cmo_oracle.corpus import CorpusError
from cmo_oracle.logs import writing_logs
from cmo_oracle.profile import PROFILE_NAMES, ProfileError, load_profile
from cmo_oracle.settings import PERPLEXITY_KEY, UPSTREAM_KEY, Settings, SettingsError, secret

if TYPE_CHECKING:
    from types import FrameType

_WRONG_USAGE: Final = 3
_KEEP_ALIVE_SECONDS: Final = 120
_GRACE_SECONDS: Final = 2
_SERVER_SETTINGS: Final[dict[str, Any]] = {
    "timeout_keep_alive": _KEEP_ALIVE_SECONDS,
    "timeout_graceful_shutdown": _GRACE_SECONDS,
    "lifespan": "on",
    # There are none here, and uvicorn logs the URL, query string and all, of those it refuses.
    "ws": "none",
    "log_config": None,
    "access_log": False,
    "server_header": False,
}
_PORT: Final = click.IntRange(0, 65535)
_FOLDER: Final = click.Path(file_okay=False, path_type=Path)


@click.command(context_settings={"auto_envvar_prefix": "CMO", "max_content_width": 100})
@click.option(
    "--profile",
    default="report",
    show_default=True,
    metavar="|".join((*PROFILE_NAMES, "FILE")),
    help="How the service behaves.",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="FIELD=VALUE",
    envvar="CMO_SET",
    help="Change one field of the profile, e.g. --set cache.l1.entries=15000. Repeatable.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address of the service and its metrics."
)
@click.option("--port", type=_PORT, default=8000, show_default=True, help="Port of the service.")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Worker processes of this instance; they share its ports and everything but breaker and L1.",
)
@click.option("--metrics-port", type=_PORT, default=9464, show_default=True, help="Port of /metrics.")
@click.option(
    "--upstream-url",
    default="http://127.0.0.1:8090/v1",
    show_default=True,
    help="OpenAI-compatible API for answers and embeddings.",
)
@click.option("--perplexity-url", help="OpenAI-compatible API of the fallback.  [default: the upstream]")
@click.option("--redis-url", help="Redis of cache L3. Without it there is no L3.")
@click.option("--cache-directory", type=_FOLDER, help="Folder of cache L2. Without it there is no L2.")
@click.option(
    "--index-directory",
    type=_FOLDER,
    default=Path(".cmo/index"),
    show_default=True,
    help="Where the knowledge-graph index is kept between runs.",
)
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    metavar="NAME",
    envvar="CMO_SCENARIOS",
    help="A load-test scenario that requests may name. Without any, the header is ignored. Repeatable.",
)
@click.option(
    "--timing-log",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Time every query independently of the exporter into this file.",
)
@click.option("--revision", default="unknown", help="Source revision, for cmo_build_info.")
def main(profile: str, changes: tuple[str, ...], workers: int, **where: Any) -> None:
    """Run the reference clinical question-answering service.

    Keys are read from the environment variables CMO_MODEL_API_KEY and CMO_PERPLEXITY_API_KEY, or from the
    files that CMO_MODEL_API_KEY_FILE and CMO_PERPLEXITY_API_KEY_FILE name.

    \b
    Examples:
      python -m cmo_oracle --profile healthy --upstream-url http://127.0.0.1:8090/v1
      python -m cmo_oracle --profile report --set lightrag.timeout_seconds=4.5
    """  # noqa: D301 - click reads the escape
    settings = Settings(
        profile=load_profile(profile, changes),
        upstream_key=secret(UPSTREAM_KEY),
        perplexity_key=secret(PERPLEXITY_KEY),
        **where,
    )
    serve(settings, workers=workers)


def serve(settings: Settings, *, workers: int = 1) -> None:
    """Serve until SIGTERM or Ctrl-C, in this process or in several workers of it.

    Raises:
        SettingsError: the address is taken or is not ours.
        ExporterError: that of the metrics is, or a setting of theirs cannot be used.
        CorpusError: the passages cannot be read.
    """
    with _listening(settings.host, settings.port) as listener:
        if workers == 1:
            _serve_alone(settings, listener)
            return
        # Imported here because the engine takes seconds, and a wrong setting is to be told at once.
        from cmo_oracle.workers import serve_with_workers  # noqa: PLC0415

        serve_with_workers(settings, listener, workers=workers, server_settings=_SERVER_SETTINGS)


def _serve_alone(settings: Settings, listener: socket.socket) -> None:
    import uvicorn  # noqa: PLC0415 - takes long, as above

    from cmo_oracle.app import create_app, with_timer  # noqa: PLC0415

    app = create_app(settings)
    config = uvicorn.Config(with_timer(app, settings), **_SERVER_SETTINGS)
    # The metrics before anything else: their port, if it is taken, is to be told as plainly as the service's.
    with app.state.service.exporter, writing_logs():
        # uvicorn stops in order and then raises the signal again, which would end the process before the
        # last lines of the log are written.
        signal.signal(signal.SIGTERM, _exit)
        uvicorn.Server(config).run(sockets=[listener])


def _exit(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=2048)
    except OSError as error:
        raise SettingsError(
            f"Cannot listen on {host}:{port}: {error.strerror}. Choose another --port, or stop what uses it."
        ) from None


def run(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status, 3 for what the user can mend by other settings."""
    try:
        main.main(args=arguments, prog_name="python -m cmo_oracle", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return _WRONG_USAGE
    except (ProfileError, SettingsError, ExporterError, CorpusError) as error:
        click.echo(f"Error: {error}", err=True)
        return _WRONG_USAGE
    except (click.Abort, KeyboardInterrupt):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(run())
