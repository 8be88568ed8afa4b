"""``python -m cmo_stack.scraped URL``: wait until Prometheus has scraped the service twice since we began.

A count begins at a scrape that agrees with the one before it, so a load that starts earlier cannot be judged.
This is `cmo_stack.stack.wait_until_scraped` for a Prometheus on another machine, or in another container.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
import urllib.error
import urllib.request
from typing import Final
from urllib.parse import urlencode, urlsplit

from cmo_stack.topology import JOB

_SCRAPES: Final = 2
_POLL_SECONDS: Final = 0.5
_REQUEST_SECONDS: Final = 10.0
_PATIENCE_SECONDS: Final = 180.0


def scrapes(url: str, job: str, since: float) -> int:
    """How often each target of a job was scraped with success since a Unix time; 0 when nothing answers.

    Of several targets, that which was scraped least.
    """
    milliseconds = max(int((time.time() - since) * 1000), 1)
    query = urlencode({"query": f'min(sum_over_time(up{{job="{job}"}}[{milliseconds}ms]))', "nocache": "1"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url.rstrip('/')}/api/v1/query?{query}", timeout=_REQUEST_SECONDS) as answer:
            result = json.load(answer)["data"]["result"]
        return int(float(result[0]["value"][1])) if result else 0
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        # Also an answer that broke off, or is none of Prometheus': a traceback's status would be a verdict's.
        return 0


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port, or an address in brackets, that is none
        return False


def main(arguments: list[str]) -> int:
    """Wait; 0 when it is scraped, 3 for wrong usage, 4 when it was not in three minutes."""
    if len(arguments) != 1 or not _is_address(arguments[0]):
        sys.stderr.write("Expected the base URL of Prometheus, such as http://prometheus:9090.\n")
        return 3
    url, began = arguments[0], time.time()
    while scrapes(url, JOB, began) < _SCRAPES:
        if time.time() - began > _PATIENCE_SECONDS:
            sys.stderr.write(
                f"{url} has not scraped the service twice in {_PATIENCE_SECONDS:g} s: see /targets.\n"
            )
            return 4
        time.sleep(_POLL_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
