"""Every kind of alert that stands by itself in an objectives file; those of an objective stand in it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cmo_slo.alerts.budget import BudgetAlert
from cmo_slo.alerts.down import DownAlert
from cmo_slo.alerts.hanging import HangingAlert
from cmo_slo.alerts.level import LevelAlert
from cmo_slo.alerts.load_test import LoadTestAlert
from cmo_slo.alerts.no_traffic import NoTrafficAlert
from cmo_slo.alerts.restarts import RestartsAlert
from cmo_slo.alerts.rise import RiseAlert
from cmo_slo.alerts.scrape import ScrapeAlert
from cmo_slo.alerts.share import ShareAlert, SlowShareAlert
from cmo_slo.alerts.trend import TrendAlert
from cmo_slo.alerts.watchdog import WatchdogAlert

AnyAlert = Annotated[
    DownAlert
    | HangingAlert
    | NoTrafficAlert
    | BudgetAlert
    | ShareAlert
    | SlowShareAlert
    | LevelAlert
    | RiseAlert
    | TrendAlert
    | RestartsAlert
    | ScrapeAlert
    | LoadTestAlert
    | WatchdogAlert,
    Field(discriminator="kind"),
]
