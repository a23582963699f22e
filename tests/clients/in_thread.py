"""Calls blocking clients from async tests."""

import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from tests.harness.waiting import wait_until

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(call: Callable[P, T], /, *arguments: P.args, **options: P.kwargs) -> T:
    """Runs the call in a daemon thread for at most 20 s; returns its result.

    A call that hangs fails its test and does not block the end of the run.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call(*arguments, **options))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    await wait_until(lambda: not thread.is_alive(), what=f"the end of {call}")
    if errors:
        raise errors[0]
    return results[0]
