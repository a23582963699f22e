"""An account's dead, slow or unresolvable webhooks, and its hanging test requests, delay no other account."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import aiohttp
import pytest
from aiohttp import web

from services.serving import Readiness
from services.webhook_dispatcher.service import dispatching
from shared.outbound import resolver
from shared.redis.client import connect
from shared.runtime.settings import Settings
from tests.conftest import Measured, Start
from tests.harness.api import Api, ApiKey
from tests.harness.channels import AccountChannels
from tests.harness.events import reading
from tests.harness.native_webhooks import create, publish
from tests.harness.processes import free_port
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Call, Webhook, webhook

# A neighbour's p99 during the attack: so many times its p99 alone, but never more than the last.
TIMES, NOISE_MS, NEVER_OVER_MS = 3, 150.0, 500.0
EVENTS = 100
# So few places that the attack would take all of them.
PLACES = {"WEBHOOK_REQUESTS": 16, "ALLOW_PRIVATE_CALLBACKS": 1, "SWEEP_S": 1}


@pytest.fixture
async def hook() -> AsyncIterator[Webhook]:
    async with webhook() as receiver:
        yield receiver


@pytest.fixture
async def bad_hook() -> AsyncIterator[Webhook]:
    async with webhook() as receiver:
        yield receiver


def p99(took_ms: list[float]) -> float:
    return sorted(took_ms)[len(took_ms) * 99 // 100 - 1]


def assert_undisturbed(alone_ms: list[float], during_ms: list[float], measured: Measured, what: str) -> None:
    alone, during = p99(alone_ms), p99(during_ms)
    measured(f"{what}: a neighbour's p99 alone and during it, ms", f"{alone:.1f} and {during:.1f}")
    assert during <= min(NEVER_OVER_MS, max(TIMES * alone, NOISE_MS))


async def delays_ms(api: Api, key: ApiKey, hook: Webhook) -> list[float]:
    """From each publish until its notification is at the webhook, one after the other."""

    async def publish_reading(number: int) -> None:
        await api.publish(key, reading(number, to=key.id))

    return await delays_of(publish_reading, hook)


async def delays_of(publish_one: Callable[[int], Awaitable[None]], hook: Webhook) -> list[float]:
    loop, took_ms = asyncio.get_running_loop(), []
    for number in range(EVENTS):
        before, began_s = len(hook.calls), loop.time()
        await publish_one(number)
        await wait_until(lambda: len(hook.calls) > before)  # noqa: B023
        took_ms.append((hook.calls[before].at_s - began_s) * 1000)
    return took_ms


async def webhooks_of_one_account(api: Api, hook: Webhook, count: int) -> list[ApiKey]:
    account = await api.account("many")
    keys = [await api.api_key(account=account) for _ in range(count)]
    for key in keys:
        await api.register_webhook(key, hook.url)
    return keys


async def publish_to_each(api: Api, keys: list[ApiKey]) -> None:
    await asyncio.gather(*(api.publish(key, reading(1, to=key.id)) for key in keys))


@pytest.mark.parametrize(
    "kind",
    ["hanging", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("timing out", "slow", "failing"))],
)
async def test_bad_webhooks_of_an_account(
    start: Start,
    http: aiohttp.ClientSession,
    hook: Webhook,
    bad_hook: Webhook,
    record_property: Measured,
    kind: str,
) -> None:
    timeout_s = 0.5 if kind == "timing out" else 20
    stack = start(gateways=1, edges=0, dispatchers=1, CALLBACK_TIMEOUT_S=timeout_s, **PLACES)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    victim = await api.api_key()
    await api.register_webhook(victim, hook.url)
    keys = await webhooks_of_one_account(api, bad_hook, 60)
    alone_ms = await delays_ms(api, victim, hook)
    if kind == "failing":
        bad_hook.says(500)
    elif kind == "slow":
        bad_hook.answer = slow
    else:
        bad_hook.hangs()

    await publish_to_each(api, keys)
    await wait_until(lambda: bad_hook.calls)
    during_ms = await delays_ms(api, victim, hook)

    assert_undisturbed(alone_ms, during_ms, record_property, f"60 {kind} webhooks of another account")
    most = max(call.at_once for call in bad_hook.calls)
    assert most <= PLACES["WEBHOOK_REQUESTS"] // 2, (
        "a quarter of the places, and those that left the fast lane"
    )


async def slow(_: Call) -> web.StreamResponse:
    await asyncio.sleep(0.9)
    return web.Response(status=204)


async def by_its_kind(call: Call) -> web.StreamResponse:
    kind = call.headers["x-kind"]
    if kind == "slow":
        return await slow(call)
    answers = {
        "failing": web.Response(status=500),
        "gone": web.Response(status=410),
        "redirecting": web.Response(status=307, headers={"Location": "/elsewhere"}),
        "throttling": web.Response(status=429, headers={"Retry-After": "1"}),
    }
    return answers[kind]


@pytest.mark.long
async def test_native_webhooks_that_fail_in_every_way(
    start: Start, http: aiohttp.ClientSession, hook: Webhook, bad_hook: Webhook, record_property: Measured
) -> None:
    """200 of one account. Some are disabled, and the others have something to deliver all the time."""
    stack = start(gateways=1, edges=0, dispatchers=1, **PLACES)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    victim, attacker = [
        AccountChannels(api, await api.api_key(scopes=("publish", "channels"))) for _ in range(2)
    ]
    await create(victim, hook)
    bad_hook.answer = by_its_kind
    counts = dict.fromkeys(("dead", "failing", "gone", "redirecting", "slow", "throttling"), 33)
    counts["dead"] = 35
    for kind, count in counts.items():
        target = {
            "url": f"http://127.0.0.1:{free_port()}/" if kind == "dead" else bad_hook.url,
            "headers": {"x-kind": kind},
            "backoff": [1],
        }
        for _ in range(count):
            await attacker.create("webhook", bindings=["orders.#"], webhook=target)

    async def publish_order(number: int) -> None:
        await publish(victim, number)

    async def all_are_disabled() -> bool:
        listed = (await attacker.call("GET", "?state=disabled&limit=100")).json["channels"]
        assert {each["disabled_reason"] for each in listed} <= {"gone"}
        return len(listed) == counts["gone"]

    alone_ms = await delays_of(publish_order, hook)
    attacking = asyncio.create_task(attack(attacker))
    try:
        await wait_until(lambda: {call.headers["x-kind"] for call in bad_hook.calls} == {*counts} - {"dead"})
        # First nothing is known of them. Then nearly all are known to fail.
        during_ms = await delays_of(publish_order, hook)
        await wait_until(all_are_disabled, within_s=120, what="a 410 for each that is gone")
        during_ms += await delays_of(publish_order, hook)
    finally:
        attacking.cancel()

    assert_undisturbed(alone_ms, during_ms, record_property, "200 webhooks that fail in every way")


async def attack(attacker: AccountChannels) -> None:
    for number in itertools.count():
        await publish(attacker, number)
        await asyncio.sleep(0.5)


@contextlib.contextmanager
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every name is this machine's. For one that ends in `.silent` nothing comes back."""
    ended = threading.Event()

    def look_up(host: str) -> list[str]:
        if host.endswith(".silent"):
            ended.wait(30)
            raise OSError("the name server does not respond")
        return ["127.0.0.1"]

    monkeypatch.setattr(resolver, "_system_addresses", look_up)
    try:
        yield
    finally:
        ended.set()


