"""What became of requests that carry an Idempotency-Key: running, or answered within the last day."""

from dataclasses import dataclass
from enum import StrEnum

from shared.model.idempotency import Repeatable
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace

# A killed gateway blocks a key for as long; one that lives renews the mark well before.
RUNNING_S = 10.0
_ANSWER_S = 24 * 60 * 60.0


class Begun(StrEnum):
    """What the store knew of a request when it was to begin."""

    BEGUN = "begun"
    RUNNING = "running"
    ANSWERED = "answered"
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True)
class Beginning:
    """`answer` is what `keep` was given, when that is what was found."""

    found: Begun
    answer: bytes = b""


class Idempotency:
    """Begins and ends requests. `runner` is one attempt's own random name."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis

    async def begin(self, request: Repeatable, *, runner: str) -> Beginning:
        """BEGUN: the request is the runner's for RUNNING_S, and for as long again by each further call."""
        word, *answer = await self._redis.script(
            "idempotency_begin", _names(request), runner, request.fingerprint, _ms(RUNNING_S)
        )
        return Beginning(Begun(word.decode()), *answer)

    async def keep(self, request: Repeatable, answer: bytes, *, runner: str) -> bool:
        """Keeps the answer for a day; False when another runner has begun or answered meanwhile."""
        assert answer, "an empty answer would free the key"
        return await self._end(request, answer, runner) == b"kept"

    async def free(self, request: Repeatable, *, runner: str) -> bool:
        """The request may begin anew; False when another runner has begun or answered meanwhile."""
        return await self._end(request, b"", runner) == b"freed"

    async def _end(self, request: Repeatable, answer: bytes, runner: str) -> bytes:
        word: bytes = await self._redis.script(
            "idempotency_end", _names(request), runner, request.fingerprint, answer, _ms(_ANSWER_S)
        )
        return word


def _names(request: Repeatable) -> list[str]:
    return [keyspace.idempotency(request.api_key_id, request.idempotency_key)]


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
