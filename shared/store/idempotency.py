"""Requests with an Idempotency-Key: running, or answered within the last day."""

from dataclasses import dataclass
from enum import StrEnum

from shared.model.idempotency import Repeatable
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace

# A killed gateway blocks its key this long; a live one renews the mark well before.
RUNNING_S = 10.0
_RESPONSE_TTL_MS = 24 * 60 * 60 * 1000


class RequestState(StrEnum):
    """The state of a request when it was to begin."""

    BEGUN = "begun"
    RUNNING = "running"
    ANSWERED = "answered"
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True)
class BeginResult:
    """`response` is what `keep` stored, when the state is ANSWERED."""

    state: RequestState
    response: bytes = b""


class Idempotency:
    """Begins and ends requests. `runner` is a random name of one attempt."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis

    async def begin(self, request: Repeatable, *, runner: str) -> BeginResult:
        """BEGUN: the runner has the request for RUNNING_S, and each further call renews that."""
        status, *response = await self._redis.script(
            "idempotency_begin", _names(request), runner, request.fingerprint, int(RUNNING_S * 1000)
        )
        return BeginResult(RequestState(status.decode()), *response)

    async def keep(self, request: Repeatable, response: bytes, *, runner: str) -> bool:
        """Keeps the response for a day; False when another runner has begun or answered since."""
        assert response, "an empty response would free the key"
        return await self._end(request, response, runner) == b"kept"

    async def free(self, request: Repeatable, *, runner: str) -> bool:
        """Lets the request begin anew; False when another runner has begun or answered since."""
        return await self._end(request, b"", runner) == b"freed"

    async def _end(self, request: Repeatable, response: bytes, runner: str) -> bytes:
        status: bytes = await self._redis.script(
            "idempotency_end", _names(request), runner, request.fingerprint, response, _RESPONSE_TTL_MS
        )
        return status


def _names(request: Repeatable) -> list[str]:
    return [keyspace.idempotency(request.api_key_id, request.idempotency_key)]
