"""Requests with an Idempotency-Key: running, or answered within the last day."""

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from shared.model.idempotency import Deadline, Repeatable
from shared.redis.pipeline import Argument, RedisCommands
from shared.store import keyspace

# A killed gateway blocks its key this long; a live one renews the mark well before.
RUNNING_S = 10.0
CLOCKS_APART_S = 2.0
"""The deadline is so much before the mark's end: on a cluster the clocks of two primaries judge them."""
LATE = b"late"
"""What a script replies when the deadline of its request has passed."""
PASSED_MS = 0
"""A deadline that every Redis takes for passed."""
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

    `deadline` is that of the work, when it is BEGUN. `retry_after_s` says when responses are dropped, when it
    is FULL.
    """

    state: RequestState
    response: bytes = b""
    retry_after_s: int = 0
    deadline: Deadline = field(default_factory=lambda: Deadline(PASSED_MS))


@dataclass(frozen=True, slots=True)
class EndResult:
    """`is_done`: the request was still the runner's. `response` is what another run has kept, if any."""

    is_done: bool
    response: bytes = b""


class Idempotency:
    """Begins and ends requests. `runner` is a random name of one attempt.

    Keeps at most `most_responses` of an API key.
    """

    def __init__(self, redis: RedisCommands, *, most_responses: int = MOST_RESPONSES) -> None:
        self._redis = redis
        self._most_responses = most_responses

    async def begin(self, request: Repeatable, *, runner: str) -> BeginResult:
        """BEGUN: the runner has the request for RUNNING_S, and may write until its deadline."""
        status, *rest = await self._script(
            "idempotency_begin", request, runner, int(RUNNING_S * 1000), self._most_responses
        )
        state = RequestState(status.decode())
        if state is RequestState.FULL:
            return BeginResult(state, retry_after_s=int(rest[0]))
        if state is RequestState.BEGUN:
            return BeginResult(state, deadline=Deadline(_deadline_ms(rest[0])))
        return BeginResult(state, *rest)

    async def renew(self, request: Repeatable, deadline: Deadline, *, runner: str) -> bool:
        """Moves the deadline; False, and it has passed, when the request is no longer the runner's."""
        name = keyspace.running(request.api_key_id, keyspace.idempotency_field(request.idempotency_key))
        ttl_ms = int(RUNNING_S * 1000)
        end_ms = await self._redis.script("idempotency_renew", [name], runner, _hash_of(request), ttl_ms)
        deadline.ms = _deadline_ms(end_ms) if end_ms else PASSED_MS
        return bool(end_ms)

    async def keep(self, request: Repeatable, response: bytes, *, runner: str) -> EndResult:
        """Keeps the response for a day, unless another runner has begun or answered since."""
        assert response, "an empty response would free the key"
        return await self._end(request, response, runner=runner)

    async def free(self, request: Repeatable, *, runner: str) -> EndResult:
        """Lets the request begin anew, unless another runner has begun or answered since."""
        return await self._end(request, b"", runner=runner)

    async def _end(self, request: Repeatable, response: bytes, *, runner: str) -> EndResult:
        status, *rest = await self._script("idempotency_end", request, runner, response)
        return EndResult(status in (b"kept", b"freed"), *rest)

    async def _script(self, name: str, request: Repeatable, runner: str, *arguments: Argument) -> Any:
        hashed = keyspace.idempotency_field(request.idempotency_key)
        names = [
            keyspace.running(request.api_key_id, hashed),
            keyspace.idempotency_prefix(request.api_key_id),
        ]
        return await self._redis.script(name, names, runner, hashed, _hash_of(request), *arguments)


def _hash_of(request: Repeatable) -> bytes:
    return hashlib.sha256(request.fingerprint.encode()).digest()[:16]


def _deadline_ms(end_ms: int) -> int:
    return end_ms - int(CLOCKS_APART_S * 1000)
