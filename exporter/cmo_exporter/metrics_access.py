"""Who may read ``/metrics``: a bearer token, TLS, client certificates.

Secrets change while a service runs: tokens are rotated, certificates are renewed. So the token is read again
for every scrape (a small file, some 20 µs) and the certificates as soon as their files have changed, and
neither needs a restart. Whatever goes wrong with the token while serving refuses everybody, because a file
that has vanished may be somebody's way to lock a door; a certificate that cannot be loaded leaves the last
good one in place, because the two files of a renewal never change at the same instant.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import ssl
import threading
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from cmo_exporter.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from cmo_exporter.settings import ExporterSettings

_log = logging.getLogger("cmo_exporter")

TOKEN_VARIABLE: Final = "CMO_METRICS_TOKEN"  # noqa: S105 - the name of a variable
"""Environment variable that holds the token where no file is set."""

_SHORTEST_TOKEN: Final = 16
_LONGEST_TOKEN_FILE: Final = 4096
# What RFC 6750 lets a bearer token be.
_TOKEN: Final = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
_MAKE_A_TOKEN: Final = "`openssl rand -hex 32` makes a good one"  # noqa: S105 - how to make one


class TokenSource(Protocol):
    """Where the token is read."""

    def read(self) -> bytes:
        """The token of this moment.

        Raises:
            SettingsError: there is none that can be used; the message never holds it.
        """
        ...


class TokenFile:
    """A token in a file, read again each time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> bytes:
        """The token in the file, without the blanks around it.

        Raises:
            SettingsError: the file cannot be read, or what it holds is no token.
        """
        where = f"metrics_token_file {self._path}"
        if not self._path.is_file():  # before it is opened: a pipe would never end
            raise SettingsError(f"{where} is not there, or is no file. Make it: {_MAKE_A_TOKEN}.")
        try:
            with self._path.open("rb") as file:
                content = file.read(_LONGEST_TOKEN_FILE)
        except OSError as error:
            raise SettingsError(
                f"{where} cannot be read: {error.strerror}. Let this user read it."
            ) from error
        return _token(content, where)


class TokenVariable:
    """A token in the environment, which stays as it was at the start."""

    def __init__(self, value: str) -> None:
        self._value = os.fsencode(value)

    def read(self) -> bytes:
        """The token.

        Raises:
            SettingsError: the variable holds none.
        """
        return _token(self._value, f"The variable {TOKEN_VARIABLE}")


class BearerToken:
    """Decides whether a request shows the right token."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self._complained = ""
        source.read()

    def admits(self, authorization: str | None) -> bool:
        """Whether the header ``Authorization`` holds the token; the time it takes says nothing about it."""
        try:
            token = self._source.read()
        except SettingsError as error:
            self._complain(str(error))
            return False
        self._complained = ""
        scheme, _, shown = (authorization or "").partition(" ")
        shown_token = shown.strip().encode("utf-8", "surrogateescape")
        # Digests, because a comparison of the tokens themselves tells whether their lengths agree.
        same = hmac.compare_digest(_digest(shown_token), _digest(token))
        return same and scheme.lower() == "bearer"

    def _complain(self, message: str) -> None:
        if message != self._complained:
            self._complained = message
            _log.warning("Every scrape is refused: %s", message)


class TlsFiles:
    """Certificate, key and client authority, loaded again when a file has changed.

    Raises:
        SettingsError: a file cannot be loaded.
    """

    def __init__(self, certificate: Path, key: Path | None, client_ca: Path | None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._lock = threading.Lock()
        self._seen = self._signature()
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """What new connections are served with."""
        with self._lock:
            signature = self._signature()
            if signature != self._seen:
                self._seen = signature
                try:
                    self._context = self._load()
                except SettingsError as error:
                    _log.warning("The certificate of /metrics stays as it was: %s", error)
            return self._context

    def _signature(self) -> tuple[tuple[int, ...], ...]:
        return tuple(_stamp(path) for path in (self._certificate, self._key, self._client_ca) if path)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        files = f"metrics_tls_certificate {self._certificate} and metrics_tls_key {self._key or '(in it)'}"
        _readable("metrics_tls_certificate", self._certificate)
        if self._key is not None:
            _readable("metrics_tls_key", self._key)
        try:
            context.load_cert_chain(self._certificate, self._key, password=_refuse_to_ask)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"{files} cannot be used: {_reason(error)}. Both must be PEM, the key must belong to the "
                "certificate and must not be encrypted."
            ) from error
        if self._client_ca is not None:
            _readable("metrics_tls_client_ca", self._client_ca)
            try:
                context.load_verify_locations(self._client_ca)
            except (OSError, ValueError) as error:
                raise SettingsError(
                    f"metrics_tls_client_ca {self._client_ca} cannot be used: {_reason(error)}. It must hold "
                    "the certificates of the authorities that sign clients, in PEM."
                ) from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class MetricsAccess:
    """What a reader of ``/metrics`` must show, and how the connection is protected."""

    def __init__(self, token: BearerToken | None = None, tls: TlsFiles | None = None) -> None:
        self.token = token
        self.tls = tls

    @classmethod
    def of(cls, settings: ExporterSettings) -> MetricsAccess:
        """What the settings, and the variable CMO_METRICS_TOKEN, ask for.

        Raises:
            SettingsError: a file or the variable cannot be used; the message says how to mend it.
        """
        token: BearerToken | None = None
        if settings.metrics_token_file is not None:
            token = BearerToken(TokenFile(settings.metrics_token_file))
        elif TOKEN_VARIABLE in os.environ:
            token = BearerToken(TokenVariable(os.environ[TOKEN_VARIABLE]))
        tls: TlsFiles | None = None
        if settings.metrics_tls_certificate is not None:
            tls = TlsFiles(
                settings.metrics_tls_certificate, settings.metrics_tls_key, settings.metrics_tls_client_ca
            )
        return cls(token, tls)

    @property
    def open_to_all(self) -> bool:
        """Whether neither a token nor TLS stands between a reader and the metrics."""
        return self.token is None and self.tls is None


def _token(content: bytes, where: str) -> bytes:
    token = content.strip()
    if len(token) < _SHORTEST_TOKEN:
        raise SettingsError(
            f"{where} holds {len(token) or 'no'} characters; a token has {_SHORTEST_TOKEN} or more, and "
            f"{_MAKE_A_TOKEN}."
        )
    if not _TOKEN.fullmatch(token) or len(content) >= _LONGEST_TOKEN_FILE:
        raise SettingsError(
            f"{where} holds something other than one token. A token is one line of letters, digits and "
            f"._~+/-= of fewer than {_LONGEST_TOKEN_FILE} characters; {_MAKE_A_TOKEN}."
        )
    return token


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)


def _readable(setting: str, path: Path) -> None:
    """Say which of several files is the one that cannot be opened; OpenSSL does not."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise SettingsError(
            f"{setting} {path} cannot be read: {error.strerror}. Give a file that this user may read."
        ) from error


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__


def _refuse_to_ask() -> NoReturn:
    """OpenSSL would otherwise wait at the terminal for the passphrase of an encrypted key."""
    raise ValueError("the key is encrypted")
