"""Which addresses are this machine's own: no proxy is asked for them, and they alone may steer the stub."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit


def is_loopback(address: str) -> bool:
    """Whether a host, or the host of a URL, is this machine. Of names it knows ``localhost`` alone.

    Raises:
        ValueError: a URL that is none.
    """
    host = (urlsplit(address).hostname or "") if "//" in address else address.lower()
    try:
        ip = ip_address(host)
    except ValueError:
        return host == "localhost"
    # Not every Python sees through IPv4-mapped addresses by itself.
    return ((isinstance(ip, IPv6Address) and ip.ipv4_mapped) or ip).is_loopback
