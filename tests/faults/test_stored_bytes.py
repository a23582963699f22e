"""One account cannot fill Redis: its neighbours notice nothing, and its deletion frees what it stored."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from signal import SIGCONT
from typing import Any

import aiohttp
import pytest

from tests.conftest import Measured, Start
from tests.harness import leaks
from tests.harness.api import Api, ApiKey, Response
from tests.harness.blackhole import Blackhole
from tests.harness.events import reading, registration
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

MIB = 1024 * 1024


def apis_of(stack: Stack, http: aiohttp.ClientSession) -> list[Api]:
    return [Api(http, gateway.url, stack.admin_token) for gateway in stack.gateways]


def used_bytes(redis: Any) -> int:
    redis.execute_command("MEMORY", "PURGE")
    return int(redis.info("memory")["used_memory"])


def assert_is_over(response: Response, quota: str) -> None:
    assert response.status == 429, response
    assert (response.json["type"], response.json["fields"][0]["name"]) == ("quota_exceeded", quota)
    assert int(response.headers["Retry-After"]) >= 1


async def attack(post: Callable[[int], Awaitable[Response]], *, most: int) -> tuple[int, Response]:
    """Posts until a response is not a 202; returns how many were accepted, and that response."""
    for number in range(most):
        response = await post(number)
        if response.status != 202:
            return number, response
    raise AssertionError(f"all of {most} requests were accepted")


class Neighbour:
    """Publishes to its own channel all the time."""

    def __init__(self, api: Api, key: ApiKey) -> None:
        self._api, self._key = api, key
        self.statuses: list[int] = []
        self._took_s: list[float] = []
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            began_s = time.monotonic()
            response = await self._api.post_events(self._key, reading(1, to=self._key.id))
            self._took_s.append(time.monotonic() - began_s)
            self.statuses.append(response.status)
            await asyncio.sleep(0.02)

    async def p99_s(self, *, of_next: int) -> float:
        """How long 99 % of the next requests take at most."""
        start = len(self._took_s)
        await wait_until(lambda: len(self._took_s) >= start + of_next, within_s=60)
        return self.p99_s_since(start)

    def p99_s_since(self, start: int) -> float:
        took_s = sorted(self._took_s[start:])
        return took_s[int(0.99 * (len(took_s) - 1))]

    async def stop(self) -> list[int]:
        self._task.cancel()
        await asyncio.wait([self._task])
        return self.statuses


def device(number: int) -> dict[str, Any]:
    return registration(f"device-{number}", ept="t" * 64)


def with_receipt(number: int) -> dict[str, Any]:
    return {"topic": "orders", "data": number, "receipt": True}


@pytest.mark.parametrize("make_event", [device, with_receipt])
async def test_what_no_channel_gets_fills_the_quota_and_not_redis(
    start: Start,
    http: aiohttp.ClientSession,
    record_property: Measured,
    make_event: Callable[[int], dict[str, Any]],
) -> None:
    """300,000 registrations, or receipts, by a key that may only publish, in an account without a channel."""
    stack = start(
        gateways=2, edges=1, maxmemory="24mb", QUOTA_STORED_BYTES=4 * MIB, DEVICE_TYPES_LIMIT=1_000_000
    )
    apis = apis_of(stack, http)
    victim = await apis[1].api_key()
    await apis[1].register(victim)
    attacker = await apis[0].api_key(scopes=("publish",))

    async def post(number: int) -> Response:
        events = [make_event(each) for each in range(1000 * number, 1000 * (number + 1))]
        return await apis[number % 2].post_events(attacker, events)

    with stack.valkey.client() as redis:
        # Its scripts are loaded, its connections are open.
        assert (await post(0)).status == 202
        before = used_bytes(redis)
        neighbour = Neighbour(apis[1], victim)
        alone_s = await neighbour.p99_s(of_next=50)
        began = len(neighbour.statuses)
        accepted, refused = await attack(post, most=300)
        assert_is_over(refused, "stored_bytes")
        # It stays refused, while it asks again and again, through both gateways.
        for number in range(40):
            response = await post(300 + number)
            assert response.status in (202, 429), response
        for number in (0, 1):
            await wait_until(partial(is_refused, post, number))
        filled = used_bytes(redis) - before
        statuses, attacked_s = await neighbour.stop(), neighbour.p99_s_since(began)
        assert set(statuses) == {202}
        assert len(statuses) > began + 10
        assert attacked_s <= max(3 * alone_s, 0.5)
        assert (await apis[0].admin("DELETE", f"/v1/accounts/{attacker.account}?cascade=true")).status == 204
        await wait_until(
            lambda: used_bytes(redis) - before < MIB,
            what=lambda: f"{used_bytes(redis) - before} bytes are left",
        )
        left = used_bytes(redis) - before
    record_property(f"{make_event.__name__}: a neighbour's p99 alone, in s", round(alone_s, 4))
    record_property(f"{make_event.__name__}: a neighbour's p99 meanwhile, in s", round(attacked_s, 4))
    record_property(f"{make_event.__name__}: accepted before the 429", 1000 * accepted)
    record_property(f"{make_event.__name__}: bytes of Redis that the attacker filled", filled)
    record_property(f"{make_event.__name__}: bytes left after its account was deleted", left)
    assert filled < 16 * MIB


async def test_a_full_redis_is_freed_by_deleting_the_account_that_filled_it(
    start: Start, http: aiohttp.ClientSession
) -> None:
    """With quotas that are too large for this Redis."""
    stack = start(edges=1, maxmemory="16mb", DEVICE_TYPES_LIMIT=1_000_000)
    [api] = apis_of(stack, http)
    victim, attacker = await api.api_key(), await api.api_key()
    for key in (victim, attacker):
        await api.register(key)

    async def post(number: int) -> Response:
        events = [reading(number, to=attacker.id, padding=10_000) for _ in range(20)]
        return await api.post_events(attacker, events)

    _, refused = await attack(post, most=500)
    assert refused.status == 503
    with stack.valkey.client() as redis:
        # Make sure that it stays full.
        redis.config_set("maxmemory", "8mb")
        assert (await api.post_events(victim, reading(1, to=victim.id))).status == 503

        assert (await api.admin("DELETE", f"/v1/accounts/{attacker.account}?cascade=true")).status == 204

        async def is_accepted() -> bool:
            return (await api.post_events(victim, reading(1, to=victim.id))).status == 202

        await wait_until(is_accepted)


async def is_refused(post: Callable[[int], Awaitable[Response]], number: int) -> bool:
    return (await post(number)).status == 429


async def test_sessions_of_a_dead_edge_fill_the_quota_and_not_redis(
    start: Start, http: aiohttp.ClientSession, record_property: Measured
) -> None:
    """Four sockets that ask for everything, on an edge that takes nothing until the quota is full."""
    stack = start(edges=1, QUOTA_STORED_BYTES=2 * MIB, HEARTBEAT_TTL_S=600)
    [api] = apis_of(stack, http)
    key = await api.api_key()
    sockets = [await Blackhole.open(http, stack.edges[0].url + "/socket") for _ in range(4)]
    for socket in sockets:
        await socket.ask("ping", token=key.secret)
        await socket.subscribe("call.*.*")
    events = [
        {"topic": f"call.CHANNEL_CREATE.{n}", "name": "CHANNEL_CREATE", "data": "x" * 50_000}
        for n in range(20)
    ]

    async def post(_: int) -> Response:
        return await api.post_events(key, events)

    with stack.valkey.client() as redis:
        before = used_bytes(redis)
        stack.edges[0].freeze()
        accepted, refused = await attack(post, most=200)
        filled = used_bytes(redis) - before
    assert_is_over(refused, "stored_bytes")
    record_property("requests of 1 MB to four sessions before the 429", accepted)
    record_property("bytes of Redis that four sessions filled", filled)
    assert filled < 100 * MIB

    stack.edges[0].signal(SIGCONT)

    async def is_accepted() -> bool:
        return (await api.post_events(key, {"topic": "call.CHANNEL_CREATE.1", "data": 1})).status == 202

    await wait_until(is_accepted)
    for socket in sockets:
        await socket.close()


async def test_idempotency_keys_have_a_quota_of_their_own(start: Start, http: aiohttp.ClientSession) -> None:
    stack = start(edges=0, IDEMPOTENCY_KEYS_LIMIT=20)
    [api] = apis_of(stack, http)
    key, other = await api.api_key(), await api.api_key()

    async def post(number: int, by: ApiKey = key) -> Response:
        headers = {"Idempotency-Key": f"request-{number}"}
        return await api.call("POST", "/v1/events", key=by, json=reading(number), headers=headers)

    accepted, refused = await attack(post, most=100)

    assert accepted == 20
    assert_is_over(refused, "idempotency_keys")
    assert (await post(3)).headers["Idempotent-Replayed"] == "true"
    assert await api.publish(key, reading(1)) == [0], "without a key it goes on"
    assert (await post(1, other)).status == 202


@pytest.mark.parametrize("services", [{"reapers": 1}, {"gateways": 2}])
async def test_a_deletion_that_a_gateway_did_not_finish_is_finished(
    start: Start, http: aiohttp.ClientSession, services: dict[str, int]
) -> None:
    """By the reaper, or by the next request."""
    stack = start(edges=1, PULL_EXPIRY_S=60, **services)
    apis = apis_of(stack, http)
    key = await apis[0].api_key()
    await apis[0].register(key)
    await apis[0].publish(key, reading(1, to=key.id))

    with stack.valkey.client() as redis:
        # What a gateway has written when it is killed at once.
        redis.hset(f"{{{key.account}}}:account", "deleting", 1)
        redis.sadd("{accounts}:deleting", key.account)
        if not stack.reapers:
            assert (await apis[1].admin("DELETE", f"/v1/accounts/{key.account}?cascade=true")).status == 204
        await wait_until(lambda: not leaks.bytes_left(redis), what=lambda: leaks.bytes_left(redis))
    assert (await apis[0].admin("DELETE", f"/v1/accounts/{key.account}")).status == 404
