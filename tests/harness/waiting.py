"""Waiting for a condition instead of sleeping: the only place in the tests that polls."""

import asyncio
import inspect
import time
from collections.abc import Callable

POLL_S = 0.01


async def wait_until(condition: Callable[[], object], *, within_s: float = 20, what: object = None) -> None:
    """Waits until `condition`, which may be a coroutine function, gives something true.

    Fails with `what` (a text, or a function that tells how things stand) after `within_s`.
    """
    deadline = time.monotonic() + within_s
    while True:
        response = condition()
        if inspect.isawaitable(response):
            response = await response
        if response:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {_told(what)}")
        await asyncio.sleep(POLL_S)


def block_until(condition: Callable[[], object], *, within_s: float = 20, what: object = None) -> None:
    """`wait_until` for fixtures that are no coroutines."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {_told(what)}")
        time.sleep(POLL_S)


def _told(what: object) -> object:
    return what() if callable(what) else what or "the condition"
