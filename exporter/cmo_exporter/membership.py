"""Whether this process is counted by itself or as one worker of a service, and what follows from it.

Workers share their numbers, the table of sessions and the port of ``/metrics``: each of them listens at
it, the kernel gives a scrape to one, and that one serves the sum. So no worker's death leaves the service
unobserved.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
from typing import TYPE_CHECKING, Final, Protocol

from cmo_exporter import catalogue
from cmo_exporter.catalogue import BY_NAME, CATALOGUE, Kind, OverWorkers
from cmo_exporter.errors import MetricsAddressError, SharedDirectoryError
from cmo_exporter.sessions import FileLock, table_bytes
from cmo_exporter.workers import SharedDirectory

if TYPE_CHECKING:
    from cmo_exporter.ledger import Ledger
    from cmo_exporter.metrics_server import MetricsServer
    from cmo_exporter.process_health import ProcessHealth
    from cmo_exporter.settings import ExporterSettings
    from cmo_exporter.values import Series, Values

_VERSION_CHARACTERS: Final = 12


class Listen(Protocol):
    """Serves the metrics at a port; 0 takes a free one."""

    def __call__(self, port: int, *, beside_others: bool) -> MetricsServer:
        """Listen there, alone or beside other workers."""
        ...


class Membership:
    """This process among the workers of its service; alone, unless the settings name a directory."""

    def __init__(
        self, settings: ExporterSettings, values: Values, ledger: Ledger, health: ProcessHealth
    ) -> None:
        self._settings = settings
        self._values = values
        self._ledger = ledger
        self._health = health
        self._place: int | None = None
        path = settings.shared_directory
        self.directory = None if path is None else SharedDirectory(path, _version(settings))

    @property
    def is_joined(self) -> bool:
        """Whether there are, or can be, other workers that read what this one writes."""
        return self._place is not None

    def publish(self) -> None:
        """Write down what only this process can know of itself; nothing while it has no place."""
        if self.directory is None:
            worker = self._settings.worker
        elif self._place is not None:
            worker = str(self._place)
        else:
            return
        try:
            self._ledger.publish(worker)
        except Exception as error:  # noqa: BLE001 - there may be no room for another series
            self._health.errors.report(catalogue.MEMORY, error)
        self._health.publish(worker)

    def join(self, listen: Listen) -> MetricsServer:
        """Become a worker of the service, if the settings say so, and serve its metrics.

        Args:
            listen: serves the metrics.

        Raises:
            MetricsAddressError: nothing can listen there.
            SharedDirectoryError: the directory cannot be used.
        """
        if self.directory is None:
            return _listen_alone(listen, self._settings.port)
        with self.directory.locked():
            is_first = self.directory.begin_anew_if_empty()
            server = self._listen(listen, self.directory, self._settings.port, is_first=is_first)
            try:
                self._share(self.directory)
            except BaseException:
                server.close()
                self._leave(self.directory)
                raise
        self.publish()
        return server

    def leave(self) -> None:
        """Be no worker any more; what was counted stays with the service."""
        if self.directory is not None and self._place is not None:
            # A directory that has been taken away cannot be held, and nobody else is in it.
            with contextlib.suppress(SharedDirectoryError), self.directory.locked():
                self._leave(self.directory)
            if self._place is not None:
                self._leave(self.directory)

    def after_fork(self) -> None:
        """In a forked child: the place is the parent's."""
        self._place = None
        if self.directory is not None:
            self.directory.has_place = False
        self._values.after_fork()
        self._ledger.after_fork()

    def _leave(self, directory: SharedDirectory) -> None:
        self._place = None
        if self._values.is_shared:
            directory.leave(self._values, _is_gauge)
        self._ledger.share_sessions(None, None)

    def _share(self, directory: SharedDirectory) -> None:
        settings = self._settings
        size = table_bytes(len(settings.all_scenarios) + 1, settings.maximum_sessions)
        table = directory.memory("sessions", size)
        self._place = directory.join(self._values, _outlives_its_worker)
        self._ledger.share_sessions(table, FileLock(directory.file("users")))

    @staticmethod
    def _listen(listen: Listen, directory: SharedDirectory, port: int, *, is_first: bool) -> MetricsServer:
        note = directory.file("port")
        known = note.read_text(encoding="ascii")
        if known and not is_first:
            return listen(int(known), beside_others=True)
        # Alone at first: beside others one would not notice that the port is some other service's.
        alone = listen(port, beside_others=False)
        alone.close()
        note.write_text(str(alone.port), encoding="ascii")
        return listen(alone.port, beside_others=True)


def _listen_alone(listen: Listen, port: int) -> MetricsServer:
    try:
        return listen(port, beside_others=False)
    except MetricsAddressError as error:
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EADDRINUSE:
            raise
        # The commonest reason by far, and another port for each worker would not help.
        raise MetricsAddressError(
            f"{error} If another worker of the same service has it, give all of them one shared_directory."
        ) from error.__cause__


def _outlives_its_worker(series: Series) -> bool:
    metric = BY_NAME.get(series.metric)
    return (
        metric is not None and metric.kind is not Kind.GAUGE and metric.over_workers is not OverWorkers.EACH
    )


def _is_gauge(series: Series) -> bool:
    """What is in progress is still so when the worker leaves, and ends in its own memory."""
    metric = BY_NAME.get(series.metric)
    return metric is not None and metric.kind is Kind.GAUGE


def _version(settings: ExporterSettings) -> str:
    """Workers whose metrics or closed lists differ cannot be added up."""
    # Workers of one service are told one address; two services with one directory by mistake are not.
    address = (settings.host, settings.port)
    lists = (settings.all_scenarios, settings.components, settings.models, sorted(settings.prices))
    told = repr((CATALOGUE, address, lists, settings.maximum_sessions))
    return hashlib.sha256(told.encode()).hexdigest()[:_VERSION_CHARACTERS]
