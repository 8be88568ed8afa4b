"""The published schemas of Kubernetes 1.32 and of the Prometheus Operator 0.80, as strict as they can be.

They come from packages of models that were generated from them. An API server drops a field that it does not
know without a word, or refuses the object; here it is always a complaint. Two things are added, as the
Operator itself checks them: the patterns of durations, which the packages have lost, and child routes, which
the schema leaves open because it cannot refer to itself. Rules in CEL and most lists of words are lost.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator

if TYPE_CHECKING:
    from collections.abc import Mapping

_OPERATOR = "cloudcoil.models.prometheus_operator"
_MODULES = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): f"{_OPERATOR}.v1",
    ("monitoring.coreos.com/v1", "PrometheusRule"): f"{_OPERATOR}.v1",
    ("monitoring.coreos.com/v1", "Alertmanager"): f"{_OPERATOR}.v1",
    ("monitoring.coreos.com/v1", "Prometheus"): f"{_OPERATOR}.v1",
    ("monitoring.coreos.com/v1alpha1", "AlertmanagerConfig"): f"{_OPERATOR}.v1alpha1",
    ("batch/v1", "CronJob"): "cloudcoil.models.kubernetes.batch.v1",
    ("v1", "ConfigMap"): "cloudcoil.models.kubernetes.core.v1",
    ("v1", "Secret"): "cloudcoil.models.kubernetes.core.v1",
    ("v1", "Service"): "cloudcoil.models.kubernetes.core.v1",
}
_DURATION = r"^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$"
_DURATIONS = (
    "interval",
    "scrapeTimeout",
    "groupWait",
    "groupInterval",
    "repeatInterval",
    "for",
    "keep_firing_for",
)


def complaints(manifest: Mapping[str, Any]) -> list[str]:
    """What is wrong with a manifest, a line each: where, and what. An unknown kind is a complaint."""
    kind = (manifest.get("apiVersion", ""), manifest.get("kind", ""))
    if kind not in _MODULES:
        return [f"apiVersion, kind: {kind} is unknown here"]
    errors = sorted(_validator(*kind).iter_errors(manifest), key=lambda error: error.json_path)
    return [f"{error.json_path}: {error.message}" for error in errors]


@cache
def _validator(api_version: str, kind: str) -> Draft202012Validator:
    model = getattr(importlib.import_module(_MODULES[api_version, kind]), kind)
    schema = _strict(model.model_json_schema(by_alias=True))
    schema["required"] = sorted({"apiVersion", "kind", "metadata", *schema.get("required", ())})
    if kind == "AlertmanagerConfig":
        children = schema["$defs"]["Route"]["properties"]["routes"]
        assert children["items"] == {}, "the schema of child routes is no longer open: take this out"
        children["items"] = {"$ref": "#/$defs/Route"}
    return Draft202012Validator(schema)


def _strict(schema: Any) -> Any:
    """The same without fields that it does not name, without null, and with patterns of durations."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items() if key != "default"}
    if "anyOf" in strict:
        real = [one for one in strict.pop("anyOf") if one != {"type": "null"}]
        strict.update(real[0] if len(real) == 1 else {"anyOf": real})
    if "properties" in strict:
        strict.setdefault("additionalProperties", False)
        for name in _DURATIONS:
            if strict["properties"].get(name, {}).get("type") == "string":
                strict["properties"][name]["pattern"] = _DURATION
    return strict
