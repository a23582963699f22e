"""Native webhooks when Redis is killed, and comes back with or without its last writes.

What a webhook shows is what happens to it, and every state can be left again.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from standardwebhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from tests.conftest import Start
from tests.harness.api import Api
from tests.harness.channels import AccountChannels
from tests.harness.native_webhooks import create, events_of, numbers, publish, state_of
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Call, Webhook, webhook
from tests.stories.test_streams import KEPT, put_rules

pytestmark = pytest.mark.long

# Under `everysec` Redis may lose its last second: it begins with a file of before. `always` loses nothing.
LOST = pytest.mark.parametrize("is_lost", [True, False], ids=["its last writes are lost", "nothing is lost"])


@dataclass
class Scene:
    stack: Stack
    mine: AccountChannels
    hook: Webhook
    max_in_flight: int

    async def create(self, **settings: Any) -> str:
        return await create(self.mine, self.hook, max_in_flight=self.max_in_flight, **settings)

    def keep(self) -> None:
        """What is written from now on will be lost."""
        self.stack.valkey.keep_copy()

    def kill(self) -> None:
        self.stack.valkey.kill()

    async def come_back(self, *, is_lost: bool = False) -> None:
        valkey = self.stack.valkey
        if is_lost:
            valkey.restore_copy()
        valkey.start()
        await wait_until(lambda: valkey.answers, within_s=60)

        async def is_served() -> bool:
            return (await self.mine.call("GET")).status == 200

        await wait_until(is_served, within_s=60, what="the gateway to be back")

    async def crash(self, *, is_lost: bool) -> None:
        self.kill()
        await self.come_back(is_lost=is_lost)

    async def until(self, channel: str, **wanted: Any) -> None:
        shown: dict[str, Any] = {}

        async def is_reached() -> bool:
            shown.update(await self.mine.get(channel))
            return all(shown.get(name) == value for name, value in wanted.items())

        await wait_until(is_reached, within_s=60, what=lambda: f"{wanted}, but it is {shown}")


@pytest.fixture(params=[1, 20], ids=["in order", "20 at once"])
async def scene(
    request: pytest.FixtureRequest, start: Start, http: aiohttp.ClientSession
) -> AsyncIterator[Scene]:
    stack = start(
        gateways=1, edges=0, dispatchers=1, appendfsync="always", SWEEP_S=0.5, ALLOW_PRIVATE_CALLBACKS="1"
    )
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    mine = AccountChannels(api, await api.api_key(scopes=("publish", "channels")))
    await put_rules(api, mine.key, KEPT)
    async with webhook() as hook:
        yield Scene(stack, mine, hook, request.param)


@LOST
async def test_a_webhook_that_is_disabled(scene: Scene, is_lost: bool) -> None:
    watcher = (await scene.mine.create("pull", bindings=["system.webhook.#"]))["id"]
    channel = await scene.create()
    await scene.mine.do(channel, "pause")
    await publish(scene.mine, 1)
    scene.hook.says(410)
    if is_lost:
        scene.keep()
    await scene.mine.do(channel, "resume")
    await scene.until(channel, state="disabled", pending=1)
    await scene.until(watcher, pending=1)

    await scene.crash(is_lost=is_lost)

    if is_lost:
        # The pause is back too: the resume was lost.
        await scene.until(channel, state="paused", pending=1)
        await scene.until(watcher, pending=0)
        await scene.mine.do(channel, "resume")
    await scene.until(channel, state="disabled", disabled_reason="gone", pending=1)
    await scene.until(watcher, pending=1)
    assert numbers(scene.hook) == ([1, 1] if is_lost else [1])
    scene.hook.takes()
    await scene.mine.do(channel, "resume")
    await scene.until(channel, state="active", pending=0, dropped=0)


async def test_redis_is_away_when_the_receiver_says_that_it_is_gone(scene: Scene) -> None:
    channel = await scene.create()

    async def kill(_: Call) -> web.StreamResponse:
        if len(scene.hook.calls) == 1:
            scene.kill()
        return web.Response(status=410)

    scene.hook.answer = kill
    await publish(scene.mine, 1)
    await wait_until(lambda: scene.stack.valkey.ended)
    await scene.come_back()

    # The first answer could not be written; the second one is.
    await scene.until(channel, state="disabled", pending=1)
    assert numbers(scene.hook) == [1, 1]
    assert scene.hook.calls[0].webhook_id == scene.hook.calls[1].webhook_id
    scene.hook.takes()
    await scene.mine.do(channel, "resume")
    await scene.until(channel, state="active", pending=0, dropped=0)


@LOST
async def test_the_resume_of_a_disabled_webhook(scene: Scene, is_lost: bool) -> None:
    channel, answered = await scene.create(), asyncio.Event()

    async def answer(_: Call) -> web.StreamResponse:
        await answered.wait()
        return web.Response(status=204)

    scene.hook.says(410)
    await publish(scene.mine, 1)
    await scene.until(channel, state="disabled", pending=1)
    if is_lost:
        scene.keep()
    scene.hook.answer = answer
    await scene.mine.do(channel, "resume")
    await wait_until(lambda: len(scene.hook.calls) == 2)
    if is_lost:
        answered.set()
        await scene.until(channel, state="active", pending=0)

    await scene.crash(is_lost=is_lost)

    if is_lost:
        # As it was before the resume: what is published waits behind what was delivered.
        await scene.until(channel, state="disabled", pending=1)
        await publish(scene.mine, 2)
        await scene.until(channel, state="disabled", pending=2)
        assert len(scene.hook.calls) == 2
        await scene.mine.do(channel, "resume")
    else:
        await scene.until(channel, state="active", pending=1)
        await publish(scene.mine, 2)
        answered.set()
    await scene.until(channel, state="active", pending=0, dropped=0)
    found = numbers(scene.hook)
    # A resume makes both due.
    assert (found if scene.max_in_flight == 1 else sorted(found)) == ([1, 1, 1, 2] if is_lost else [1, 1, 2])
    assert len({call.webhook_id for call in scene.hook.calls}) == 2


@LOST
async def test_what_was_given_up(scene: Scene, is_lost: bool) -> None:
    channel = await scene.create(backoff=[1], give_up_after_s=3600)
    scene.hook.says(500)
    await publish(scene.mine, 1)
    await scene.until(channel, state="failing", pending=1)
    if is_lost:
        scene.keep()
    changed = await scene.mine.call("PATCH", f"/{channel}", json={"webhook": {"give_up_after_s": 1}})
    assert changed.status == 200, changed.text
    await scene.until(channel, pending=0, dropped=1)

    await scene.crash(is_lost=is_lost)

    if is_lost:
        # It was never given up: it waits, and is delivered.
        shown = await scene.mine.get(channel)
        assert (shown["state"], shown["pending"], shown["dropped"]) == ("failing", 1, 0)
        assert shown["webhook"]["give_up_after_s"] == 3600
        scene.hook.takes()
        await scene.until(channel, state="active", pending=0, dropped=0)
        return
    scene.hook.takes()
    scene.hook.calls.clear()
    await publish(scene.mine, 2)
    await scene.until(channel, state="active", pending=0, dropped=1)
    assert numbers(scene.hook) == [2]
    assert (await scene.mine.post(channel, "resend", event_id="e1")).status == 202
    await scene.until(channel, pending=0)
    assert [event["id"] for event in scene.hook.events] == ["e2", "e1"]


async def test_redis_is_away_when_something_is_to_be_given_up(scene: Scene) -> None:
    channel = await scene.create(backoff=[1], give_up_after_s=1)
    has_died = False

    async def fail(call: Call) -> web.StreamResponse:
        nonlocal has_died
        # The second attempt is the one after which the order is given up.
        if len(scene.hook.calls) == 2 and not has_died:
            has_died = True
            scene.kill()
        return web.Response(status=500 if events_of(call)[0]["data"] == 1 else 204)

    scene.hook.answer = fail
    await publish(scene.mine, 1)
    await wait_until(lambda: has_died)
    await scene.come_back()
    await publish(scene.mine, 2)

    await scene.until(channel, state="active", pending=0, dropped=1)
    assert numbers(scene.hook).count(2) == 1
    assert set(numbers(scene.hook)) == {1, 2}
    assert len({call.webhook_id for call in scene.hook.calls}) == 2


def verifies(secret: str, call: Call) -> bool:
    try:
        Verifier(secret).verify(call.body, dict(call.headers))
    except WebhookVerificationError:
        return False
    return True


async def secrets_of(scene: Scene, channel: str) -> list[dict[str, Any]]:
    listed = await scene.mine.call("GET", f"/{channel}/secrets")
    assert listed.status == 200, listed.text
    found: list[dict[str, Any]] = listed.json["secrets"]
    return found


async def sent(scene: Scene, channel: str, number: int) -> Call:
    await publish(scene.mine, number)
    await scene.until(channel, pending=0)
    return scene.hook.calls[-1]


@LOST
async def test_a_rotated_secret(scene: Scene, is_lost: bool) -> None:
    channel = await scene.create()
    first = (await scene.mine.call("GET", f"/{channel}/signing-secret")).json["signing_secret"]
    call = await sent(scene, channel, 1)
    assert verifies(first, call)
    if is_lost:
        scene.keep()
    made = await scene.mine.post(channel, "secrets")
    assert made.status == 201, made.text
    second = made.json["secret"]
    call = await sent(scene, channel, 2)
    assert verifies(first, call)
    assert verifies(second, call)

    await scene.crash(is_lost=is_lost)

    listed = await secrets_of(scene, channel)
    newest = (await scene.mine.call("GET", f"/{channel}/signing-secret")).json["signing_secret"]
    assert (len(listed), newest) == ((1, first) if is_lost else (2, second))
    call = await sent(scene, channel, 3)
    assert (verifies(first, call), verifies(second, call)) == (True, not is_lost)
    # The receiver that has the lost one already gets it back.
    again = await scene.mine.post(channel, "secrets", secret=second)
    assert again.status == 201, again.text
    listed = await secrets_of(scene, channel)
    assert [each["ends_at"] is None for each in listed] == [True, False]
    call = await sent(scene, channel, 4)
    assert verifies(first, call)
    assert verifies(second, call)


async def test_redis_is_away_during_a_rotation(scene: Scene) -> None:
    channel = await scene.create()
    first = (await scene.mine.call("GET", f"/{channel}/signing-secret")).json["signing_secret"]
    scene.kill()
    assert (await scene.mine.post(channel, "secrets")).status == 503
    await scene.come_back()

    [kept] = await secrets_of(scene, channel)
    assert kept["ends_at"] is None
    assert verifies(first, await sent(scene, channel, 1))
    second = (await scene.mine.post(channel, "secrets")).json["secret"]
    call = await sent(scene, channel, 2)
    assert verifies(first, call)
    assert verifies(second, call)
    assert await state_of(scene.mine, channel) == "active"