@contextlib.asynccontextmanager
async def dispatcher_of(stack: Stack) -> AsyncIterator[None]:
    """A dispatcher in this process, whose name server a test controls."""
    url = str(stack.redis.settings["REDIS_URL"])
    settings = Settings(
        redis_url=url,
        replica="dispatcher-here",
        webhook_requests=PLACES["WEBHOOK_REQUESTS"],
        allow_private_callbacks="1",
        sweep_s=1,
    )
    async with connect(url) as redis, dispatching(settings, redis, redis, Readiness(asyncio.Event())):
        yield


async def test_webhooks_whose_name_server_is_silent(
    start: Start,
    http: aiohttp.ClientSession,
    hook: Webhook,
    record_property: Measured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stack = start(gateways=1, edges=0, dispatchers=0, **PLACES)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    victim = await api.api_key()
    await api.register_webhook(victim, hook.url)
    keys = await webhooks_of_one_account(api, hook, 300)
    with stack.valkey.client() as redis:
        # The gateway would test these URLs by the real name server.
        for number, key in enumerate(keys):
            redis.hset(f"{{{key.id}}}:channel", "url", f"http://{number}.silent:{hook.port}/callback")
        redis.hset(f"{{{victim.id}}}:channel", "url", f"http://victim.example:{hook.port}/callback")

    with name_server(monkeypatch):
        async with dispatcher_of(stack):
            alone_ms = await delays_ms(api, victim, hook)
            for first in range(0, len(keys), 50):
                await publish_to_each(api, keys[first : first + 50])
            await wait_until(lambda: len(lookups()) >= 8)
            during_ms = await delays_ms(api, victim, hook)
            most = len(lookups())

    assert most <= 8 + 4, "lookups of one account"
    assert_undisturbed(alone_ms, during_ms, record_property, "300 names whose server is silent")


def lookups() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "resolver"]


async def test_hanging_test_requests_of_an_account(
    start: Start,
    http: aiohttp.ClientSession,
    hook: Webhook,
    record_property: Measured,
) -> None:
    """One account's clients register a URL that hangs, 70 at once; then they hang up."""
    stack = start(gateways=1, edges=0, ALLOW_PRIVATE_CALLBACKS=1)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    victims = [await api.api_key() for _ in range(20)]
    account = await api.account("many")
    keys = [await api.api_key(account=account) for _ in range(70)]

    async def registrations_ms() -> list[float]:
        loop, took_ms = asyncio.get_running_loop(), []
        for victim in victims:
            began_s = loop.time()
            await api.register_webhook(victim, hook.url)
            took_ms.append((loop.time() - began_s) * 1000)
        return took_ms

    alone_ms = await registrations_ms()
    async with hanging_server() as (url, held), aiohttp.ClientSession() as client:
        attacker = Api(client, api.url, "")
        attempts = [asyncio.create_task(attacker.put_callback(key, url)) for key in keys]
        await wait_until(lambda: sum(attempt.done() for attempt in attempts) >= len(keys) - 20)
        during_ms = await registrations_ms()
        assert len(held) == 4, "an account's share"
        refused = [attempt.result().status for attempt in attempts if attempt.done()]
        assert set(refused) == {429}

        for attempt in attempts:
            attempt.cancel()
        await asyncio.wait(attempts)
        await wait_until(lambda: not held, within_s=5, what="the end of the test requests with their clients")
    await api.register_webhook(keys[0], hook.url)

    assert_undisturbed(alone_ms, during_ms, record_property, "70 hanging test requests of another account")


@contextlib.asynccontextmanager
async def hanging_server() -> AsyncIterator[tuple[str, set[asyncio.StreamWriter]]]:
    """Its URL, and the connections that are open: it reads, and never responds."""
    held: set[asyncio.StreamWriter] = set()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.add(writer)
        with contextlib.suppress(OSError):
            while await reader.read(65536):
                pass
        held.discard(writer)
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", held
    finally:
        server.close()
