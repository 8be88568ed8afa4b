"""Which route a request matched, as its template: a path with ids in it would be a series for each id.

The match is read from the scope, where the router left it; searching the routes again is what makes other
instrumentations slow. FastAPI 0.137 and later keep the full template of a route from an included router in
``scope["fastapi"]``; mounts are seen by what they added to ``root_path``. Only of Starlette's own routes in a
FastAPI application the endpoint alone is left, and has to be searched for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from cmo_exporter.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, MutableMapping

    Scope = MutableMapping[str, Any]

UNMATCHED: Final = "unmatched"
_PARAMETER: Final = re.compile(r"{[^{}:]+(?::([^{}]+))?}")
_MOST_NESTED_MOUNTS: Final = 8
_MOST_KNOWN_MOUNTS: Final = 1000
_MOST_WRAPPERS: Final = 32


class RouteSet:
    """The routes that are queries, as templates (``/query``, ``/chats/{chat}/query``).

    Raises:
        SettingsError: one of them is no template.
    """

    def __init__(self, templates: Iterable[str]) -> None:
        templates = (templates,) if isinstance(templates, str) else tuple(templates)
        for template in templates:
            if not isinstance(template, str) or not template.startswith("/"):
                raise SettingsError(
                    f"query_routes holds {template!r}; a route begins with /, and with the prefixes of the "
                    "routers and mounts that it is under: /v1/chats/{chat}/query."
                )
        self.plain = frozenset(template for template in templates if "{" not in template)
        self._patterns = tuple(_pattern(template) for template in templates if "{" in template)

    @property
    def all_plain(self) -> bool:
        """Whether no template has a parameter."""
        return not self._patterns

    def __contains__(self, path: str) -> bool:
        return path in self.plain or any(pattern.fullmatch(path) for pattern in self._patterns)


class RouteTemplates:
    """Finds the templates of the routes that requests to one application have matched.

    Args:
        app: the outermost application, which holds the mounts.
    """

    def __init__(self, app: object) -> None:
        self._app = app
        # Their templates and the innermost application, by how the root path has grown. A mount with a
        # parameter grows it in ever new ways, so that not all can be kept: when there are too many, all are
        # found anew.
        self._known_mounts: dict[str, tuple[str, object]] = {"": ("", app)}

    def of(self, scope: Scope, root_path_at_arrival: str) -> str:
        """The template of the route that the request matched, or ``unmatched``.

        Args:
            scope: the request's scope, after the application has had it.
            root_path_at_arrival: the request's root path before the application had it.
        """
        route = matched_route(scope)
        path = None if _is_mount(route) else getattr(route, "path", None)
        root_path = scope.get("root_path", "")
        # FastAPI's own root path is put in on the way to the router, and is no mount.
        base = max(root_path_at_arrival, scope.get("app_root_path", ""), key=len)
        mounts, app = self._mounts(root_path[len(base) :])
        if path is None:
            path = _path_of_endpoint(app, scope)
        return f"{mounts}{path or ''}" or UNMATCHED

    def _mounts(self, grown: str) -> tuple[str, object]:
        """The templates of the mounts that made a root path grow, and the application that they lead to.

        The growth itself is no label value: a mount may have a parameter. Where no mount fits, it is left
        out.
        """
        known = self._known_mounts.get(grown)
        if known is None:
            known = _search_mounts(self._app, grown)
            if known[0]:
                if len(self._known_mounts) >= _MOST_KNOWN_MOUNTS:
                    self._known_mounts.clear()
                self._known_mounts[grown] = known
        return known


def matched_route(scope: Scope) -> object:
    """What the router has found, the same object each time: the route, or what an inclusion made of it."""
    fastapi = scope.get("fastapi")
    included = fastapi.get("effective_route_context") if fastapi else None
    return included if getattr(included, "path", None) else scope.get("route")


def path_in_app(scope: Scope) -> str:
    """The path without what a proxy or a mount has put before it."""
    path: str = scope.get("path", "")
    root: str = scope.get("root_path", "")
    if not root or not path.startswith(root):
        return path
    inner = path[len(root) :]
    # A root path of /api says nothing about a path of /apiary.
    return inner if inner.startswith("/") or not inner or root.endswith("/") else path


def _search_mounts(app: object, grown: str) -> tuple[str, object]:
    templates = ""
    for _ in range(_MOST_NESTED_MOUNTS):
        if not grown:
            break
        for route in _routes(app):
            match = _mount_match(route, grown)
            if match is not None:
                templates += str(route.path)
                grown = grown[:0] if not match["path"] else f"/{match['path'].rstrip('/')}"
                app = route
                break
        else:
            break
    return templates, app


def _path_of_endpoint(app: object, scope: Scope) -> str | None:
    """The template of the route of an application that leads to the endpoint of a request."""
    endpoint, path = scope.get("endpoint"), path_in_app(scope)
    if endpoint is None:
        return None
    found = (route for route in _routes(app) if getattr(route, "endpoint", None) is endpoint)
    return next((str(route.path) for route in found if route.path_regex.match(path)), None)


def _routes(app: object) -> Iterator[Any]:
    """The routes of an application, those of included routers too, whatever middleware it is wrapped in."""
    for _ in range(_MOST_WRAPPERS):
        routes: Iterable[Any] | None = getattr(app, "routes", None)
        if routes:
            for route in routes:
                included = getattr(route, "effective_route_contexts", None)
                if included is None:
                    yield route
                else:
                    yield from (context.starlette_route or context for context in included())
            return
        app = getattr(app, "app", None)


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
