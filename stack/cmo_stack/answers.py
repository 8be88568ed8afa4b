"""``python -m cmo_stack.answers URL``: end with 0 if a URL of this container answers with 200, else with 1.

A container's health check, where neither curl nor wget is: started every few seconds, so it imports the
standard library alone, and little of that.
"""

from __future__ import annotations

import http.client
import sys
from typing import Final
from urllib.parse import urlsplit

_TIMEOUT_SECONDS: Final = 4.0
_EXPECTED: Final = "Expected one URL, such as http://127.0.0.1:8000/readyz."


def problem_of(url: str) -> str | None:
    """Why a URL does not answer with 200, in words; None when it does."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return _EXPECTED
    if parts.scheme != "http" or not host:
        return _EXPECTED
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", parts.path or "/")
        status = connection.getresponse().status
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: no name of a host
        return f"{url}: {type(error).__name__}: {error}"
    finally:
        connection.close()
    return None if status == http.client.OK else f"{url} answered with {status}"


def main(arguments: list[str]) -> int:
    """Ask, and say what is wrong, which `docker inspect` then shows."""
    problem = problem_of(arguments[0]) if len(arguments) == 1 else _EXPECTED
    if problem is not None:
        sys.stderr.write(f"{problem}\n")
    return int(problem is not None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
