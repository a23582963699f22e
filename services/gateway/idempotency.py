"""Idempotent requests: a repetition under the same Idempotency-Key gets the first response and runs nothing.

A mark in Redis says which runner owns the request. Only a success is kept; any error frees the key.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable

from shared import telemetry
from shared.model.errors import QuotaExceeded, StoreUnavailable
from shared.model.idempotency import Repeatable
from shared.model.quotas import Quota
from shared.runtime.http.responses import Problem
from shared.store.idempotency import RUNNING_S, BeginResult, Idempotency, RequestState
from shared.wire.idempotency import HEADER

# The mark survives several late or lost renewals.
_RENEWAL_S = RUNNING_S / 4
# How long the response waits for the outcome to be written, if Redis is slow or unreachable.
_WRITE_LIMIT_S = 1.0
_RETRY_S = 0.5


class IdempotentRequests:
    """Runs each request once."""

    def __init__(self, store: Idempotency) -> None:
        self._store = store
        self._writes = set[asyncio.Task[None]]()

    async def run(self, request: Repeatable, work: Callable[[], Awaitable[bytes]]) -> tuple[bytes, bool]:
        """The result of `work`, or the kept result of an earlier run; and whether it is a repetition.

        Raises what `work` raises; Problem(409) while the request runs elsewhere; Problem(422) when the key
        belongs to another request; QuotaExceeded when the API key has used too many; StoreUnavailable, before
        `work` has begun.
        """
        runner = secrets.token_hex(8)
        beginning = await self._begin(request, runner)
        telemetry.idempotent_requests.add(1, {"found": beginning.state})
        if beginning.state is RequestState.ANSWERED:
            return beginning.response, True
        if beginning.state is not RequestState.BEGUN:
            raise _refusal(beginning)
        renewing = asyncio.create_task(self._renew(request, runner))
        try:
            result = await work()
        except Exception:
            await self._write(lambda: self._store.free(request, runner=runner))
            raise
        finally:
            renewing.cancel()
        await self._write(lambda: self._store.keep(request, result, runner=runner))
        return result, False

    async def _begin(self, request: Repeatable, runner: str) -> BeginResult:
        try:
            return await self._store.begin(request, runner=runner)
        except StoreUnavailable:
            # Redis may have set the mark, or set it later: free it, so that no retry has to wait for its end.
            self._in_background(lambda: self._store.free(request, runner=runner))
            raise

    async def _renew(self, request: Repeatable, runner: str) -> None:
        while True:
            await asyncio.sleep(_RENEWAL_S)
            with contextlib.suppress(StoreUnavailable):
                await self._store.begin(request, runner=runner)

    async def _write(self, write: Callable[[], Awaitable[bool]]) -> None:
        """Waits for the write, within a limit: its failure must not change the response."""
        await asyncio.wait([self._in_background(write)], timeout=_WRITE_LIMIT_S)

    def _in_background(self, write: Callable[[], Awaitable[bool]]) -> asyncio.Task[None]:
        task = asyncio.create_task(_retry(write))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        return task


async def _retry(write: Callable[[], Awaitable[bool]]) -> None:
    """Repeats the write until it succeeds or the mark has expired."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RUNNING_S):
            while True:
                with contextlib.suppress(StoreUnavailable):
                    await write()
                    return
                await asyncio.sleep(_RETRY_S)


def _refusal(beginning: BeginResult) -> Exception:
    if beginning.state is RequestState.FULL:
        return QuotaExceeded(Quota.IDEMPOTENCY_KEYS, retry_after_s=beginning.retry_after_s)
    if beginning.state is RequestState.RUNNING:
        fields = [(HEADER, "belongs to a request that is still running")]
        message = "the request with this Idempotency-Key is still running; retry to get its response"
        return Problem(409, message, fields=fields, headers={"retry-after": "1"})
    fields = [(HEADER, "was used with another body or Content-Type")]
    message = "this Idempotency-Key belongs to another request; use a new one"
    return Problem(422, message, fields=fields, kind="idempotency_mismatch")
