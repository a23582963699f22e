"""Starts a gateway for the demo in a temporary folder on a free port."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.harness.processes import Service
from tests.harness.waiting import wait_until

_START_LIMIT_S = 60
_STOP_LIMIT_S = 15


@dataclass(frozen=True, slots=True)
class Stack:
    """A running gateway: URL and admin token."""

    url: str
    admin_token: str


class StackFailed(Exception):
    """The gateway did not start, is unavailable for too long, or refused a request."""


@asynccontextmanager
async def own_stack() -> AsyncIterator[Stack]:
    """Starts all services in one process; stops it at the end."""
    with TemporaryDirectory(prefix="notify-demo-", ignore_cleanup_errors=True) as name:
        folder, admin_token = Path(name), secrets.token_hex(16)
        settings = {"DATA_DIR": folder / "data", "ADMIN_TOKEN": admin_token}
        service = Service("stack", "all", folder=folder, settings=settings)
        service.start()
        try:
            await wait_until(lambda: service.ready, within_s=_START_LIMIT_S, what=lambda: service.tail)
            yield Stack(service.url, admin_token)
        finally:
            await _end(service)


async def _end(service: Service) -> None:
    """Stops the process and its Valkey; kills it only if it does not stop."""
    try:
        if service.alive:
            service.terminate()
            await wait_until(lambda: service.ended, within_s=_STOP_LIMIT_S, what="the process to exit")
    finally:
        service.close()
