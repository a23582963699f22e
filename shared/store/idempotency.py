"""Requests with an Idempotency-Key: running, or answered within the last day."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shared.model.idempotency import Repeatable
from shared.redis.pipeline import Argument, RedisCommands
from shared.store import keyspace

# A killed gateway blocks its key this long; a live one renews the mark well before.
RUNNING_S = 10.0
MOST_RESPONSES = 1_000_000
# Besides its text: the hash of the key, the fingerprint, and about what Redis spends on a field.
RESPONSE_BYTES = 16 + 16 + 40


class RequestState(StrEnum):
    """The state of a request when it was to begin."""

    BEGUN = "begun"
    RUNNING = "running"
    ANSWERED = "answered"
    DIFFERS = "differs"
    FULL = "full"
    """The API key has as many responses as are kept."""


@dataclass(frozen=True, slots=True)
class BeginResult:
    """`response` is what `keep` stored, when the state is ANSWERED.

    `retry_after_s` says when responses are dropped, when it is FULL.
    """

    state: RequestState
    response: bytes = b""
    retry_after_s: int = 0


class Idempotency:
    """Begins and ends requests. `runner` is a random name of one attempt.

    Keeps at most `most_responses` of an API key.
    """

    def __init__(self, redis: RedisCommands, *, most_responses: int = MOST_RESPONSES) -> None:
        self._redis = redis
        self._most_responses = most_responses

    async def begin(self, request: Repeatable, *, runner: str) -> BeginResult:
        """BEGUN: the runner has the request for RUNNING_S, and each further call renews that."""
        status, *rest = await self._script(
            "idempotency_begin", request, runner, int(RUNNING_S * 1000), self._most_responses
        )
        state = RequestState(status.decode())
        if state is RequestState.FULL:
            return BeginResult(state, retry_after_s=int(rest[0]))
        return BeginResult(state, *rest)

    async def keep(self, request: Repeatable, response: bytes, *, runner: str) -> bool:
        """Keeps the response for a day; False when another runner has begun or answered since."""
        assert response, "an empty response would free the key"
        return bool(await self._script("idempotency_end", request, runner, response) == b"kept")

    async def free(self, request: Repeatable, *, runner: str) -> bool:
        """Lets the request begin anew; False when another runner has begun or answered since."""
        return bool(await self._script("idempotency_end", request, runner, b"") == b"freed")

    async def _script(self, name: str, request: Repeatable, runner: str, *arguments: Argument) -> Any:
        field = keyspace.idempotency_field(request.idempotency_key)
        names = [
            keyspace.running(request.api_key_id, field),
            keyspace.idempotency_prefix(request.api_key_id),
        ]
        fingerprint = hashlib.sha256(request.fingerprint.encode()).digest()[:16]
        return await self._redis.script(name, names, runner, field, fingerprint, *arguments)
