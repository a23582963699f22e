"""Caddy with the deployed Caddyfile, in front of an installation of plain processes."""

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.files import DEPLOY
from tests.harness.processes import Process, free_port
from tests.harness.stack import Stack
from tests.harness.waiting import block_until

CADDY = Path(sys.executable).with_name("caddy")


@dataclass
class Behind:
    """An installation behind a proxy: the API's origin, and Blackhole's."""

    stack: Stack
    origin: str
    blackhole: str


@contextlib.contextmanager
def behind_caddy(stack: Stack) -> Iterator[Behind]:
    """Runs Caddy for this installation's gateways and edges."""
    edges, gateways = ([each.url for each in services] for services in (stack.edges, stack.gateways))
    with caddy_to(edges=edges, gateways=gateways) as (origin, blackhole):
        yield Behind(stack, origin, blackhole)


@contextlib.contextmanager
def caddy_to(*, edges: Sequence[str], gateways: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Runs Caddy for processes with these URLs; the API's origin, and Blackhole's."""
    folder = Path(tempfile.mkdtemp(prefix="notify-caddy-"))
    ports = {"API_ADDRESS": free_port(), "BLACKHOLE_ADDRESS": free_port()}
    env = {
        "HOME": str(folder),
        "EDGES": " ".join(url.removeprefix("http://") for url in edges),
        "GATEWAYS": " ".join(url.removeprefix("http://") for url in gateways),
        **{name: f"http://:{port}" for name, port in ports.items()},
    }
    config = str(DEPLOY / "proxy" / "Caddyfile")
    command = [str(CADDY), "run", "--adapter", "caddyfile", "--config", config]
    proxy = Process("caddy", command, folder=folder, env=env)
    try:
        proxy.start()
        block_until(lambda: "serving initial configuration" in proxy.stderr, what=lambda: proxy.tail)
        yield f"http://127.0.0.1:{ports['API_ADDRESS']}", f"http://127.0.0.1:{ports['BLACKHOLE_ADDRESS']}"
    finally:
        proxy.close()
        shutil.rmtree(folder, ignore_errors=True)
