"""Test requests to webhooks: before the URL of an API key's webhook is registered, and when one is asked for.

Few run at once: the receiver has not agreed to them yet. Each lasts as long as the receiver likes, so the
caller must not hold anything meanwhile. A test request ends with its client, the only
reader of the outcome.
"""

import asyncio
import secrets
from collections.abc import Callable, Container, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from shared.clock import now_ms
from shared.model.api_keys import ApiKey
from shared.model.callbacks import Callback
from shared.model.client_certificates import ClientCertificate
from shared.model.webhooks import Method
from shared.outbound.attempt import OK_OR_NO_CONTENT
from shared.outbound.client import Attempt, Outbound
from shared.outbound.places import FairPlaces
from shared.runtime.http.protocol import Connection
from shared.runtime.http.responses import Problem, too_many, unavailable
from shared.wire.pelion.channels import TEST_BODY
from shared.wire.signatures import signed_headers

_AT_ONCE = 64
_PER_ACCOUNT = 4
# How many of an account may wait for the others of the account, and for how long.
_WAITING = 16
_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class WebhookTest:
    """One test request. `holder`, such as `channel <id>`, has one at a time; without `timeout_s` it has the
    usual deadline."""

    holder: str
    account: str
    webhook_id: str
    callback: Callback
    body: bytes = field(repr=False)
    signing_secrets: Sequence[str] = field(repr=False)
    method: Method = Method.PUT
    timeout_s: float | None = None
    success: Container[int] = OK_OR_NO_CONTENT
    certificate: ClientCertificate | None = None


class EndpointVerifier:
    """Sends test requests: one at a time for an API key or a channel, four for an account, `at_once` in all.

    More wait for `wait_s`; accounts take turns.
    """

    def __init__(self, outbound: Outbound, *, at_once: int = _AT_ONCE, wait_s: float = _WAIT_S) -> None:
        self._outbound = outbound
        self._places = FairPlaces(at_once, per_account=_PER_ACCOUNT)
        self._wait_s = wait_s
        self._holders: set[str] = set()

    async def verify(
        self,
        key: ApiKey,
        callback: Callback,
        *,
        signing_secrets: Sequence[str],
        disconnected: Callable[[], Coroutine[Any, Any, object]],
    ) -> Attempt:
        """The outcome of one, for an API key's webhook. Raises what `test` does."""
        wanted = WebhookTest(
            holder=f"API key {key.id}",
            account=key.account_id,
            webhook_id=f"test_{secrets.token_hex(16)}",
            callback=callback,
            body=TEST_BODY,
            signing_secrets=signing_secrets,
        )
        return await self.test(wanted, disconnected=disconnected)

    async def test(
        self, wanted: WebhookTest, *, disconnected: Callable[[], Coroutine[Any, Any, object]]
    ) -> Attempt:
        """The outcome of one. `disconnected` returns when the client has gone; then the request is cut.

        Raises Problem: 429 while another of this holder runs or too many of its account do, 503 at the limit
        in all, 400 when the client has gone.
        """
        if wanted.holder in self._holders:
            raise too_many(
                f"another test request of this {wanted.holder.rpartition(' ')[0]} is running; retry"
            )
        self._holders.add(wanted.holder)
        test = asyncio.create_task(self._test(wanted))
        gone = asyncio.create_task(disconnected())
        try:
            await asyncio.wait((test, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            test.cancel()
            # The request holds its place and its connection until it has ended.
            await asyncio.wait((test, gone))
            self._holders.discard(wanted.holder)
        if test.cancelled():
            raise Problem(400, "the connection was lost before the end of the test request")
        return test.result()

    async def _test(self, wanted: WebhookTest) -> Attempt:
        url, account = wanted.callback.url, wanted.account
        # Before it has a place: none is held by a name server that does not respond.
        resolved = await self._outbound.resolve(url, account=account)
        await self._take_place(account)
        try:
            signed = signed_headers(
                wanted.signing_secrets,
                webhook_id=wanted.webhook_id,
                timestamp_s=now_ms() // 1000,
                body=wanted.body,
            )
            return await self._outbound.send(
                wanted.method,
                url,
                headers={**wanted.callback.headers, **signed},
                body=wanted.body,
                account=account,
                resolved=resolved,
                timeout_s=wanted.timeout_s,
                success=wanted.success,
                certificate=wanted.certificate,
            )
        finally:
            self._places.give_back(account)

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


async def disconnected(request: Request) -> None:
    """Returns when the client has gone. The body must have been read."""
    connection: Connection = request.scope["extensions"]["http.connection"]
    connection["end_with_input"]()
    while (await request.receive())["type"] != "http.disconnect":
        pass
