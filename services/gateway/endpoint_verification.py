"""Test requests to URLs that are to be registered: few at once, for their receivers never asked for them.

One takes as long as its receiver likes, so nothing else is held meanwhile.
"""

import secrets

from shared.model.callbacks import Callback
from shared.outbound.client import Attempt, Outbound
from shared.runtime.clock import now_ms
from shared.runtime.http.responses import Problem
from shared.wire.pelion.callbacks import TEST_BODY
from shared.wire.signatures import signed_headers

_CONCURRENT_VERIFICATIONS = 64


class EndpointVerifier:
    """Makes test requests: one at a time for an API key, `at_once` in all."""

    def __init__(self, outbound: Outbound, *, at_once: int = _CONCURRENT_VERIFICATIONS) -> None:
        self._outbound = outbound
        self._at_once = at_once
        self._running: set[str] = set()

    async def verify(self, api_key_id: str, callback: Callback, *, signing_secret: str) -> Attempt:
        """What came of one. Raises Problem: 429 while another of this API key runs, 503 while many run."""
        if api_key_id in self._running:
            message = "another test request of this API key is under way"
            raise Problem(429, message, headers={"retry-after": "1"})
        if len(self._running) >= self._at_once:
            message = "too many test requests are under way here; try again"
            raise Problem(503, message, headers={"retry-after": "1"})
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
