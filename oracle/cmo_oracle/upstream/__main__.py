"""``python -m cmo_oracle.upstream``: run the stub until it is told to stop."""

from __future__ import annotations

import argparse
import sys

import uvicorn

from cmo_oracle.upstream.calibration import CalibrationError, load_calibration
from cmo_oracle.upstream.server import create_app

_DEFAULT_PORT = 8090
# The client reuses connections for less long than this, so it never meets one that is being closed.
_KEEP_ALIVE_SECONDS = 120


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and serve; 0 after an orderly stop, 3 for a wrong setting."""
    parser = argparse.ArgumentParser(
        prog="python -m cmo_oracle.upstream", description="OpenAI-compatible upstream stub."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=_DEFAULT_PORT, help="port (default: %(default)s)")
    parser.add_argument("--calibration", default="busy", help="busy or calm (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of every draw (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        calibration = load_calibration(options.calibration)
    except CalibrationError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    uvicorn.run(
        create_app(calibration, seed=options.seed),
        host=options.host,
        port=options.port,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=1,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
