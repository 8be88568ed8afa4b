from __future__ import annotations

import pytest
from cmo_oracle.loopback import is_loopback


@pytest.mark.parametrize(
    "address",
    [
        "localhost",
        "LocalHost",
        "127.0.0.1",
        "127.8.9.10",
        "::1",
        "::ffff:127.0.0.1",
        "http://localhost:8090/v1",
        "http://127.0.0.1/v1",
        "https://[::1]:8090/v1",
        "http://[::ffff:127.0.0.1]:8090/v1",
    ],
)
def test_this_machine(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost.example",
        "192.0.2.1",
        "::ffff:192.0.2.1",
        "::2",
        "0.0.0.0",
        "https://api.example/v1?at=http://127.0.0.1",
        "http://127.0.0.1@192.0.2.1/v1",
        "http://127.0.0.1.example/v1",
    ],
)
def test_another_machine(address: str) -> None:
    assert not is_loopback(address)
