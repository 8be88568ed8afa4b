"""Which route a request matched, as its template: a path with ids in it would be a series for each id.

The match is read from the scope, where the router left it; searching the routes again is what makes other
instrumentations slow. FastAPI 0.137 and later keep the full template of a route from an included router in
``scope["fastapi"]``; mounts are seen by what they added to ``root_path``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

    Scope = MutableMapping[str, Any]

UNMATCHED: Final = "unmatched"
_PARAMETER: Final = re.compile(r"{[^{}:]+(?::([^{}]+))?}")
_MOST_NESTED_MOUNTS: Final = 8


class RouteSet:
    """The routes that are queries, as templates (``/query``, ``/chats/{chat}/query``)."""

    def __init__(self, templates: Iterable[str]) -> None:
        templates = tuple(templates)
        self._plain = frozenset(template for template in templates if "{" not in template)
        self._patterns = tuple(_pattern(template) for template in templates if "{" in template)

    def __contains__(self, path: str) -> bool:
        return path in self._plain or any(pattern.fullmatch(path) for pattern in self._patterns)


def path_in_app(scope: Scope) -> str:
    """The path without what a proxy or a mount has put before it."""
    path = str(scope.get("path", ""))
    root = str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(root) else path


def route_template(scope: Scope, app: object, root_path_at_arrival: str) -> str:
    """The template of the route that the request matched, or ``unmatched``.

    Args:
        scope: the request's scope, after the application has had it.
        app: the outermost application, which holds the mounts.
        root_path_at_arrival: the request's root path before the application had it.
    """
    context = (scope.get("fastapi") or {}).get("effective_route_context")
    route = scope.get("route")
    path = getattr(context, "path", None) or (None if _is_mount(route) else getattr(route, "path", None))
    grown = str(scope.get("root_path", ""))[len(root_path_at_arrival) :]
    template = f"{_mounts(app, grown)}{path or ''}"
    return template or UNMATCHED


def _mounts(app: object, grown: str) -> str:
    """The templates of the mounts that made a root path grow.

    The growth itself is no label value: a mount may have a parameter. Where no mount fits, it is left out.
    """
    templates = ""
    for _ in range(_MOST_NESTED_MOUNTS):
        if not grown:
            break
        for route in getattr(app, "routes", ()):
            match = _mount_match(route, grown)
            if match is not None:
                templates += str(route.path)
                grown = grown[:0] if not match["path"] else f"/{match['path'].rstrip('/')}"
                app = route
                break
        else:
            break
    return templates


def _is_mount(route: object) -> bool:
    return hasattr(route, "routes") and hasattr(route, "path_regex")


def _mount_match(route: Any, grown: str) -> re.Match[str] | None:
    if not _is_mount(route):
        return None
    found: re.Match[str] | None = route.path_regex.match(f"{grown}/")
    return found


def _pattern(template: str) -> re.Pattern[str]:
    pieces: list[str] = []
    last = 0
    for parameter in _PARAMETER.finditer(template):
        pieces.append(re.escape(template[last : parameter.start()]))
        pieces.append(".+" if parameter[1] == "path" else "[^/]+")
        last = parameter.end()
    pieces.append(re.escape(template[last:]))
    return re.compile("".join(pieces))
