#!/usr/bin/env python3
"""curl, as far as the page needs it: a machine that runs the tests need not have it installed."""

from __future__ import annotations

import argparse
import sys
import urllib.error
import urllib.request


def main() -> int:
    """Send one request and write the body of its answer, as it comes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-s", "--silent", action="store_true")
    parser.add_argument("-N", "--no-buffer", action="store_true")
    parser.add_argument("-H", "--header", action="append", default=[])
    parser.add_argument("--json")
    parser.add_argument("url")
    wanted = parser.parse_args()
    url = wanted.url if "://" in wanted.url else f"http://{wanted.url}"
    request = urllib.request.Request(url, data=wanted.json.encode() if wanted.json else None)  # noqa: S310 - http alone
    if wanted.json:
        request.add_header("Content-Type", "application/json")
    for header in wanted.header:
        name, _, value = header.partition(":")
        request.add_header(name, value.strip())
    try:
        with urllib.request.urlopen(request) as response:  # noqa: S310 - http alone
            _copy(response)
    except urllib.error.HTTPError as refusal:
        _copy(refusal)
    except urllib.error.URLError as error:
        sys.stderr.write(f"curl: {error.reason}\n")
        return 7
    return 0


def _copy(response: object) -> None:
    while piece := response.read1(65536):  # type: ignore[attr-defined]
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
