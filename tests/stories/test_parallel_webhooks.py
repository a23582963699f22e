"""Webhooks with several requests at once: slow receivers, one event that fails, a change of the number."""

import asyncio
import json
from typing import Any

from aiohttp import web

from tests.harness.channels import AccountChannels
from tests.harness.dispatching import dispatching_with, hook, mine
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Call, Webhook

__all__ = ["hook", "mine"]

dispatching = dispatching_with(SWEEP_S=1)


class Slow:
    """A receiver that responds once it is released, and refuses some events."""

    def __init__(self, hook: Webhook) -> None:
        self.refused: dict[int, int] = {}
        self.may_go_on = asyncio.Event()
        hook.answer = self._answer

    async def _answer(self, call: Call) -> web.StreamResponse:
        await self.may_go_on.wait()
        return web.Response(status=self.refused.get(json.loads(call.body)["data"], 200))


async def create(mine: AccountChannels, hook: Webhook, **settings: Any) -> str:
    target = {"url": hook.url, "backoff": [1], "max_in_flight": 20, **settings}
    return str((await mine.create("webhook", bindings=["orders.#"], webhook=target))["id"])


async def publish(mine: AccountChannels, *numbers: int) -> None:
    await mine.api.publish(mine.key, *({"topic": "orders.paid", "data": number} for number in numbers))


def numbers(hook: Webhook) -> list[int]:
    return [event["data"] for event in hook.events]


async def test_a_slow_receiver_has_as_many_requests_at_once_as_its_webhook_says(
    mine: AccountChannels, hook: Webhook
) -> None:
    slow = Slow(hook)
    channel = await create(mine, hook)
    await publish(mine, *range(60))

    await wait_until(lambda: hook.under_way == 20)
    assert (await mine.get(channel))["pending"] == 60
    slow.may_go_on.set()

    await mine.until(channel, state="active", pending=0)
    assert sorted(numbers(hook)) == list(range(60)), "each once"
    assert max(call.at_once for call in hook.calls) == 20


async def test_one_event_that_fails_holds_up_no_other(mine: AccountChannels, hook: Webhook) -> None:
    slow = Slow(hook)
    slow.refused = {3: 500}
    slow.may_go_on.set()
    channel = await create(mine, hook, backoff=[2])
    await publish(mine, *range(50))
    await mine.until(channel, pending=1)
    await publish(mine, *range(50, 100))

    await wait_until(lambda: set(numbers(hook)) == set(range(100)))
    await mine.until(channel, pending=1)
    shown = (await mine.call("GET", f"/{channel}/deliveries?outcome=failure")).json["deliveries"]
    assert {attempt["status"] for attempt in shown} == {500}
    slow.refused = {}
    await mine.until(channel, state="active", pending=0)

    found = numbers(hook)
    assert found.count(3) >= 2, "it was repeated"
    assert len(found) - found.count(3) == 99, "the others came once"
    ids = {call.webhook_id for call in hook.calls if json.loads(call.body)["data"] == 3}
    assert len(ids) == 1


async def test_an_event_that_is_given_up_is_dropped_alone(mine: AccountChannels, hook: Webhook) -> None:
    slow = Slow(hook)
    slow.refused = {2: 500}
    slow.may_go_on.set()
    channel = await create(mine, hook, give_up_after_s=1)
    await publish(mine, *range(5))

    await mine.until(channel, pending=0, dropped=1)
    assert set(numbers(hook)) == set(range(5))


async def test_the_order_is_kept_again_once_it_is_one_request_at_a_time(
    mine: AccountChannels, hook: Webhook
) -> None:
    slow = Slow(hook)
    channel = await create(mine, hook)
    await publish(mine, *range(40))
    await wait_until(lambda: hook.under_way == 20)
    response = await mine.call("PATCH", f"/{channel}", json={"webhook": {"max_in_flight": 1}})
    assert response.json["webhook"]["max_in_flight"] == 1
    begun = len(hook.calls)

    slow.may_go_on.set()

    await mine.until(channel, pending=0)
    assert set(numbers(hook)) == set(range(40))
    rest = numbers(hook)[begun:]
    assert rest == sorted(rest)
    assert all(call.at_once == 1 for call in hook.calls[begun + 1 :])


async def test_a_rate_holds_over_all_requests_at_once(mine: AccountChannels, hook: Webhook) -> None:
    channel = await create(mine, hook, rate_per_s=5)
    await publish(mine, *range(16))

    await mine.until(channel, pending=0)
    times_s = [call.at_s for call in hook.calls]
    assert sorted(numbers(hook)) == list(range(16))
    # A second has two requests more than the rate at most, and those under way before it may arrive in it.
    assert times_s[-1] - times_s[0] >= (16 - 1 - 2) / 5 - 0.2
