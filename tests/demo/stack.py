"""A stack of the demo's own, in a temporary folder and on a free port, for those who have none running."""

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
    """Where a stack answers, and what its administrator proves itself by."""

    url: str
    admin_token: str


class StackFailed(Exception):
    """A stack did not start, is away for too long, or refused what the demo needs."""


@asynccontextmanager
async def own_stack() -> AsyncIterator[Stack]:
    """Starts everything in one process, and ends it however the block is left."""
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
    """Lets it stop in good order, Valkey too; only one that does not is killed."""
    try:
        if service.alive:
            service.terminate()
            await wait_until(lambda: service.ended, within_s=_STOP_LIMIT_S, what="the stack has ended")
    finally:
        service.close()
