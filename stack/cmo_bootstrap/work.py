"""What every step of the set-up needs: commands whose failures are explained, stamps, and a lock.

A set-up is interrupted, run twice at once, and run again when nothing has changed. So each step writes a
stamp, holding a hash of all that it depends on, as its very last act, and one lock serialises set-ups.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_TAIL_LINES: Final = 12
_NETWORK_SIGNS: Final = (
    "temporary failure resolving",
    "temporary failure in name resolution",
    "could not resolve",
    "name or service not known",
    "network is unreachable",
    "no route to host",
    "connection refused",
    "connection timed out",
    "could not connect",
    "unable to connect",
    "newconnectionerror",
    "dns error",
    "enotfound",
    "econnrefused",
    "eai_again",
    "etimedout",
    "error sending request",
    "proxyerror",
)
_CERTIFICATE_SIGNS: Final = (
    "certificate_verify_failed",
    "invalid peer certificate",
    "self_signed_cert_in_chain",
    "unable_to_get_issuer_cert",
)
NO_NETWORK: Final = (
    "A package server could not be reached. Check the network (http_proxy, https_proxy and the settings of "
    "pip, npm and apt are all respected), then run the same command again: it goes on where it stopped."
)
DISK_FULL: Final = (
    "The disk is full. About 1.5 GB are needed, 2 GB for the tests. Make room, then run the same command "
    "again: it goes on where it stopped."
)
BAD_CERTIFICATE: Final = (
    "The package server's certificate is not trusted here. Where a proxy or a mirror has a certificate of "
    "its own, name its authority in PIP_CERT, SSL_CERT_FILE and NODE_EXTRA_CA_CERTS, or install the package "
    "ca-certificates."
)


class SetupError(Exception):
    """The set-up cannot go on; the message says why and what to do."""


class CommandFailedError(SetupError):
    """A command of the set-up failed; ``output`` is all that it printed."""

    def __init__(self, what: str, output: str) -> None:
        super().__init__(explain(what, output))
        self.output = output


def explain(what: str, output: str) -> str:
    """A message for a failed command: the likely cause in words, then the end of what it printed."""
    lowered = output.lower()
    tail = "\n".join(f"  {line}" for line in output.strip().splitlines()[-_TAIL_LINES:])
    if "no space left on device" in lowered:
        cause = DISK_FULL
    elif any(sign in lowered for sign in _CERTIFICATE_SIGNS):
        cause = BAD_CERTIFICATE
    elif any(sign in lowered for sign in _NETWORK_SIGNS):
        cause = NO_NETWORK
    else:
        cause = "Its last words are below."
    return f"{what} failed. {cause}\n{tail}"


@contextlib.contextmanager
def disk_full_explained() -> Iterator[None]:
    """Turn the system's error for a full disk into a message of ours."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SetupError(DISK_FULL) from error
        raise


def run(what: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Run a command without a terminal and return what it printed.

    Args:
        what: what it does, as a noun phrase for messages.
        command: program and arguments.
        environment: the whole environment; None for our own.

    Raises:
        CommandFailedError: it ended with another status than 0.
        SetupError: the program is missing.
    """
    try:
        done = subprocess.run(
            command,
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise SetupError(f"{what} needs `{command[0]}`, which is not on PATH.") from error
    if done.returncode != 0:
        raise CommandFailedError(what, done.stdout)
    return done.stdout


def say(text: str) -> None:
    """Tell the user something, on standard error."""
    sys.stderr.write(f"setup: {text}\n")
    sys.stderr.flush()


@contextlib.contextmanager
def announced(what: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    say(f"{what} ...")
    started = time.monotonic()
    yield
    say(f"{what}: done in {time.monotonic() - started:.1f} s")


def fingerprint(*parts: str | Path) -> str:
    """A hash of texts and of the contents of files, in their order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part.read_bytes()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def stamped(stamp: Path, key: str) -> bool:
    """Whether a step has been finished with exactly these inputs."""
    try:
        return stamp.read_text() == key
    except OSError:
        return False


def write_stamp(stamp: Path, key: str) -> None:
    """Say that a step is finished; a power cut leaves either the whole stamp or none."""
    stamp.parent.mkdir(parents=True, exist_ok=True)
    unfinished = stamp.with_name(f"{stamp.name}.{os.getpid()}")
    unfinished.write_text(key)
    unfinished.replace(stamp)


@contextlib.contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold a lock that the kernel frees when we die; wait for whoever has it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is running here; waiting for it to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
