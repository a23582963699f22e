"""Verifies a webhook's URL with a test request before it is registered.

Few run at once: the receiver has not agreed to them yet. Each lasts as long as the receiver likes, so the
caller must not hold anything meanwhile. A test request ends with its client, the only
reader of the outcome.
"""

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from shared.clock import now_ms
from shared.model.api_keys import ApiKey
from shared.model.callbacks import Callback
from shared.outbound.client import Attempt, Outbound
from shared.outbound.places import FairPlaces
from shared.runtime.http.responses import Problem, too_many, unavailable
from shared.wire.pelion.channels import TEST_BODY
from shared.wire.signatures import signed_headers

_AT_ONCE = 64
_PER_ACCOUNT = 4
# How many of an account may wait for the others of the account, and for how long.
_WAITING = 16
_WAIT_S = 5.0


class EndpointVerifier:
    """Sends test requests: one at a time for an API key, four for an account, `at_once` in all.

    More wait for `wait_s`; accounts take turns.
    """

    def __init__(self, outbound: Outbound, *, at_once: int = _AT_ONCE, wait_s: float = _WAIT_S) -> None:
        self._outbound = outbound
        self._places = FairPlaces(at_once, per_account=_PER_ACCOUNT)
        self._wait_s = wait_s
        self._keys: set[str] = set()

    async def verify(
        self,
        key: ApiKey,
        callback: Callback,
        *,
        signing_secrets: Sequence[str],
        disconnected: Callable[[], Coroutine[Any, Any, object]],
    ) -> Attempt:
        """The outcome of one. `disconnected` returns when the client has gone; then the request is cut.

        Raises Problem: 429 while another of this API key runs or too many of its account do, 503 at the
        limit in all, 400 when the client has gone.
        """
        if key.id in self._keys:
            raise too_many("another test request of this API key is running; retry")
        self._keys.add(key.id)
        test = asyncio.create_task(self._test(key, callback, signing_secrets))
        gone = asyncio.create_task(disconnected())
        try:
            await asyncio.wait((test, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            test.cancel()
            # The request holds its place and its connection until it has ended.
            await asyncio.wait((test, gone))
            self._keys.discard(key.id)
        if test.cancelled():
            raise Problem(400, "the connection was lost before the end of the test request")
        return test.result()

    async def _test(self, key: ApiKey, callback: Callback, signing_secrets: Sequence[str]) -> Attempt:
        # Before it has a place: none is held by a name server that does not respond.
        resolved = await self._outbound.resolve(callback.url, account=key.account_id)
        await self._take_place(key.account_id)
        try:
            signed = signed_headers(
                signing_secrets,
                webhook_id=f"test_{secrets.token_hex(16)}",
                timestamp_s=now_ms() // 1000,
                body=TEST_BODY,
            )
            headers = {**callback.headers, **signed}
            return await self._outbound.send(
                "PUT", callback.url, headers=headers, body=TEST_BODY, resolved=resolved
            )
        finally:
            self._places.give_back(key.account_id)

    async def _take_place(self, account: str) -> None:
        if self._places.take_now(account):
            return
        if self._places.waiting(account) >= _WAITING:
            raise _too_many_of_account()
        try:
            async with asyncio.timeout(self._wait_s):
                await self._places.take(account)
        except TimeoutError:
            if self._places.has_share(account):
                raise _too_many_of_account() from None
            raise unavailable("too many test requests are running on this replica; retry") from None


def _too_many_of_account() -> Problem:
    return too_many("too many test requests of this account are running; retry")
