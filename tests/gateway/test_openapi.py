"""The document names every route and nothing else."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import schemathesis
from starlette.routing import BaseRoute, Match, Route

from services.gateway.app import DOCUMENT, ROUTES
from services.socket_edge.app import plain_routes
from services.socket_edge.edge import Edge
from shared.runtime.http.health import health_routes
from shared.version import VERSION

SERVED: list[BaseRoute] = [
    *ROUTES,
    *plain_routes(cast(Edge, None)),
    *health_routes(lambda: True, detail=str, metrics_port=None),
]


def served() -> Iterator[tuple[Route, str]]:
    """Every route with each of its methods; GET implies HEAD."""
    for route in SERVED:
        assert isinstance(route, Route)
        assert route.methods
        yield from ((route, method) for method in sorted(route.methods - {"HEAD"}))


def documented() -> Iterator[tuple[str, str]]:
    for path, item in DOCUMENT["paths"].items():
        yield from ((path, method.upper()) for method in item)


def serves(route: BaseRoute, path: str, method: str) -> bool:
    # Ids of attempts have a form of their own.
    example = path.replace("{delivery}", "1-0").replace("{", "a").replace("}", "b")
    scope = {"type": "http", "path": example, "root_path": "", "method": method}
    return route.matches(scope)[0] is Match.FULL


def test_every_route_is_documented() -> None:
    missing = [
        f"{method} {route.path}"
        for route, method in served()
        if not any(method == verb and serves(route, path, verb) for path, verb in documented())
    ]
    assert missing == []


def test_nothing_else_is_documented() -> None:
    routes = [route for route, _ in served()]
    unserved = [
        f"{method} {path}"
        for path, method in documented()
        if not any(serves(route, path, method) for route in routes)
    ]
    assert unserved == []


def test_the_document_is_valid() -> None:
    schemathesis.openapi.from_dict(DOCUMENT).validate()


def test_operations_have_unique_names() -> None:
    operations: list[Any] = [each for item in DOCUMENT["paths"].values() for each in item.values()]
    names = [each["operationId"] for each in operations]

    assert len(set(names)) == len(names) > 30
    assert all(each["summary"] for each in operations)


def test_version_is_that_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())

    assert project["project"]["version"] == VERSION
