"""Idempotent requests: a repetition under the same idempotency key gets the first response and runs nothing.

A mark in Redis says which runner owns the request. Only a success is kept; an error frees the key, unless a
write of the work may still come. The work names a deadline, before the end of the mark: what comes later,
from a gateway or through a connection that was stopped, Redis refuses.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable

from shared import telemetry
from shared.model.errors import (
    DeadlinePassed,
    KeyIsRunning,
    KeyOfAnother,
    QuotaExceeded,
    StoreUnavailable,
)
from shared.model.idempotency import Deadline, Repeatable
from shared.model.quotas import Quota
from shared.store.idempotency import RUNNING_S, BeginResult, EndResult, Idempotency, RequestState

# The deadline survives several late or lost renewals.
_RENEWAL_S = RUNNING_S / 4
# How long the response waits for the outcome to be written, if Redis is slow or unreachable.
_WRITE_LIMIT_S = 1.0
_RETRY_S = 0.5


class IdempotentRequests:
    """Runs each request once."""

    def __init__(self, store: Idempotency) -> None:
        self._store = store
        self._writes = set[asyncio.Task[bytes]]()

    async def run(
        self, request: Repeatable, work: Callable[[Deadline], Awaitable[bytes]]
    ) -> tuple[bytes, bool]:
        """The result of `work`, or the kept result of another run; and whether it is that of another.

        `work` writes nothing after the deadline, which moves while it runs. It raises DeadlinePassed when
        that has cut it short. Raises what `work` raises; KeyIsRunning while the request runs elsewhere;
        KeyOfAnother when the key belongs to another request; QuotaExceeded when the API key has used too
        many; StoreUnavailable, before `work` has begun.
        """
        runner = secrets.token_hex(8)
        beginning = await self._begin(request, runner)
        telemetry.idempotent_requests.add(1, {"found": beginning.state})
        if beginning.state is RequestState.ANSWERED:
            return beginning.response, True
        if beginning.state is not RequestState.BEGUN:
            raise _refusal(beginning)
        renewing = asyncio.create_task(self._renew(request, beginning.deadline, runner))
        try:
            result = await work(beginning.deadline)
        except Exception as error:
            if isinstance(error, StoreUnavailable) and error.may_come:
                # A repetition waits for the end of the mark: then Redis refuses what is still on its way.
                raise
            response = await self._write(lambda: self._store.free(request, runner=runner))
            if response and isinstance(error, DeadlinePassed):
                return response, True
            raise
        finally:
            renewing.cancel()
        response = await self._write(lambda: self._store.keep(request, result, runner=runner))
        return (response, True) if response else (result, False)

    async def _begin(self, request: Repeatable, runner: str) -> BeginResult:
        try:
            return await self._store.begin(request, runner=runner)
        except StoreUnavailable:
            # Redis may have set the mark, or set it later: free it, so that no retry has to wait for its end.
            self._in_background(lambda: self._store.free(request, runner=runner))
            raise

    async def _renew(self, request: Repeatable, deadline: Deadline, runner: str) -> None:
        """Until the request is no longer the runner's."""
        pause_s, is_ours = _RENEWAL_S, True
        while is_ours:
            await asyncio.sleep(pause_s)
            try:
                is_ours = await self._store.renew(request, deadline, runner=runner)
                pause_s = _RENEWAL_S
            except StoreUnavailable:
                pause_s = _RETRY_S

    async def _write(self, write: Callable[[], Awaitable[EndResult]]) -> bytes:
        """The response of another run, if there is one.

        Waits for the write within a limit: its failure must not change the response.
        """
        writing = self._in_background(write)
        await asyncio.wait([writing], timeout=_WRITE_LIMIT_S)
        return writing.result() if writing.done() and writing.exception() is None else b""

    def _in_background(self, write: Callable[[], Awaitable[EndResult]]) -> asyncio.Task[bytes]:
        task = asyncio.create_task(_retry(write))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        return task


async def _retry(write: Callable[[], Awaitable[EndResult]]) -> bytes:
    """Repeats the write until it succeeds or the mark has expired; returns the response of another run."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RUNNING_S):
            while True:
                with contextlib.suppress(StoreUnavailable):
                    return (await write()).response
                await asyncio.sleep(_RETRY_S)
    return b""


def _refusal(beginning: BeginResult) -> Exception:
    if beginning.state is RequestState.FULL:
        return QuotaExceeded(Quota.IDEMPOTENCY_KEYS, retry_after_s=beginning.retry_after_s)
    if beginning.state is RequestState.RUNNING:
        return KeyIsRunning()
    return KeyOfAnother()
