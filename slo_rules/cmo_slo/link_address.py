"""Addresses that links of alerts begin with: a wrong one would show only on a phone, at night."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

ADDRESS_EXAMPLE: Final = "https://git.example.org/docs/runbooks"
EXPECTED_ADDRESS: Final = f"one such as {ADDRESS_EXAMPLE}"
EXPECTED_ADDRESS_OR_FOLDER: Final = f"a folder such as docs/runbooks, or an address such as {ADDRESS_EXAMPLE}"

# Annotations are templates, so braces would be read as one; the rest ends a link in some receiver or other.
_NOT_IN_A_LINK: Final = re.compile(r"[\s{}<>\"'`\\|^\x00-\x20\x7f]")
_NAMES_A_USER: Final = re.compile(r"[^/]*//[^/]*@")
# A scheme, two slashes, or a host, which has a dot amid its name, as few folders have.
_BEGINS_AN_ADDRESS: Final = re.compile(r"[^/]*:|//|[^./][^/]*\.[^./]")


def wrong_with_address_or_folder(link: str) -> str | None:
    """What keeps an address, or a folder of this repository, from being the beginning of a link, or ``None``.

    A folder that is named like a host is taken for an address that lacks its ``https://``, unless it begins
    with ``./``.
    """
    if _BEGINS_AN_ADDRESS.match(link) or _NOT_IN_A_LINK.search(link):
        return wrong_with_address(link)
    return _wrong_behind(link)


def wrong_with_address(address: str) -> str | None:
    """What keeps an address from being the beginning of a link, ``None`` if nothing does."""
    # First, because all else that is wrong is told with the address.
    if _NAMES_A_USER.match(address):
        return "an address with a user in it would show its password in every alert"
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
    return _wrong_behind(address)


def _wrong_behind(link: str) -> str | None:
    if "?" in link or "#" in link:
        return f"{link!r} has a ? or a #, behind which nothing can be added to its path"
    return None
