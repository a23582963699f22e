"""A native webhook is changed, paused, resumed, retried or deleted while a request of it is under way."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import aiohttp
import pytest
from aiohttp import web

from shared.model.account_channels import id_shown
from tests.harness.api import Api
from tests.harness.channels import AccountChannels
from tests.harness.dispatching import dispatching_with
from tests.harness.native_webhooks import attempts, create, numbers, publish, state_of
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Call, Webhook, webhook

pytestmark = pytest.mark.long

ANSWERS = (204, 500, 410)

# Nothing but the change itself may bring the next attempt.
dispatching = dispatching_with(dispatchers=1, SWEEP_S=600)


@dataclass
class Scene:
    """A webhook whose first request waits for `answered`; what comes later is accepted."""

    stack: Stack
    mine: AccountChannels
    hook: Webhook
    answered: asyncio.Event
    max_in_flight: int
    channel: str = ""

    async def begin(self, status: int) -> None:
        async def answer(call: Call) -> web.StreamResponse:
            if call is not self.hook.calls[0]:
                return web.Response(status=204)
            await self.answered.wait()
            return web.Response(status=status)

        self.hook.answer = answer
        self.channel = await create(
            *(self.mine, self.hook), backoff=[3600], timeout_s=60, max_in_flight=self.max_in_flight
        )
        await publish(self.mine, 1)
        await wait_until(lambda: self.hook.under_way == 1)

    async def patch(self, **settings: object) -> None:
        response = await self.mine.call("PATCH", f"/{self.channel}", json={"webhook": settings})
        assert response.status == 200, response.text

    async def until_idle(self) -> None:
        """Its dispatcher has let go of it."""
        name = f"{{{id_shown(self.channel)}}}:channel"
        with self.stack.valkey.client() as redis:
            await wait_until(lambda: not redis.hexists(name, "owner"), what="the end of the visit")


@pytest.fixture(params=[1, 20], ids=["in order", "20 at once"])
async def scene(
    request: pytest.FixtureRequest, dispatching: Stack, http: aiohttp.ClientSession
) -> AsyncIterator[Scene]:
    api = Api(http, dispatching.gateways[0].url, dispatching.admin_token)
    mine = AccountChannels(api, await api.api_key(scopes=("publish", "channels")))
    async with webhook() as hook:
        scene = Scene(dispatching, mine, hook, asyncio.Event(), request.param)
        yield scene
        scene.answered.set()


@pytest.mark.parametrize("status", ANSWERS)
@pytest.mark.parametrize("change", ["other settings", "resume", "retry"])
async def test_a_failure_of_before_neither_postpones_nor_disables(
    scene: Scene, change: str, status: int
) -> None:
    await scene.begin(status)
    if change == "other settings":
        await scene.patch(disable_after_s=7)
    elif change == "resume":
        await scene.mine.do(scene.channel, "resume")
    else:
        await scene.mine.do(scene.channel, "deliveries/retry", 202)
    scene.answered.set()

    await scene.mine.until(scene.channel, state="active", pending=0, dropped=0)
    assert numbers(scene.hook) == ([1] if status == 204 else [1, 1])
    assert len({call.webhook_id for call in scene.hook.calls}) == 1
    # Each attempt that failed was followed at once, and says so.
    listed = await attempts(scene.mine, scene.channel)
    assert [attempt["status"] for attempt in listed] == ([204] if status == 204 else [204, status])
    for failed, after in zip(listed[1:], listed, strict=False):
        due, began = (datetime.fromisoformat(at) for at in (failed["next_attempt_at"], after["at"]))
        # When an attempt began is rounded; the backoff is an hour.
        assert due <= began + timedelta(seconds=1), "it was due at once"


@pytest.mark.parametrize("status", ANSWERS)
async def test_another_url_ends_the_request(scene: Scene, status: int) -> None:
    await scene.begin(status)
    async with webhook() as newer:
        await scene.patch(url=newer.url)
        await wait_until(lambda: numbers(newer) == [1])
        await wait_until(lambda: scene.hook.under_way == 0)
        scene.answered.set()

        await scene.mine.until(scene.channel, state="active", pending=0, dropped=0)
        assert numbers(scene.hook) == [1]
        assert scene.hook.calls[0].webhook_id == newer.calls[0].webhook_id


@pytest.mark.parametrize(
    ("status", "state", "pending"), [(204, "paused", 0), (500, "paused", 1), (410, "disabled", 1)]
)
async def test_a_pause(scene: Scene, status: int, state: str, pending: int) -> None:
    """What is under way may still be acked, and nothing else begins. A resume ends pause and disabling."""
    await scene.begin(status)
    await scene.mine.do(scene.channel, "pause")
    scene.answered.set()

    await scene.mine.until(scene.channel, state=state, pending=pending)
    await scene.until_idle()
    await publish(scene.mine, 2)
    await scene.mine.until(scene.channel, state=state, pending=pending + 1)
    assert numbers(scene.hook) == [1]
    await scene.mine.do(scene.channel, "resume")
    await scene.mine.until(scene.channel, state="active", pending=0, dropped=0)
    found = numbers(scene.hook)
    assert (found if scene.max_in_flight == 1 else sorted(found)) == ([1, 2] if status == 204 else [1, 1, 2])


async def test_a_pause_of_a_disabled_webhook(scene: Scene) -> None:
    await scene.begin(410)
    scene.answered.set()
    await scene.mine.until(scene.channel, state="disabled")
    await scene.mine.do(scene.channel, "pause")
    assert await state_of(scene.mine, scene.channel) == "disabled"
    await scene.mine.do(scene.channel, "resume")
    await scene.mine.until(scene.channel, state="active", pending=0)
    assert numbers(scene.hook) == [1, 1]


@pytest.mark.parametrize("status", ANSWERS)
async def test_a_deletion_ends_the_request_and_leaves_nothing(scene: Scene, status: int) -> None:
    await scene.begin(status)
    assert (await scene.mine.call("DELETE", f"/{scene.channel}")).status == 204

    await wait_until(lambda: scene.hook.under_way == 0)
    scene.answered.set()
    # Its dispatcher goes on with others.
    async with webhook() as other_hook:
        other = await create(scene.mine, other_hook)
        await publish(scene.mine, 2)
        await scene.mine.until(other, pending=0)
    with scene.stack.valkey.client() as redis:
        assert list(redis.scan_iter(f"{{{id_shown(scene.channel)}}}*", count=10_000)) == []
    assert (await scene.mine.call("GET", f"/{scene.channel}")).status == 404
    assert numbers(scene.hook) == [1]
