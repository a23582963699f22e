"""Clients that block, called from a test that must not."""

import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from tests.harness.waiting import wait_until

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(call: Callable[P, T], /, *arguments: P.args, **options: P.kwargs) -> T:
    """What the call gives, which may take 20 s.

    In a daemon thread of its own: one that hangs fails its test, and does not hold up the end of the run.
    """
    given: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            given.append(call(*arguments, **options))
        except BaseException as fault:
            raised.append(fault)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    await wait_until(lambda: not thread.is_alive(), what=f"an answer of {call}")
    if raised:
        raise raised[0]
    return given[0]
