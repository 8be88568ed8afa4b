"""Asking a Prometheus what the panels ask, as Grafana would.

A range is asked for as a subquery at its end: it has the steps of a range query and the same ``@ end()``, and
the checker's client, which knows instant queries alone, says what is wrong with a data source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cmo_slo.prometheus import Credentials, DataSourceError, Prometheus

from cmo_dashboards.live import Answer, QueryRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cmo_dashboards.live import Premise
    from cmo_dashboards.queries import Macros, PanelQuery

_SETTLED_SECONDS: Final = 2.0
"""Rules record one series after the other: this long ago none of a ratio's is missing."""


class Asker(Prometheus):
    """A client of one Prometheus that answers panels; a context manager.

    Args:
        url: base address of Prometheus; credentials come from the environment, as for `cmo check`.
        macros: the range that is asked for, and its step.
    """

    def __init__(self, url: str, macros: Macros) -> None:
        super().__init__(url, credentials=Credentials.from_environment())
        self._macros = macros
        self._moment: float | None = None

    def require(self, premises: Iterable[Premise]) -> None:
        """Ask whether the answers of this Prometheus would prove anything.

        Raises:
            DataSourceError: they would not, or it does not answer at all.
        """
        amiss = [
            premise.otherwise
            for premise in premises
            if not self._query(premise.expression, "vector", time=self._at())
        ]
        if amiss:
            raise DataSourceError(
                f"{self.url} answers, and its answers prove nothing: {'; '.join(amiss)}. Is it the "
                "Prometheus of this service?"
            )

    def ask(self, query: PanelQuery) -> Answer:
        """The series that a panel would draw at the moment of the first question.

        Raises:
            QueryRefusedError: Prometheus does not answer this query.
            DataSourceError: Prometheus does not answer at all.
        """
        try:
            at = self._at()
            if query.instant:
                result = self._query(query.expression, "vector", time=at)
                return [_series(entry, [entry["value"]]) for entry in result]
            over = f"({query.expression})[{self._macros.range}:{self._macros.interval}]"
            return [_series(entry, entry["values"]) for entry in self._query(over, "matrix", time=at)]
        except DataSourceError as error:
            self.now()  # if not even this is answered, it is not the query
            raise QueryRefusedError(str(error)) from error
        except (KeyError, TypeError, ValueError) as error:
            raise DataSourceError(
                f"{self.url} answered {query.expression} in a form that is not Prometheus's. Is it a proxy "
                "that changes answers, or another product?"
            ) from error

    def _at(self) -> str:
        """The one moment of all questions, so that what is counted in two places is the same."""
        if self._moment is None:
            self._moment = self.now() - _SETTLED_SECONDS
        return f"{self._moment:.3f}"


def _series(entry: dict[str, Any], samples: list[Any]) -> tuple[dict[str, str], list[float]]:
    return dict(entry["metric"]), [float(value) for _, value in samples]
