"""Addresses that links of alerts begin with: a wrong one would show only on a phone, at night."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

ADDRESS_EXAMPLE: Final = "https://git.example.org/docs/runbooks"
EXPECTED_ADDRESS: Final = f"one such as {ADDRESS_EXAMPLE}"

# Annotations are templates, so braces would be read as one; the rest ends a link in some receiver or other.
_NOT_IN_A_LINK: Final = re.compile(r"[\s{}<>\"'`\\|^\x00-\x20\x7f]")


def wrong_with_address(address: str) -> str | None:
    """What keeps an address from being the beginning of a link, ``None`` if nothing does."""
    if _NOT_IN_A_LINK.search(address):
        return f"{address!r} holds characters that no link has"
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"{address!r} is no address ({error})"
    if parts.scheme not in ("http", "https"):
        return f"{address!r} begins neither with https:// nor with http://"
    if not host:
        return f"{address!r} names no host"
    if parts.query or parts.fragment or address.endswith(("?", "#")):
        return f"{address!r} has a ? or a #, behind which nothing can be added to its path"
    if parts.username is not None:
        return "an address with a user in it would show its password in every alert"
    return None
