"""Small copies, in our own words, of what three generators of burn-rate alerts emit for a target."""

from __future__ import annotations

from typing import Any

from .checking import group, record, rule_file


def sloth(target: float) -> str:
    """Sloth: a recorded ratio a window, and a page of two ORed pairs of windows."""
    budget = f"{1 - target:g}"
    ratio = "slo:sli_error:ratio_rate"
    sloth_id = '{sloth_id="shop-availability", sloth_service="shop", sloth_slo="availability"}'
    labels = {"sloth_id": "shop-availability", "sloth_service": "shop", "sloth_slo": "availability"}
    ratios = [
        record(
            f"{ratio}{window}",
            f'(sum(rate(http_requests_total{{job="shop",code=~"(5..|429)"}}[{window}])))\n/\n'
            f'(sum(rate(http_requests_total{{job="shop"}}[{window}])))',
            sloth_window=window,
            **labels,
        )
        for window in ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
    ]
    month = record(
        "slo:sli_error:ratio_rate30d",
        f"sum_over_time(slo:sli_error:ratio_rate5m{sloth_id}[30d])\n"
        f"/ ignoring (sloth_window)\n"
        f"count_over_time(slo:sli_error:ratio_rate5m{sloth_id}[30d])",
        sloth_window="30d",
        **labels,
    )
    meta = [
        record("slo:objective:ratio", f"vector({target:g})", **labels),
        record("slo:error_budget:ratio", f"vector(1-{target:g})", **labels),
        record(
            "slo:current_burn_rate:ratio",
            f"slo:sli_error:ratio_rate5m{sloth_id}\n/ on(sloth_id, sloth_slo, sloth_service) group_left\n"
            f"slo:error_budget:ratio{sloth_id}",
            **labels,
        ),
    ]

    def pair(short: str, long: str, factor: float) -> str:
        return "\nand\n".join(
            f"max({ratio}{window}{sloth_id} > ({factor:g} * {budget})) without (sloth_window)"
            for window in (short, long)
        )

    page = {
        "alert": "ShopAvailability",
        "expr": f"({pair('5m', '1h', 14.4)})\nor\n({pair('30m', '6h', 6)})",
        "labels": {"severity": "page"},
        "annotations": {"summary": "{{$labels.sloth_service}} burns its error budget."},
    }
    ticket = {
        "alert": "ShopAvailability",
        "expr": f"({pair('2h', '1d', 3)})\nor\n({pair('6h', '3d', 1)})",
        "labels": {"severity": "ticket"},
        "annotations": {"summary": "{{$labels.sloth_service}} burns its error budget."},
    }
    return rule_file(
        group(*ratios, month, name="sloth-slo-sli-recordings-shop-availability"),
        group(*meta, name="sloth-slo-meta-recordings-shop-availability"),
        group(page, ticket, name="sloth-slo-alerts-shop-availability"),
    )


def pyrra(target: float) -> str:
    """Pyrra: a recorded burn rate a window, and four alerts of one name that differ in their labels."""
    windows = (("5m", "1h", 14, "2m", "critical"), ("30m", "6h", 7, "15m", "critical"),
               ("2h", "1d", 2, "1h", "warning"), ("6h", "4d", 1, "3h", "warning"))  # fmt: skip
    lengths = dict.fromkeys(window for pair in windows for window in pair[:2])
    rates = [
        record(
            f"http_requests:burnrate{window}",
            f'sum(rate(http_requests_total{{code=~"5..",job="shop"}}[{window}])) '
            f'/ sum(rate(http_requests_total{{job="shop"}}[{window}]))',
            job="shop",
            slo="shop-errors",
        )
        for window in lengths
    ]
    alerts: list[dict[str, Any]] = []
    for short, long, factor, hold, severity in windows:
        sides = [
            f'http_requests:burnrate{window}{{job="shop",slo="shop-errors"}} > ({factor} * (1-{target:g}))'
            for window in (short, long)
        ]
        alerts.append(
            {
                "alert": "ErrorBudgetBurn",
                "expr": " and ".join(sides),
                "for": hold,
                "labels": {
                    "job": "shop",
                    "slo": "shop-errors",
                    "severity": severity,
                    "short": short,
                    "long": long,
                },
            }
        )
    return rule_file(group(*rates, *alerts, name="shop-errors", interval="30s"))


def kubernetes_mixin(target: float) -> str:
    """kubernetes-mixin: slow or failed of all, per verb, added up over the verbs in its alerts."""
    budget = f"{1 - target:.5f}"
    rates = []
    for verb, verbs in (("read", "LIST|GET"), ("write", "POST|PUT|PATCH|DELETE")):
        for window in ("5m", "30m", "1h", "6h"):
            of_verb = f'job="apiserver",verb=~"{verbs}"'
            total = "apiserver_request_total"
            duration = "apiserver_request_sli_duration_seconds"
            rates.append(
                record(
                    f"apiserver_request:burnrate{window}",
                    f"(\n(sum by (cluster) (rate({duration}_count{{{of_verb}}}[{window}]))\n"
                    f'- sum by (cluster) (rate({duration}_bucket{{{of_verb},le="1"}}[{window}])))\n'
                    f'+ sum by (cluster) (rate({total}{{{of_verb},code=~"5.."}}[{window}]))\n)\n'
                    f"/ sum by (cluster) (rate({total}{{{of_verb}}}[{window}]))",
                    verb=verb,
                )
            )
    alerts = [
        {
            "alert": "KubeAPIErrorBudgetBurn",
            "expr": f"sum by (cluster) (apiserver_request:burnrate{long}) > ({factor:.2f} * {budget})\n"
            f"and on (cluster)\n"
            f"sum by (cluster) (apiserver_request:burnrate{short}) > ({factor:.2f} * {budget})",
            "for": hold,
            "labels": {"severity": "critical", "short": short, "long": long},
        }
        for short, long, factor, hold in (("5m", "1h", 14.4, "2m"), ("30m", "6h", 6, "15m"))
    ]
    return rule_file(
        group(*rates, name="kube-apiserver-burnrate.rules"), group(*alerts, name="kube-apiserver-slos")
    )
