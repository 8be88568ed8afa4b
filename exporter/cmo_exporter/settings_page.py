"""The page that documents every setting, written from the code so that it cannot differ from it.

Run ``python -m cmo_exporter.settings_page docs/settings.md`` after a change of the settings; without a path
the page goes to standard output.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cmo_exporter.defaults import DEFAULT_PORT, PREFIX
from cmo_exporter.metrics_access import TOKEN_VARIABLE
from cmo_exporter.page_command import write_page
from cmo_exporter.settings import ExporterSettings, Price

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_HEAD: Final = f"""# Settings

<!-- Written by `python -m cmo_exporter.settings_page docs/settings.md` from the code; do not edit. -->

Every setting of an exporter, as in `Exporter(ExporterSettings(port={DEFAULT_PORT}))`. They are declared in
`exporter/cmo_exporter/settings.py`, from which this page is written.

- An exporter that is made for you, as by `instrument_fastapi(app)`, takes its settings from the environment:
  `{PREFIX}PORT` is `port`, and so on for every setting, [written as text](#how-values-are-written). Its
  port is {DEFAULT_PORT} unless that variable says otherwise. An exporter that you make yourself does not read
  these variables.
- [Some other variables](#other-variables) count for every exporter.
- A value that cannot work is a `SettingsError` when the settings are made, and so is a variable
  `{PREFIX}…` that is no setting. It says what was wrong, and what is expected."""

# By the first setting below it; the others follow in the order of the code.
_HEADINGS: Final = {
    "scenarios": "What is told apart, and prices",
    "host": "The metrics port",
    "session_idle_timeout_seconds": "Times",
    "version": "The service and its workers",
    "maximum_sessions": "Limits",
    "otlp_endpoint": "Traces and the query log",
    "input": "`Price`",
}
_SETTINGS_HEAD: Final = """
## {heading}

| setting | type | default | what it does |
|---|---|---|---|"""
_KINDS_HEAD: Final = """
## How values are written

Commas separate several values in a variable. An empty one is `None`, where that is allowed.

| type | in Python | in a variable |
|---|---|---|"""
_VARIABLES_HEAD: Final = """
## Other variables

OpenTelemetry itself reads more of its variables, if there are traces: [traces.md](traces.md).

| variable | what it does |
|---|---|"""

VARIABLES: Final[Mapping[str, str]] = {
    TOKEN_VARIABLE: "The bearer token that a scrape must show, where `metrics_token_file` is not set.",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "Whole URL that traces go to, where `otlp_endpoint` is not set.",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "Base URL of an OpenTelemetry collector, where neither of those is set.",
    "OTEL_SERVICE_NAME": "`service.name` of the traces; goes before `service_name`.",
    "OTEL_SDK_DISABLED": "`true` switches traces off, whatever else is set.",
}
"""Variables that the exporter reads, beside those of the settings, and what each does."""


class Kind(NamedTuple):
    """A type of settings in words, and an example of a value in Python and in a variable."""

    words: str
    in_python: str
    in_variable: str


KINDS: Final[Mapping[str, Kind]] = {
    "str": Kind("text", '"my-service"', "my-service"),
    "str | None": Kind("text or `None`", '"http://localhost:4318"', "http://localhost:4318"),
    "Path | None": Kind("path or `None`", 'Path("/run/my-service")', "/run/my-service"),
    "int": Kind("whole number", "9464", "9464"),
    "float": Kind("number", "0.25", "0.25"),
    "bool": Kind("`True` or `False`", "True", "true"),
    "tuple[str, ...]": Kind("names", '("lightrag", "perplexity")', "lightrag,perplexity"),
    "tuple[tuple[str, str, str], ...]": Kind(
        "models", '(("lightrag", "openai", "gpt-4o"),)', "lightrag:openai:gpt-4o"
    ),
    "Mapping[str, Price]": Kind("prices", '{"gpt-4o": Price(input=2.5, output=10)}', "gpt-4o=2.5/10"),
}
"""By the type in the code."""


def page() -> str:
    """The page, in Markdown."""
    kinds = [f"| {kind.words} | `{kind.in_python}` | `{kind.in_variable}` |" for kind in KINDS.values()]
    variables = [f"| `{name}` | {what} |" for name, what in VARIABLES.items()]
    settings = (*_settings(ExporterSettings), *_settings(Price))
    return "\n".join([_HEAD, *settings, _KINDS_HEAD, *kinds, _VARIABLES_HEAD, *variables]) + "\n"


def descriptions(documented: type) -> dict[str, str]:
    """What the docstring of a class says of each of its attributes, in Markdown."""
    _, _, attributes = (inspect.getdoc(documented) or "").partition("Attributes:\n")
    found: list[tuple[str, str]] = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", attributes, re.MULTILINE)
    return {name: _sentence(text) for name, text in found}


def main(arguments: Sequence[str]) -> int:
    """Write the page to the path given, or to standard output; returns the exit status."""
    return write_page(page(), arguments, module="cmo_exporter.settings_page")


def _settings(documented: type[ExporterSettings | Price]) -> Iterator[str]:
    described = descriptions(documented)
    for setting in dataclasses.fields(documented):
        if setting.name in _HEADINGS:
            yield _SETTINGS_HEAD.format(heading=_HEADINGS[setting.name])
        words = KINDS[str(setting.type)].words
        yield f"| `{setting.name}` | {words} | {_default(setting)} | {described[setting.name]} |"


def _default(setting: dataclasses.Field[Any]) -> str:
    if setting.default_factory is not dataclasses.MISSING:
        return f"`{setting.default_factory()!r}`"
    if setting.default is dataclasses.MISSING:
        return "none: it must be given"
    return f'`"{setting.default}"`' if isinstance(setting.default, str) else f"`{setting.default!r}`"


def _sentence(text: str) -> str:
    line = " ".join(text.split()).replace("``", "`")
    return line[0].upper() + line[1:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
