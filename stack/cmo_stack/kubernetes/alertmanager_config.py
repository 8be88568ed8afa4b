"""``alertmanager/production.yml`` as an ``AlertmanagerConfig`` of the Prometheus Operator.

The routes, inhibitions and receivers of both are the same because one is made from the other. A field that
has no counterpart here is an error and never left out: an inhibition that was dropped without a word would
wake people.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from cmo_stack.exit_status import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    _Spelling = tuple[str, Callable[[str, Any], Any]]

_SECRET_NAME: Final = "cmo-alertmanager"  # noqa: S105 - the name of the Secret, and nothing secret
"""The ``Secret`` that holds, a key each, what the plain configuration reads from files."""

CONFIG_NAME: Final = "cmo"
"""The name by which ``Alertmanager`` refers to the configuration."""

_MATCHER: Final = re.compile(r'^(?P<name>[a-zA-Z_]\w*)(?P<type>=~|!~|!=|=)"(?P<value>[^"\\]*)"$')


class NotInCustomResourceError(Exception):
    """A part of Alertmanager's configuration has no counterpart here."""

    exit_status = ExitStatus.USAGE


def alertmanager_config(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest that says what a plain configuration of Alertmanager says.

    It has to be the Alertmanager's own (``spec.alertmanagerConfiguration``): elsewhere the Operator adds a
    matcher of the namespace to each route, which alerts on the whole service do not have. Templates are not
    part of it; the ``Alertmanager`` names them.

    Raises:
        NotInCustomResourceError: the configuration holds a field that has no counterpart.
    """
    smtp = _translated("global", configuration.get("global", {}), _SMTP)
    receivers = [_receiver(receiver, smtp) for receiver in configuration["receivers"]]
    rest = {
        key: value for key, value in configuration.items() if key not in ("global", "receivers", "templates")
    }
    return {
        "apiVersion": "monitoring.coreos.com/v1alpha1",
        "kind": "AlertmanagerConfig",
        "metadata": {"name": CONFIG_NAME, "labels": {"app.kubernetes.io/name": "cmo-observability"}},
        "spec": {**_translated("", rest, _CONFIGURATION), "receivers": receivers},
    }


def _translated(place: str, plain: Mapping[str, Any], spellings: Mapping[str, _Spelling]) -> dict[str, Any]:
    translated = {}
    for key, value in plain.items():
        where = f"{place}.{key}" if place else key
        if key not in spellings:
            raise NotInCustomResourceError(
                f"{where}: it is not known what this field of Alertmanager's configuration is called in an "
                f"AlertmanagerConfig. Expected one of {', '.join(sorted(spellings))}. Leave it out, or "
                "say in cmo_stack/kubernetes/alertmanager_config.py what it is called there."
            )
        name, convert = spellings[key]
        translated[name] = convert(where, value)
    return translated


def _receiver(receiver: Mapping[str, Any], smtp: Mapping[str, Any]) -> dict[str, Any]:
    """One receiver; what is global of mail in the plain configuration stands in each mail here."""
    translated = _translated("receivers", receiver, _RECEIVER)
    if "emailConfigs" in translated:
        translated["emailConfigs"] = [{**smtp, **email} for email in translated["emailConfigs"]]
    return translated


def _as_it_is(_place: str, value: Any) -> Any:
    return value


def _each(fields: Callable[[], Mapping[str, _Spelling]]) -> Callable[[str, Any], Any]:
    return lambda place, values: [_translated(place, value, fields()) for value in values]


def _one(fields: Callable[[], Mapping[str, _Spelling]]) -> Callable[[str, Any], Any]:
    return lambda place, value: _translated(place, value, fields())


def _matchers(place: str, matchers: list[str]) -> list[dict[str, str]]:
    found = []
    for text in matchers:
        matcher = _MATCHER.match(text)
        if matcher is None:
            raise NotInCustomResourceError(
                f"{place}: {text!r} is no matcher that is understood here; expected for example "
                "'severity=\"page\"', without spaces or backslashes."
            )
        found.append({"name": matcher["name"], "matchType": matcher["type"], "value": matcher["value"]})
    return found


def _key_of_secret(_place: str, file: str) -> dict[str, str]:
    """The file of a secret as a key of the one ``Secret``: the names stay those of the documentation."""
    return {"name": _SECRET_NAME, "key": PurePosixPath(file).name}


def _pairs(_place: str, values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _same(*names: str) -> dict[str, _Spelling]:
    """Fields that have the same name, but for its spelling: ``group_by`` is ``groupBy``."""
    return {name: (_camel_case(name), _as_it_is) for name in names}


def _camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)


_ROUTE: Final[Mapping[str, _Spelling]] = {
    **_same("receiver", "group_by", "group_wait", "group_interval", "repeat_interval", "continue"),
    "matchers": ("matchers", _matchers),
    "routes": ("routes", _each(lambda: _ROUTE)),
}
_INHIBITION: Final[Mapping[str, _Spelling]] = {
    "source_matchers": ("sourceMatch", _matchers),
    "target_matchers": ("targetMatch", _matchers),
    "equal": ("equal", _as_it_is),
}
_CONFIGURATION: Final[Mapping[str, _Spelling]] = {
    "route": ("route", _one(lambda: _ROUTE)),
    "inhibit_rules": ("inhibitRules", _each(lambda: _INHIBITION)),
}
_SMTP: Final[Mapping[str, _Spelling]] = {
    "smtp_smarthost": ("smarthost", _as_it_is),
    "smtp_from": ("from", _as_it_is),
    "smtp_auth_username": ("authUsername", _as_it_is),
    "smtp_auth_password_file": ("authPassword", _key_of_secret),
    "smtp_require_tls": ("requireTLS", _as_it_is),
}
_PAGERDUTY: Final[Mapping[str, _Spelling]] = {
    **_same("send_resolved", "url", "severity", "class", "component", "group", "description", "client"),
    "routing_key_file": ("routingKey", _key_of_secret),
    "client_url": ("clientURL", _as_it_is),
    "details": ("details", _pairs),
}
_SLACK: Final[Mapping[str, _Spelling]] = {
    **_same("send_resolved", "color", "title", "title_link", "fallback", "text"),
    "api_url_file": ("apiURL", _key_of_secret),
}
_EMAIL: Final[Mapping[str, _Spelling]] = {
    **_same("to", "send_resolved", "text", "html"),
    "headers": ("headers", _pairs),
}
_AUTHORIZATION: Final[Mapping[str, _Spelling]] = {
    "type": ("type", _as_it_is),
    "credentials_file": ("credentials", _key_of_secret),
}
_HTTP: Final[Mapping[str, _Spelling]] = {"authorization": ("authorization", _one(lambda: _AUTHORIZATION))}
_WEBHOOK: Final[Mapping[str, _Spelling]] = {
    **_same("url", "send_resolved"),
    "http_config": ("httpConfig", _one(lambda: _HTTP)),
}
_RECEIVER: Final[Mapping[str, _Spelling]] = {
    "name": ("name", _as_it_is),
    "pagerduty_configs": ("pagerdutyConfigs", _each(lambda: _PAGERDUTY)),
    "slack_configs": ("slackConfigs", _each(lambda: _SLACK)),
    "email_configs": ("emailConfigs", _each(lambda: _EMAIL)),
    "webhook_configs": ("webhookConfigs", _each(lambda: _WEBHOOK)),
}
