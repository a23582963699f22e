"""Verifies a webhook's URL with a test request before it is registered.

Few run at once: the receiver has not agreed to them yet. Each lasts as long as the receiver likes, so the
caller must not hold anything meanwhile.
"""

import secrets

from shared.clock import now_ms
from shared.model.callbacks import Callback
from shared.outbound.client import Attempt, Outbound
from shared.runtime.http.responses import too_many, unavailable
from shared.wire.pelion.channels import TEST_BODY
from shared.wire.signatures import signed_headers

_CONCURRENT_VERIFICATIONS = 64


class EndpointVerifier:
    """Sends test requests: one at a time for an API key, `at_once` in all."""

    def __init__(self, outbound: Outbound, *, at_once: int = _CONCURRENT_VERIFICATIONS) -> None:
        self._outbound = outbound
        self._at_once = at_once
        self._running: set[str] = set()

    async def verify(self, api_key_id: str, callback: Callback, *, signing_secret: str) -> Attempt:
        """The outcome of one. Raises Problem: 429 while another of this API key runs, 503 at the limit."""
        if api_key_id in self._running:
            raise too_many("another test request of this API key is running; retry")
        if len(self._running) >= self._at_once:
            raise unavailable("too many test requests are running on this replica; retry")
        self._running.add(api_key_id)
        try:
            signed = signed_headers(
                signing_secret,
                webhook_id=f"test_{secrets.token_hex(16)}",
                timestamp_s=now_ms() // 1000,
                body=TEST_BODY,
            )
            return await self._outbound.put(
                callback.url, headers={**callback.headers, **signed}, body=TEST_BODY
            )
        finally:
            self._running.discard(api_key_id)
