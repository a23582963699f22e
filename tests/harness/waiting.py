"""Waiting for a condition instead of sleeping; the only place in the tests that polls."""

import asyncio
import inspect
import time
from collections.abc import Callable

POLL_S = 0.01


async def wait_until(condition: Callable[[], object], *, within_s: float = 20, what: object = None) -> None:
    """Waits until `condition`, a function or coroutine function, returns something true.

    Fails after `within_s`; the message has `what`, a text or a function that returns one.
    """
    deadline = time.monotonic() + within_s
    while True:
        response = condition()
        if inspect.isawaitable(response):
            response = await response
        if response:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {_text(what)}")
        await asyncio.sleep(POLL_S)


def block_until(condition: Callable[[], object], *, within_s: float = 20, what: object = None) -> None:
    """`wait_until` for synchronous fixtures."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {_text(what)}")
        time.sleep(POLL_S)


def _text(what: object) -> object:
    return what() if callable(what) else what or "the condition"
