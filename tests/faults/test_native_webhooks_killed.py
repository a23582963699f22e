"""A dispatcher of native webhooks dies or stands still at an exact point.

Nothing is lost, order is kept, and what comes twice is recognized.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from shared.model.account_channels import id_shown
from shared.store import keyspace
from tests.conftest import Start
from tests.faults.test_channels_killed import sha
from tests.harness.api import Api
from tests.harness.channels import AccountChannels
from tests.harness.native_webhooks import (
    assert_complete_and_in_order,
    assert_repeats_are_known,
    attempts,
    create,
    doubles,
    events_of,
    numbers,
    publish,
    state_of,
)
from tests.harness.processes import Service
from tests.harness.proxy import Proxy, dispatcher_behind_proxy
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Call, Webhook, webhook
from tests.stories.test_replays import LONG_AGO
from tests.stories.test_streams import KEPT, put_rules

pytestmark = pytest.mark.long

# The heir learns of the death by the heartbeat that ends.
SHORT = {"HEARTBEAT_S": 0.3, "HEARTBEAT_TTL_S": 1, "SWEEP_S": 0.5, "ALLOW_PRIVATE_CALLBACKS": "1"}
COUNT = 6
REPLAYED = range(COUNT + 1)
FORMATS = ("cloudevents", "cloudevents-batch")


@dataclass
class Scene:
    """A gateway, a dispatcher behind a proxy that is to die, and one that inherits from it later."""

    stack: Stack
    proxy: Proxy
    doomed: Service
    heir: Service
    mine: AccountChannels
    hook: Webhook

    async def kill_at(self, *texts: bytes) -> None:
        """Kills the dispatcher before it sends the last of these, each of which follows the one before."""
        await self.proxy.until_it_holds()
        for text in texts:
            self.proxy.hold_next(text)
            await self.proxy.until_it_holds()
        await self.kill()

    async def kill(self) -> None:
        self.doomed.kill()
        self.proxy.hang_up()

    async def inherit(self) -> None:
        # Its port was free a while ago.
        self.heir = self.stack.new_dispatcher("heir")
        self.heir.start()
        await wait_until(lambda: self.heir.ready, within_s=60, what=lambda: self.heir.tail)

    async def warm(self, channel: str) -> None:
        """Delivers the order 0. Each later call of a script is then a single command."""
        await publish(self.mine, 0, receipt=True)
        await self.mine.until(channel, pending=0)

    async def until_delivered(self, channel: str) -> None:
        async def is_empty() -> bool:
            return bool((await self.mine.get(channel))["pending"] == 0)

        await wait_until(is_empty, within_s=60, what=lambda: (numbers(self.hook), self.heir.tail))

    async def until_replayed(self, channel: str) -> None:
        async def has_ended() -> bool:
            shown = (await self.mine.call("GET", f"/{channel}/replay")).json
            return bool(shown["state"] == "done")

        await wait_until(has_ended, within_s=60, what=lambda: self.heir.tail)


@pytest.fixture
async def scene(start: Start, http: aiohttp.ClientSession) -> AsyncIterator[Scene]:
    stack = start(gateways=1, edges=0, tcp=True, **SHORT)
    async with dispatcher_behind_proxy(stack) as (doomed, proxy), webhook() as hook:
        api = Api(http, stack.gateways[0].url, stack.admin_token)
        mine = AccountChannels(api, await api.api_key(scopes=("publish", "channels")))
        await put_rules(api, mine.key, KEPT)
        scene = Scene(stack, proxy, doomed, stack.new_dispatcher("heir"), mine, hook)
        try:
            yield scene
        finally:
            scene.heir.close()


@dataclass(frozen=True)
class Point:
    """Where the dispatcher dies: before the last of `texts`. `doubles`: the requests that come twice."""

    texts: tuple[bytes, ...]
    doubles: int


POINTS = {
    "before it claims": Point((sha("lease_claim"),), 0),
    "before it reads": Point((sha("batch_take"),), 0),
    "before the request": Point((sha("receipt_mark_sent"),), 0),
    "after the 2xx, before the ack": Point((sha("batch_ack"),), 1),
    "after the ack": Point((sha("batch_ack"), sha("batch_take")), 0),
}


@pytest.mark.parametrize("wanted", FORMATS)
@pytest.mark.parametrize("point", POINTS)
async def test_a_dispatcher_dies_between_two_commands(scene: Scene, point: str, wanted: str) -> None:
    channel = await create(scene.mine, scene.hook, format=wanted)
    await scene.warm(channel)
    if point == "before it claims":
        # It lingers with its lease otherwise.
        with scene.stack.valkey.client() as redis:
            name = keyspace.channel(str(id_shown(channel)))
            await wait_until(lambda: not redis.hexists(name, "owner"), what="the end of the visit")
    first, *rest = POINTS[point].texts
    if point == "after the ack" and wanted == "cloudevents-batch":
        # Nothing is left: the ack says so, and the visit only lingers before it ends.
        rest = [sha("lease_release")]
    scene.proxy.hold_from(first)
    await publish(scene.mine, *range(1, COUNT), receipt=True)
    await scene.kill_at(*rest)
    # A repetition must not grow by what came meanwhile.
    await publish(scene.mine, COUNT, receipt=True)
    await scene.inherit()

    await scene.until_delivered(channel)
    assert_complete_and_in_order(scene.hook, range(COUNT + 1))
    assert_repeats_are_known(scene.hook)
    assert doubles(scene.hook) == POINTS[point].doubles
    assert (await scene.mine.get(channel))["dropped"] == 0
    for number in range(COUNT + 1):
        [receipt] = (await scene.mine.api.receipt(scene.mine.key, f"e{number}")).json["channels"]
        assert receipt["state"] == "acked"


@pytest.mark.parametrize("wanted", FORMATS)
async def test_a_dispatcher_dies_during_the_request(scene: Scene, wanted: str) -> None:
    channel = await create(scene.mine, scene.hook, format=wanted)
    await scene.warm(channel)
    scene.hook.hangs()
    await publish(scene.mine, *range(1, COUNT))
    await wait_until(lambda: scene.hook.under_way == 1)

    await scene.kill()
    await publish(scene.mine, COUNT)
    scene.hook.takes()
    await scene.inherit()

    await scene.until_delivered(channel)
    assert_complete_and_in_order(scene.hook, range(COUNT + 1))
    assert_repeats_are_known(scene.hook)
    assert doubles(scene.hook) == 1
    listed = [event for attempt in await attempts(scene.mine, channel) for event in attempt["events"]]
    assert sorted(listed) == [f"e{number}" for number in range(COUNT + 1)], "each once: the first died"


@pytest.mark.parametrize("point", ["before the failure is written", "before the retry is scheduled"])
async def test_a_dispatcher_dies_with_a_failed_attempt(scene: Scene, point: str) -> None:
    channel = await create(scene.mine, scene.hook, backoff=[1])
    await scene.warm(channel)
    scene.hook.says(500)
    job = f"arq:job:{id_shown(channel)}:".encode()
    scene.proxy.hold_from(sha("batch_fail") if point == "before the failure is written" else job)
    await publish(scene.mine, *range(1, COUNT))
    await scene.kill_at()
    assert await state_of(scene.mine, channel) == (
        "active" if point == "before the failure is written" else "failing"
    )
    scene.hook.takes()
    await scene.inherit()

    await scene.until_delivered(channel)
    assert_complete_and_in_order(scene.hook, range(COUNT))
    assert_repeats_are_known(scene.hook)
    assert doubles(scene.hook) == 1
    assert await state_of(scene.mine, channel) == "active"


OF_REPLAYS = {
    "before a step": Point((sha("queue_append"),), 0),
    "after a step": Point((sha("queue_append"), sha("queue_append")), 0),
    "before the end": Point((sha("replay_end"),), 0),
    "before an ack of what is replayed": Point((sha("batch_ack"),), 1),
}


@pytest.mark.parametrize("point", OF_REPLAYS)
async def test_a_dispatcher_dies_during_a_replay(scene: Scene, point: str) -> None:
    """Each event comes once more, under its id, in order, between what is published meanwhile."""
    channel = await create(scene.mine, scene.hook)
    await scene.warm(channel)
    await publish(scene.mine, *REPLAYED[1:])
    await scene.mine.until(channel, pending=0)
    before = scene.hook.events
    scene.hook.calls.clear()

    first, *rest = OF_REPLAYS[point].texts
    is_sent, goes_on = first == sha("batch_ack"), asyncio.Event()

    async def answer(_: Call) -> web.StreamResponse:
        await goes_on.wait()
        return web.Response(status=204)

    if is_sent:
        scene.hook.answer = answer
    else:
        scene.proxy.hold_from(first)
    # So slow that it has several steps.
    begun = await scene.mine.post(channel, "replay", since=LONG_AGO, per_s=10)
    assert begun.status == 202, begun.text
    if is_sent:
        # The next ack is of the replay's first event.
        await wait_until(lambda: scene.hook.under_way == 1)
        scene.proxy.hold_from(first)
        goes_on.set()
    await scene.kill_at(*rest)
    scene.hook.takes()
    await scene.inherit()

    await scene.until_replayed(channel)
    await scene.until_delivered(channel)
    assert_complete_and_in_order(scene.hook, REPLAYED)
    assert_repeats_are_known(scene.hook)
    assert doubles(scene.hook) == OF_REPLAYS[point].doubles, [call.webhook_id for call in scene.hook.calls]
    once_more = list({event["id"]: event for event in scene.hook.events}.values())
    assert [(event["id"], event["data"]) for event in once_more] == [
        (event["id"], event["data"]) for event in before
    ]


async def test_a_step_of_a_replay_that_comes_too_late_queues_nothing(scene: Scene) -> None:
    """Its dispatcher stands still until another one has made the replay; then Redis gets the step."""
    channel = await create(scene.mine, scene.hook)
    await scene.warm(channel)
    await publish(scene.mine, *REPLAYED[1:])
    await scene.mine.until(channel, pending=0)
    scene.hook.calls.clear()
    scene.proxy.hold_from(sha("queue_append"))
    begun = await scene.mine.post(channel, "replay", since=LONG_AGO, per_s=100)
    assert begun.status == 202, begun.text
    await scene.proxy.until_it_holds()
    scene.doomed.freeze()
    try:
        await scene.inherit()
        await scene.until_replayed(channel)
        await scene.until_delivered(channel)
        await scene.proxy.release()
    finally:
        scene.doomed.thaw()

    assert (await scene.mine.get(channel))["pending"] == 0
    assert (await scene.mine.call("GET", f"/{channel}/replay")).json["queued"] == len(REPLAYED)
    assert numbers(scene.hook) == list(REPLAYED)


@pytest.mark.parametrize("step", ["before it is published", "before it is removed"])
@pytest.mark.parametrize("kind", ["disabled", "exhausted", "recovered"])
async def test_an_account_gets_its_notice_although_the_dispatcher_dies(
    scene: Scene, kind: str, step: str
) -> None:
    """Twice at most, and then under one id."""
    watcher = (await scene.mine.create("pull", bindings=["system.webhook.#"]))["id"]
    channel = await create(scene.mine, scene.hook, backoff=[1], give_up_after_s=1)
    await scene.warm(channel)
    if kind == "recovered":
        scene.hook.says(410)
        await publish(scene.mine, 1)
        await scene.mine.until(watcher, pending=1)
        scene.hook.takes()
    else:
        scene.hook.says(410 if kind == "disabled" else 500)
    scene.proxy.hold_from(sha("queue_append" if step == "before it is published" else "webhook_noticed"))
    if kind == "recovered":
        await scene.mine.do(channel, "resume")
    else:
        await publish(scene.mine, 1)
    await scene.kill_at()
    scene.hook.takes()
    await scene.inherit()

    found: list[dict[str, Any]] = []

    async def has_notice() -> bool:
        fetched = await scene.mine.fetch(watcher, max=100, wait_s=1)
        found.extend(fetched.events)
        if fetched.events:
            await scene.mine.post(watcher, "ack", lease=fetched.lease, until=fetched.entries[-1])
        return any(event["topic"] == f"system.webhook.{kind}" for event in found)

    await wait_until(has_notice, within_s=60, what=lambda: (found, scene.heir.tail))
    with scene.stack.valkey.client() as redis:
        name = keyspace.channel(str(id_shown(channel)))
        await wait_until(lambda: not redis.hexists(name, "notices"), what="the end of the notice")
    while (fetched := await scene.mine.fetch(watcher, max=100)).events:
        found += fetched.events
        await scene.mine.post(watcher, "ack", lease=fetched.lease, until=fetched.entries[-1])
    of_kind = [event for event in found if event["topic"] == f"system.webhook.{kind}"]
    assert 1 <= len(of_kind) <= 2
    assert len({event["id"] for event in of_kind}) == 1
    assert len({str(event["data"]) for event in of_kind}) == 1


@pytest.mark.parametrize("at_once", [1, 20])
@pytest.mark.parametrize("is_acked", [True, False], ids=["acked by the heir", "under way at the heir"])
@pytest.mark.parametrize("status", [204, 500, 410])
async def test_a_dispatcher_that_stood_still_changes_nothing_any_more(
    scene: Scene, status: int, is_acked: bool, at_once: int
) -> None:
    """It stands still during a request, past its heartbeat. Another one repeats the request; then it goes on,
    and has an answer of its own."""
    hook, late, other = scene.hook, asyncio.Event(), asyncio.Event()
    channel = await create(scene.mine, hook, timeout_s=60, max_in_flight=at_once)
    await scene.warm(channel)
    hook.calls.clear()

    async def answer(call: Call) -> web.StreamResponse:
        await (late if call is hook.calls[0] else other).wait()
        return web.Response(status=status if call is hook.calls[0] else 204)

    hook.answer = answer
    await publish(scene.mine, 1)
    await wait_until(lambda: len(hook.calls) == 1)
    scene.doomed.freeze()
    try:
        await scene.inherit()
        await wait_until(lambda: len(hook.calls) == 2, within_s=60, what=lambda: scene.heir.tail)
        if is_acked:
            other.set()
            await scene.until_delivered(channel)
    finally:
        scene.doomed.thaw()
    what = "entry" if at_once > 1 else "batch"
    scene.proxy.hold_from(sha(f"{what}_ack" if status == 204 else f"{what}_fail"))
    late.set()
    await scene.proxy.until_it_holds()
    # Fenced: its ack or its failure is executed now.
    await scene.proxy.release()

    if not is_acked:
        assert (await scene.mine.get(channel))["pending"] == 1
        assert [attempt["events"] for attempt in await attempts(scene.mine, channel)] == [["e0"]]
        other.set()
    await scene.until_delivered(channel)
    await publish(scene.mine, 2)
    await scene.until_delivered(channel)
    shown = await scene.mine.get(channel)
    assert (shown["state"], shown["dropped"]) == ("active", 0)
    assert numbers(hook) == [1, 1, 2]
    assert hook.calls[0].webhook_id == hook.calls[1].webhook_id
    assert events_of(hook.calls[0]) == events_of(hook.calls[1])
    listed = await attempts(scene.mine, channel)
    assert [(attempt["status"], attempt["events"]) for attempt in listed] == [
        (204, [f"e{number}"]) for number in (2, 1, 0)
    ]
