"""What a pipeline reports to its process, and the error it raises: this room imports nothing of ours."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class RedisUnavailable(Exception):
    """Redis cannot execute a command now. It is unknown whether a write was executed."""

    def __init__(self, *, why: str) -> None:
        super().__init__(f"Redis is unavailable: {why}")


def _ignore(*_: Any) -> None:
    """The default of every hook."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """`unavailable` is the class of the error that a pipeline raises.

    `on_reply(commands, took_s)` runs after each pipeline, `on_error(error name)` after each failed command,
    `on_lost(pipeline)` and `on_recovered(pipeline)` when a Redis stops replying and when it replies again.
    """

    unavailable: type[RedisUnavailable] = RedisUnavailable
    on_reply: Callable[[int, float], None] = _ignore
    on_error: Callable[[str], None] = _ignore
    on_lost: Callable[[object], None] = _ignore
    on_recovered: Callable[[object], None] = _ignore


NO_HOOKS = Hooks()
