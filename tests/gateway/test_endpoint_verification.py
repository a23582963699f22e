"""Test requests: one at a time for each API key, and a limit in all."""

import asyncio
import ipaddress

import pytest

from services.gateway.endpoint_verification import EndpointVerifier
from shared.model.addresses import AddressPolicy
from shared.model.callbacks import Callback, new_signing_secret
from shared.outbound.client import Attempt, Outbound
from shared.runtime.http.responses import Problem
from tests.harness.callbacks import Hook
from tests.harness.waiting import wait_until

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


async def test_one_for_each_api_key_and_a_limit_in_all(hook: Hook) -> None:
    async with Outbound(policy=AddressPolicy(LOOPBACK)) as outbound:
        endpoint_verifier = EndpointVerifier(outbound, at_once=2)
        secret = new_signing_secret()

        async def attempt(api_key_id: str) -> Attempt:
            return await endpoint_verifier.verify(api_key_id, Callback(hook.url), signing_secret=secret)

        async def refusal(api_key_id: str) -> int:
            with pytest.raises(Problem) as raised:
                await attempt(api_key_id)
            assert raised.value.headers
            assert raised.value.headers["retry-after"]
            return raised.value.status_code

        hook.open.clear()
        running = [asyncio.create_task(attempt(name)) for name in ("a", "b")]
        await wait_until(lambda: len(hook.called) == 2, what="both test requests")
        assert await refusal("a") == 429
        assert await refusal("c") == 503

        running[0].cancel()
        await asyncio.wait(running[:1])
        hook.open.set()
        assert (await attempt("a")).accepted
        assert (await running[1]).accepted
        assert (await attempt("c")).accepted
