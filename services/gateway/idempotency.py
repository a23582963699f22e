"""One request, one answer: what a publisher sends again under its Idempotency-Key is not queued again.

The store says who runs a request. Only success is remembered: after anything else the key is free again.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Coroutine

from shared import telemetry
from shared.model.errors import StoreUnavailable
from shared.model.idempotency import Repeatable
from shared.runtime.http.responses import Problem
from shared.store.idempotency import RUNNING_S, BeginResult, Idempotency, RequestState
from shared.wire.idempotency import HEADER

# Several renewals may be late or lost before the mark goes.
_RENEWAL_S = RUNNING_S / 4
# The publisher waits so long for the end to be written, if Redis is slow or away.
_PATIENCE_S = 1.0
_AGAIN_S = 0.5


class Once:
    """Runs requests so that each is carried out once."""

    def __init__(self, store: Idempotency) -> None:
        self._store = store
        self._ending = set[asyncio.Task[None]]()

    async def run(self, request: Repeatable, work: Callable[[], Awaitable[bytes]]) -> tuple[bytes, bool]:
        """What `work` returned, now or when it was first asked for; and whether it is a repetition.

        Raises what `work` raises; Problem(409) while the request runs elsewhere, Problem(422) when the key
        stands for another request; StoreUnavailable, and then `work` was not begun.
        """
        runner = secrets.token_hex(8)
        beginning = await self._begin(request, runner)
        telemetry.repeatable.add(1, {"found": beginning.state})
        if beginning.state is RequestState.ANSWERED:
            return beginning.response, True
        if beginning.state is not RequestState.BEGUN:
            raise _refusal(beginning.state)
        renewing = asyncio.create_task(self._renew(request, runner))
        try:
            answer = await work()
        except Exception:
            await self._before_the_answer(self._free(request, runner))
            raise
        finally:
            renewing.cancel()
        await self._before_the_answer(self._keep(request, answer, runner))
        return answer, False

    async def _begin(self, request: Repeatable, runner: str) -> BeginResult:
        try:
            return await self._store.begin(request, runner=runner)
        except StoreUnavailable:
            # Redis may have done it all the same, or do it when it wakes: nobody is to wait for that mark.
            self._in_background(self._free(request, runner))
            raise

    async def _renew(self, request: Repeatable, runner: str) -> None:
        while True:
            await asyncio.sleep(_RENEWAL_S)
            with contextlib.suppress(StoreUnavailable):
                await self._store.begin(request, runner=runner)

    async def _keep(self, request: Repeatable, answer: bytes, runner: str) -> None:
        await _insist(lambda: self._store.keep(request, answer, runner=runner))

    async def _free(self, request: Repeatable, runner: str) -> None:
        await _insist(lambda: self._store.free(request, runner=runner))

    async def _before_the_answer(self, close_reason: Coroutine[None, None, None]) -> None:
        # What was queued is queued, what failed failed: the end's own trouble changes no answer.
        await asyncio.wait([self._in_background(close_reason)], timeout=_PATIENCE_S)

    def _in_background(self, close_reason: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(close_reason)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task


async def _insist(write: Callable[[], Awaitable[bool]]) -> None:
    """RetryJobs until Redis has taken it, or the mark is gone by itself."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RUNNING_S):
            while True:
                with contextlib.suppress(StoreUnavailable):
                    await write()
                    return
                await asyncio.sleep(_AGAIN_S)


def _refusal(found: RequestState) -> Problem:
    if found is RequestState.RUNNING:
        fields = [(HEADER, "belongs to a request that still runs")]
        message = "the request with this Idempotency-Key is still running; ask again for its answer"
        return Problem(409, message, fields=fields, headers={"retry-after": "1"})
    fields = [(HEADER, "was used with another body or content type")]
    message = "this Idempotency-Key stands for another request; choose a new one"
    return Problem(422, message, fields=fields, kind="idempotency_mismatch")
