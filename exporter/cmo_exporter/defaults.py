"""The exporter of a service that names none: one for the process, with settings from the environment.

``CMO_EXPORTER_PORT=9464`` is the setting ``port``, and so on for every setting; commas separate
a list. A name or a value that cannot be right is an error when the service is made, not a surprise later.
"""

from __future__ import annotations

import atexit
import dataclasses
import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cmo_exporter.errors import ExporterError, SettingsError
from cmo_exporter.exporter import Exporter
from cmo_exporter.settings import ExporterSettings, Price

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PREFIX: Final = "CMO_EXPORTER_"
DEFAULT_PORT: Final = 9464
"""Where the default exporter serves ``/metrics``, for Prometheus has to know it beforehand."""


_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off")

_log = logging.getLogger("cmo_exporter")
_lock = threading.Lock()
_lifetimes: dict[str, Lifetime] = {}


def default_exporter() -> Exporter:
    """The exporter of this process that `instrument_fastapi` and `instrument_asgi` take when given none.

    Raises:
        SettingsError: a variable ``CMO_EXPORTER_…`` is unknown, or its value cannot work.
    """
    with _lock:
        found = _lifetimes.get("default")
        if found is None:
            found = _lifetimes["default"] = Lifetime(Exporter(settings_from_environment(os.environ)))
            atexit.register(found.exporter.close)
        return found.exporter


def lifetime(exporter: Exporter) -> Lifetime | None:
    """What starts and closes this exporter, when that is not left to whoever made it."""
    found = _lifetimes.get("default")
    return found if found is not None and found.exporter is exporter else None


class Lifetime:
    """Starts an exporter with the first application that it serves, and closes it with the last."""

    def __init__(self, exporter: Exporter) -> None:
        self.exporter = exporter
        self._lock = threading.Lock()
        self._applications: set[object] = set()

    def begin(self, application: object) -> None:
        """An application begins to serve; again, while it serves, this does nothing.

        An address that is taken, or a token that cannot be read, is said in the log, and the service goes on:
        it must not stay down because nobody can look at its metrics.
        """
        with self._lock:
            if application in self._applications:
                return
            self._applications.add(application)
            try:
                self.exporter.start()
            except ExporterError as error:
                _log.error(
                    "%s There are no metrics until the service starts again. In the environment, settings "
                    "are called as the port is, %sPORT: the prefix and the name in capitals.",
                    error,
                    PREFIX,
                )
            except Exception as error:  # noqa: BLE001 - the service goes before its metrics
                _log.error("The exporter did not start: %s.", type(error).__name__)

    def end(self, application: object) -> None:
        """An application has served its last."""
        with self._lock:
            self._applications.discard(application)
            if self._applications:
                return
            try:
                self.exporter.close()
            except Exception as error:  # noqa: BLE001 - as above
                _log.error("The exporter did not close: %s.", type(error).__name__)


def settings_from_environment(environment: Mapping[str, str]) -> ExporterSettings:
    """The settings that the variables ``CMO_EXPORTER_…`` describe; what they leave out has its default.

    Raises:
        SettingsError: a variable is unknown, or its value cannot work; the message names it.
    """
    parsers = {field.name: _PARSERS.get(str(field.type)) for field in dataclasses.fields(ExporterSettings)}
    values: dict[str, object] = {"port": DEFAULT_PORT}
    for variable in sorted(environment):
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        parse = parsers.get(name)
        if parse is None:
            known = ", ".join(f"{PREFIX}{known.upper()}" for known, how in parsers.items() if how)
            raise SettingsError(f"{variable} is no setting of the exporter. Known are: {known}.")
        try:
            values[name] = parse(environment[variable].strip())
        except ValueError as error:
            raise SettingsError(f"{variable} is {environment[variable]!r}; expected {error}.") from None
    return ExporterSettings(**values)  # type: ignore[arg-type]  # each came from the parser of its type


def _number(kind: type[int] | type[float], expected: str) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            return kind(text)
        except ValueError:
            raise ValueError(expected) from None

    return parse


def _boolean(text: str) -> bool:
    if text.lower() not in (*_TRUE, *_FALSE):
        raise ValueError("true or false")
    return text.lower() in _TRUE


def _list(text: str) -> tuple[str, ...]:
    return tuple(piece.strip() for piece in text.split(",") if piece.strip())


def _models(text: str) -> tuple[tuple[str, ...], ...]:
    models = tuple(tuple(piece.split(":", 2)) for piece in _list(text))
    if any(len(model) != 3 or not all(model) for model in models):
        raise ValueError("component:provider:model, separated by commas")
    return models


def _prices(text: str) -> dict[str, Price]:
    prices: dict[str, Price] = {}
    for piece in _list(text):
        model, _, amounts = piece.rpartition("=")
        read, _, written = amounts.partition("/")
        try:
            prices[model] = Price(float(read), float(written))
        except ValueError:
            raise ValueError(
                "model=input/output in US dollars per million tokens, separated by commas"
            ) from None
    return prices


_PARSERS: Final[Mapping[str, Callable[[str], object]]] = {
    "str": str,
    "str | None": lambda text: text or None,
    "Path | None": lambda text: Path(text) if text else None,
    "int": _number(int, "a whole number"),
    "float": _number(float, "a number"),
    "bool": _boolean,
    "tuple[str, ...]": _list,
    "tuple[tuple[str, str, str], ...]": _models,
    "Mapping[str, Price]": _prices,
}
