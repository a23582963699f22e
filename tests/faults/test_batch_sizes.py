"""Webhooks whose receivers take no large body, or no large batch in time: all arrives, in smaller batches."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.conftest import Start
from tests.harness.api import Api, ApiKey
from tests.harness.events import number_of, reading, readings
from tests.harness.metrics import metric
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Call, Webhook, webhook

LIMIT_BYTES = 100 * 1024
SHORT = {"HEARTBEAT_S": 0.3, "HEARTBEAT_TTL_S": 1, "SWEEP_S": 0.5}


class Accepting:
    """Accepts what `takes` says, and responds to the rest as `otherwise` does."""

    def __init__(
        self, takes: Callable[[Call], bool], otherwise: Callable[[], Awaitable[web.StreamResponse]]
    ) -> None:
        self.accepted: list[Call] = []
        self.refused: list[Call] = []
        self._takes, self._otherwise = takes, otherwise

    async def __call__(self, call: Call) -> web.StreamResponse:
        if not self._takes(call):
            self.refused.append(call)
            return await self._otherwise()
        self.accepted.append(call)
        return web.Response(status=204)

    @property
    def numbers(self) -> list[int]:
        return [number_of(item) for call in self.accepted for item in items(call)]


async def refuse() -> web.StreamResponse:
    return web.Response(status=413)


async def hang() -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


def body_limit(limit_bytes: int = LIMIT_BYTES) -> Accepting:
    return Accepting(lambda call: len(call.body) <= limit_bytes, refuse)


def items(call: Call) -> list[Any]:
    return [item for section in call.message.values() for item in section]


def assert_ids_name_batches(hook: Webhook) -> None:
    """Each id stands for one body, and each body for one id."""
    pairs = {(call.webhook_id, call.body) for call in hook.calls}
    assert len(pairs) == len({webhook_id for webhook_id, _ in pairs}) == len({body for _, body in pairs})


@pytest.fixture
async def hook() -> AsyncIterator[Webhook]:
    async with webhook() as receiver:
        yield receiver


async def hooked(stack: Stack, http: aiohttp.ClientSession, hook: Webhook) -> tuple[Api, ApiKey]:
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    await api.register_webhook(key, hook.url)
    return api, key


async def failing(api: Api, key: ApiKey) -> bool:
    state = await api.call("GET", f"/v1/channels/{key.id}", key=key)
    return "next_attempt_at" in state.json


async def backlog_of_an_outage(api: Api, key: ApiKey, hook: Webhook, count: int) -> None:
    """The receiver is away while so many notifications of 1.3 kB are published."""
    hook.says(503)
    for first in range(0, count, 100):
        events = [
            {**event, "id": f"e{first + n}", "receipt": True}
            for n, event in enumerate(
                readings(range(first, min(first + 100, count)), to=key.id, padding=1200)
            )
        ]
        await api.publish(key, *events)
    await wait_until(lambda: failing(api, key))


async def test_a_receiver_with_a_body_limit_comes_back_after_an_outage(
    start: Start, http: aiohttp.ClientSession, hook: Webhook
) -> None:
    stack = start(gateways=1, edges=0, dispatchers=2, ALLOW_PRIVATE_CALLBACKS="1")
    api, key = await hooked(stack, http, hook)
    await backlog_of_an_outage(api, key, hook, 500)
    receiver = hook.answer = body_limit()

    await wait_until(lambda: len(receiver.numbers) == 500, within_s=60, what=lambda: receiver.numbers[-1:])
    await api.publish(key, *readings(range(500, 900), to=key.id, padding=1200))
    await wait_until(lambda: len(receiver.numbers) == 900, within_s=60, what=lambda: receiver.numbers[-1:])

    assert receiver.numbers == list(range(900)), "everything once, in order"
    assert receiver.refused, "the backlog is larger than what the receiver takes"
    # The batches tell what the limit is: halves of halves. None is refused after that.
    assert hook.calls.index(receiver.refused[-1]) < hook.calls.index(receiver.accepted[0])
    assert_ids_name_batches(hook)
    receipts = [(await api.receipt(key, f"e{n}")).json["channels"][0] for n in (0, 250, 499)]
    assert [receipt["state"] for receipt in receipts] == ["acked"] * 3
    assert [await metric(http, each.url, "notify_dropped_total") for each in stack.dispatchers] == [0, 0]


@pytest.mark.long
async def test_one_notification_over_the_limit_is_dropped_and_the_others_arrive(
    start: Start, http: aiohttp.ClientSession, hook: Webhook
) -> None:
    stack = start(gateways=1, edges=0, dispatchers=1, ALLOW_PRIVATE_CALLBACKS="1")
    api, key = await hooked(stack, http, hook)
    receiver = hook.answer = body_limit()
    events = readings(range(60), to=key.id, padding=1200)
    events[30] = reading(30, to=key.id, padding=LIMIT_BYTES) | {"id": "the-large-one", "receipt": True}
    await api.publish(key, *events)

    await wait_until(lambda: len(receiver.numbers) == 59, within_s=60, what=lambda: receiver.numbers)

    assert receiver.numbers == [n for n in range(60) if n != 30]
    alone = [call for call in receiver.refused if len(items(call)) == 1]
    assert [number_of(items(call)[0]) for call in alone] == [30] * 3
    assert len({call.webhook_id for call in alone}) == 1
    assert_ids_name_batches(hook)
    [receipt] = (await api.receipt(key, "the-large-one")).json["channels"]
    assert (receipt["state"], receipt["reason"]) == ("dropped", "too-long-for-webhook")

    async def state() -> dict[str, Any]:
        return dict((await api.call("GET", f"/v1/channels/{key.id}", key=key)).json)

    await wait_until(state_is(state, pending=0))
    assert (await state())["dropped"] == 1
    assert "failing_since" not in await state()
    deliveries = (await api.call("GET", f"/v1/channels/{key.id}/deliveries", key=key)).json["deliveries"]
    refused = [each for each in deliveries if each["batch"] == 1 and each["status"] == 413]
    assert len(refused) == 3
    assert all(each["next_attempt_at"] for each in refused)
    [dispatcher] = stack.dispatchers
    assert await metric(http, dispatcher.url, "notify_dropped_total", reason="too-long-for-webhook") == 1
    logged = [line for line in dispatcher.stderr.splitlines() if "notification.dropped" in line]
    assert len(logged) == 1
    assert "the-large-one" in logged[0]
    assert key.id in logged[0]
    assert len(logged[0]) < 1000, "it has no payload"


def state_is(state: Callable[[], Any], **wanted: object) -> Callable[[], Any]:
    async def check() -> bool:
        return bool(wanted.items() <= (await state()).items())

    return check


@pytest.mark.long
async def test_a_receiver_that_times_out_on_large_batches_gets_smaller_ones(
    start: Start, http: aiohttp.ClientSession, hook: Webhook
) -> None:
    stack = start(gateways=1, edges=0, dispatchers=1, ALLOW_PRIVATE_CALLBACKS="1", CALLBACK_TIMEOUT_S=1)
    api, key = await hooked(stack, http, hook)
    receiver = hook.answer = Accepting(lambda call: len(items(call)) <= 10, hang)
    await api.publish(key, *readings(range(40), to=key.id))

    await wait_until(lambda: len(receiver.numbers) >= 40, within_s=90, what=lambda: receiver.numbers)

    # With a busy machine a small batch may time out too, after it was accepted.
    assert list(dict.fromkeys(receiver.numbers)) == list(range(40))
    sizes = [len(items(call)) for call in receiver.refused]
    assert sizes[:4] == [40, 40, 20, 20], "a retry is the same batch, until it has timed out twice"
    first, again = receiver.refused[:2]
    assert (first.webhook_id, first.body) == (again.webhook_id, again.body)
    assert_ids_name_batches(hook)


async def test_the_limit_outlives_the_dispatcher_that_learned_it(
    start: Start, http: aiohttp.ClientSession, hook: Webhook
) -> None:
    """kill -9 after the batch was halved, before the next attempt."""
    stack = start(gateways=1, edges=0, dispatchers=1, ALLOW_PRIVATE_CALLBACKS="1", **SHORT)
    api, key = await hooked(stack, http, hook)
    receiver = body_limit()
    await backlog_of_an_outage(api, key, hook, 400)
    hook.answer = receiver
    channel = f"{{{key.id}}}:channel"
    with stack.valkey.client() as redis:
        await wait_until(lambda: redis.hexists(channel, "body_limit_bytes"))
        [first] = stack.dispatchers
        first.kill()
        limit = int(redis.hget(channel, "body_limit_bytes"))
        before = len(hook.calls)
        second = stack.new_dispatcher("dispatcher-later")
        stack.dispatchers.append(second)
        second.start()
        second.wait_ready()

        await wait_until(
            lambda: len(set(receiver.numbers)) == 400, within_s=60, what=lambda: receiver.numbers[-1:]
        )

    assert list(dict.fromkeys(receiver.numbers)) == list(range(400))
    assert all(len(call.body) <= limit for call in hook.calls[before:])
    assert_ids_name_batches(hook)


@pytest.mark.long
async def test_a_new_url_gets_large_batches_again(
    start: Start, http: aiohttp.ClientSession, hook: Webhook
) -> None:
    stack = start(gateways=1, edges=0, dispatchers=2, ALLOW_PRIVATE_CALLBACKS="1")
    api, key = await hooked(stack, http, hook)
    receiver = body_limit(10_000)
    await backlog_of_an_outage(api, key, hook, 300)
    hook.answer = receiver
    await wait_until(lambda: receiver.accepted, within_s=60)

    async with webhook() as newer:
        await api.register_webhook(key, newer.url)

        def all_numbers() -> list[int]:
            return [*receiver.numbers, *(number_of(item) for item in newer.items)]

        await wait_until(lambda: len(set(all_numbers())) == 300, what=all_numbers)

        assert list(dict.fromkeys(all_numbers())) == list(range(300))
        assert max(len(call.body) for call in newer.calls) > LIMIT_BYTES
        assert max(len(call.body) for call in receiver.accepted) <= 10_000
