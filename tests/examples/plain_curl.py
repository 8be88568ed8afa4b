#!/usr/bin/env python3
"""curl, as far as the page needs it, for a machine that has none."""

from __future__ import annotations

import argparse
import sys
import urllib.error
import urllib.request


def main() -> int:
    parser = argparse.ArgumentParser()
    for flag in ("-f", "-s", "-S"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("-X", dest="method", default="GET")
    parser.add_argument("url")
    wanted = parser.parse_args()
    try:
        with urllib.request.urlopen(urllib.request.Request(wanted.url, method=wanted.method)) as response:  # noqa: S310
            sys.stdout.buffer.write(response.read())
    except urllib.error.URLError as error:
        sys.stderr.write(f"curl: {error}\n")
        return 22
    return 0


if __name__ == "__main__":
    sys.exit(main())
