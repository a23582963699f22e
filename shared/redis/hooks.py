"""What a pipeline reports to its process, and the error that it raises: this room imports nothing of ours."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shared.redis.errors import RedisUnavailable


def _ignore(*_: Any) -> None:
    """The default of every hook."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """`answered(commands, took_s)` after each pipeline; `failed(error name)` for each call that failed;
    `lost(pipeline)` and `recovered(pipeline)` when a Redis stops answering and answers again."""

    unavailable: type[RedisUnavailable] = RedisUnavailable
    answered: Callable[[int, float], None] = _ignore
    failed: Callable[[str], None] = _ignore
    lost: Callable[[object], None] = _ignore
    recovered: Callable[[object], None] = _ignore


NO_HOOKS = Hooks()
