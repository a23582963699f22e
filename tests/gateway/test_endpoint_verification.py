"""Test requests: one at a time for each API key, a share for an account, a limit in all, and no longer than
their client."""

import asyncio
import dataclasses
import ipaddress
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest

from services.gateway.endpoint_verification import _PER_ACCOUNT, EndpointVerifier
from shared.model.addresses import AddressPolicy
from shared.model.api_keys import ApiKey, Scope
from shared.model.callbacks import Callback
from shared.model.signing_secrets import new_secret
from shared.outbound.client import Attempt, Outbound
from shared.runtime.http.responses import Problem
from tests.harness.api import Api
from tests.harness.callbacks import Hook
from tests.harness.waiting import wait_until

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
SECRET = new_secret()
Begin = Callable[[str], asyncio.Task[Attempt]]
KEY = ApiKey("", "", "test", frozenset({Scope.RECEIVE}), created_at_ms=0, secret_hash="")


@pytest.fixture
async def outbound() -> AsyncIterator[Outbound]:
    async with Outbound(policy=AddressPolicy(LOOPBACK)) as calls:
        yield calls


@pytest.fixture
async def begin(outbound: Outbound, hook: Hook) -> AsyncIterator[Begin]:
    """Begins the test request of a key such as `a1`: the letter is its account. Nothing waits."""
    verifier = EndpointVerifier(outbound, at_once=6, wait_s=0)
    running: list[asyncio.Task[Attempt]] = []

    def begin_one(name: str) -> asyncio.Task[Attempt]:
        test = verifier.verify(
            dataclasses.replace(KEY, id=name, account_id=name[0]),
            Callback(hook.url),
            signing_secrets=[SECRET],
            disconnected=asyncio.Event().wait,
        )
        running.append(asyncio.create_task(test))
        return running[-1]

    yield begin_one
    hook.open.set()
    await asyncio.wait(running)


async def refusal(test: asyncio.Task[Attempt]) -> int:
    with pytest.raises(Problem) as raised:
        await test
    assert raised.value.headers
    assert raised.value.headers["retry-after"]
    return raised.value.status_code


async def test_one_for_each_api_key_a_share_for_an_account_and_a_limit_in_all(
    begin: Begin, hook: Hook
) -> None:
    hook.open.clear()
    of_a = [begin(f"a{number}") for number in range(_PER_ACCOUNT)]
    await wait_until(lambda: len(hook.called) == _PER_ACCOUNT)
    assert await refusal(begin("a0")) == 429, "another of this API key"
    assert await refusal(begin("a9")) == 429, "the account has its share"

    of_b = [begin(f"b{number}") for number in range(2)]
    await wait_until(lambda: len(hook.called) == 6)
    assert await refusal(begin("c0")) == 503

    of_a[0].cancel()
    await asyncio.wait(of_a[:1])
    hook.open.set()
    assert (await begin("a0")).accepted
    assert all([(await test).accepted for test in (*of_a[1:], *of_b, begin("c0"))])


async def test_accounts_that_wait_take_turns(outbound: Outbound, hook: Hook) -> None:
    verifier = EndpointVerifier(outbound, at_once=1, wait_s=60)
    hook.open.clear()
    tests = []
    for number, name in enumerate(("a0", "a1", "a2", "a3", "b0")):
        test = verifier.verify(
            dataclasses.replace(KEY, id=name, account_id=name[0]),
            Callback(hook.url, {"X-Key": name}),
            signing_secrets=[SECRET],
            disconnected=asyncio.Event().wait,
        )
        tests.append(asyncio.create_task(test))
        await wait_until(lambda: hook.called and sum(map(verifier._places.waiting, "ab")) == number)  # noqa: B023
    hook.open.set()
    await asyncio.wait(tests)

    assert [called.headers["X-Key"] for called in hook.called] == ["a0", "a1", "b0", "a2", "a3"]


async def test_a_silent_name_server_holds_no_place(hook: Hook) -> None:
    lookups: list[str] = []

    async def lookup(host: str) -> list[str]:
        lookups.append(host)
        if host == "silent.example":
            await asyncio.Event().wait()
        return ["127.0.0.1"]

    async with Outbound(policy=AddressPolicy(LOOPBACK), lookup=lookup) as outbound:
        verifier = EndpointVerifier(outbound, at_once=1)
        tests = []
        for name, url in (("a0", "http://silent.example/"), ("b0", hook.url)):
            test = verifier.verify(
                dataclasses.replace(KEY, id=name, account_id=name[0]),
                Callback(url),
                signing_secrets=[SECRET],
                disconnected=asyncio.Event().wait,
            )
            tests.append(asyncio.create_task(test))
            await wait_until(lambda: lookups)
        assert (await tests[1]).accepted
        assert not tests[0].done()
        tests[0].cancel()
        await asyncio.wait(tests)


async def test_a_test_request_ends_with_its_client(api: Api, hook: Hook) -> None:
    """Clients hang up one after the other, more of each account than may run at once; then one registers."""
    hook.open.clear()
    accounts = [await api.account() for _ in range(2)]
    for account in accounts:
        keys = [await api.api_key(account=account) for _ in range(2 * _PER_ACCOUNT)]
        for key in keys:
            before = len(hook.called)
            async with aiohttp.ClientSession() as client:
                registration = asyncio.create_task(Api(client, api.url, "").register_webhook(key, hook.url))
                await wait_until(lambda: len(hook.called) == before + 1)  # noqa: B023
                registration.cancel()
                await asyncio.wait([registration])

    hook.open.set()
    await api.register_webhook(await api.api_key(account=accounts[0]), hook.url)
