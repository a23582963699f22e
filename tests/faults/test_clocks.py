"""Wall clocks that are wrong, or are set while a process runs: Redis' time counts, and nothing is lost."""

import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import Listen, Measured, Start
from tests.harness.api import Api, ApiKey
from tests.harness.events import number_of, reading, readings
from tests.harness.polls import Polls, numbers_in
from tests.harness.processes import Service
from tests.harness.stack import Stack
from tests.harness.valkey import Valkey
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Webhook, webhook
from tests.harness.wrong_clock import WrongClock
from tests.stories.test_api_keys import is_refused, made
from tests.stories.test_ended_credentials import opened
from tests.stories.test_kazoo_rest import token_for

pytestmark = pytest.mark.long

FAR = ["+25h", pytest.param("-25h", marks=pytest.mark.long)]
# What a moment may be off, besides what a busy machine adds.
WITHIN_S = 2.0
_OFFSET = re.compile(r"^notify_clock_offset_seconds(?:\{.*\})? (\S+)$", re.MULTILINE)


@dataclass
class Scene:
    """An installation with the right time, and processes beside it that share a wrong clock."""

    stack: Stack
    clock: WrongClock
    api: Api
    wrong: list[Service] = field(default_factory=list)

    def start(self, *services: Service) -> None:
        self.clock.rule(*services)
        self.wrong.extend(services)
        for service in services:
            service.start()
        for service in services:
            service.wait_ready()

    def gateway(self) -> Api:
        """A client of a gateway with the wrong clock."""
        gateway = self.stack.new_gateway("wrong-gateway")
        self.start(gateway)
        return self.api.at(gateway.url)

    def edge(self) -> Service:
        edge = self.stack.new_edge("wrong-edge")
        self.start(edge)
        return edge


@pytest.fixture
def scene(start: Start, http: aiohttp.ClientSession) -> Iterator[Scene]:
    stack = start(edges=1, ALLOW_PRIVATE_CALLBACKS=1, WEBSOCKET_EXPIRY_S=86_400)
    scene = Scene(stack, WrongClock(stack.folder), Api(http, stack.gateways[0].url, stack.admin_token))
    try:
        yield scene
    finally:
        for service in scene.wrong:
            service.close()


@pytest.fixture
async def hook() -> AsyncIterator[Webhook]:
    async with webhook() as receiver:
        yield receiver


async def with_backlog(api: Api, count: int) -> ApiKey:
    """A registered key with `count` notifications pending."""
    key = await api.api_key()
    await api.register(key)
    assert set(await api.publish(key, *readings(range(count), to=key.id))) == {1}
    return key


@pytest.mark.parametrize("offset", FAR)
async def test_a_publish_through_a_gateway_with_a_wrong_clock_drops_nothing(
    scene: Scene, listen: Listen, offset: str
) -> None:
    scene.clock.set(offset)
    through_wrong = scene.gateway()
    key = await with_backlog(scene.api, 100)

    assert await through_wrong.publish(key, reading(100, to=key.id)) == [1]

    assert await scene.api.queue_size(key) == 101
    receiver = await listen(key, scene.stack.edges[0].url)
    await receiver.received_numbers(range(101))
    await scene.api.until(key, queue_size=0)


@pytest.mark.parametrize("offset", FAR)
async def test_the_deadline_of_a_request_is_by_the_clock_of_redis(scene: Scene, offset: str) -> None:
    scene.clock.set(offset)
    gateways = [scene.gateway(), scene.api]
    key = await with_backlog(scene.api, 1)

    for number, order in enumerate((gateways, gateways[::-1]), start=1):
        responses = [
            await through.call(
                "POST",
                "/v1/events",
                key=key,
                json=reading(number, to=key.id),
                headers={"Idempotency-Key": f"order-{number}"},
            )
            for through in order
        ]
        assert [response.status for response in responses] == [202, 202]
        assert ["Idempotent-Replayed" in response.headers for response in responses] == [False, True]
    assert await scene.api.queue_size(key) == 3


@pytest.mark.parametrize("offset", FAR)
async def test_an_edge_with_a_wrong_clock_delivers_everything(
    scene: Scene, listen: Listen, offset: str
) -> None:
    scene.clock.set(offset)
    edge = scene.edge()
    key = await with_backlog(scene.api, 100)

    receiver = await listen(key, edge.url)

    await receiver.received_numbers(range(100))
    assert await scene.api.publish(key, reading(100, to=key.id)) == [1]
    await receiver.received_numbers(range(101))
    await scene.api.until(key, queue_size=0)


@pytest.mark.parametrize("offset", FAR)
async def test_a_dispatcher_with_a_wrong_clock_signs_and_retries_by_redis_time(
    scene: Scene, hook: Webhook, offset: str
) -> None:
    scene.clock.set(offset)
    scene.start(scene.stack.new_dispatcher("wrong-dispatcher", SWEEP_S=3600))
    key = await scene.api.api_key()
    await scene.api.register_webhook(key, hook.url)
    hook.says(500)

    began_s = time.time()
    await scene.api.publish(key, *readings(range(10), to=key.id))
    await wait_until(lambda: len(hook.calls) >= 2, what="a retry, which no sweep makes")
    hook.takes()
    until = len(hook.calls)
    await wait_until(lambda: len(hook.calls) > until, what="a retry that is accepted")
    assert await scene.api.publish(key, reading(10, to=key.id)) == [1]
    await wait_until(lambda: number_of(hook.items[-1]) == 10)

    ended_s = time.time()
    assert {number_of(item) for item in hook.items} == {*range(11)}
    stamps = [int(call.headers["webhook-timestamp"]) for call in hook.calls]
    assert all(began_s - WITHIN_S < stamp < ended_s + WITHIN_S for stamp in stamps), (began_s, stamps)
    shown = (await scene.api.call("GET", f"/v1/channels/{key.id}/deliveries", key=key)).json
    moments = [datetime.fromisoformat(each["at"]).timestamp() for each in shown["deliveries"]]
    assert all(began_s - WITHIN_S < moment < ended_s + WITHIN_S for moment in moments), shown


@pytest.mark.parametrize(
    "offset", ["+11m", *(pytest.param(far, marks=pytest.mark.long) for far in ("+25h", "-25h"))]
)
async def test_a_reaper_with_a_wrong_clock_ends_only_what_has_expired(
    start: Start, http: aiohttp.ClientSession, offset: str
) -> None:
    """The pull channel expires after ten minutes, and the other one after two seconds: that it ends shows
    that the reaper has seen both."""
    stack = start(edges=1, WEBSOCKET_EXPIRY_S=2)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    clock = WrongClock(stack.folder)
    clock.set(offset)
    polled, idle = await api.api_key(), await api.api_key()
    polls = Polls(api, polled, stack.edges[0])
    poll = await polls.open()
    await api.publish(polled, reading(0, to=polled.id))
    assert numbers_in(await poll) == [0]

    reaper = stack.new_reaper("wrong-reaper")
    clock.rule(reaper)
    stack.reapers.append(reaper)
    reaper.start()
    reaper.wait_ready()
    for _ in range(2):
        await api.register(idle)
        await wait_until(partial(is_gone, api, idle), within_s=60, what=reaper.tail)

    assert await api.publish(polled, reading(1, to=polled.id)) == [1]
    assert numbers_in(await polls.now()) == [1]


@pytest.mark.long
@pytest.mark.parametrize("offset", FAR)
async def test_tokens_and_expiries_are_the_same_for_all_processes(
    scene: Scene, http: aiohttp.ClientSession, listen: Listen, record_property: Measured, offset: str
) -> None:
    scene.clock.set(offset)
    through_wrong, wrong_edge, right_edge = scene.gateway(), scene.edge(), scene.stack.edges[0]
    key = await scene.api.api_key()

    for minting, edge in ((through_wrong, right_edge), (scene.api, wrong_edge)):
        token = await token_for(minting, key)
        for by in ("token in the header", "token in a frame"):
            await (await opened(http, edge.url, token, by=by)).close()

    ends_s = time.time() + 3
    expiring = await made(through_wrong, expires_at=datetime.fromtimestamp(ends_s, UTC).isoformat())
    await through_wrong.register(expiring)
    receiver = await listen(expiring, wrong_edge.url)
    assert await scene.api.publish(expiring, reading(1, to=expiring.id)) == [1]
    await receiver.received_numbers([1])

    assert await receiver.closed() == 1008
    late_s = time.time() - ends_s
    record_property(f"an API key's socket closes after its expiry, clock {offset}", f"{late_s * 1000:.0f} ms")
    assert -0.1 < late_s < WITHIN_S
    for gateway in (scene.api, through_wrong):
        assert await is_refused(gateway, expiring)


async def test_a_wrong_clock_is_shown(scene: Scene) -> None:
    scene.clock.set("+90s")

    through_wrong = scene.gateway()

    said = await through_wrong.call("GET", "/readyz")
    assert (said.status, said.text.splitlines()[0]) == (200, "ready"), "it judges by Redis' time"
    found = re.search(r"the clock of this machine is (\d+\.\d) s ahead of Redis'", said.text)
    assert found is not None, said.text
    assert float(found[1]) == pytest.approx(90, abs=WITHIN_S)
    page = (await through_wrong.call("GET", "/metrics")).text
    shown = _OFFSET.search(page)
    assert shown is not None, page
    assert float(shown[1]) == pytest.approx(90, abs=WITHIN_S)
    assert scene.wrong[0].stderr.count("clock.off") == 1
    assert (await scene.api.call("GET", "/readyz")).text == "ready\n"
    assert "clock.off" not in scene.stack.gateways[0].stderr


@pytest.mark.parametrize("offset", ["-1h", pytest.param("+1h", marks=pytest.mark.long)])
async def test_a_clock_that_is_set_while_its_processes_run_changes_nothing(
    scene: Scene, listen: Listen, hook: Webhook, offset: str
) -> None:
    scene.clock.set("+0")
    through_wrong, edge = scene.gateway(), scene.edge()
    scene.start(scene.stack.new_dispatcher("wrong-dispatcher"))
    key, hooked = await scene.api.api_key(), await scene.api.api_key()
    await through_wrong.register(key)
    await through_wrong.register_webhook(hooked, hook.url)
    receiver = await listen(key, edge.url)
    first, second = range(50), range(50, 100)
    for each in (key, hooked):
        assert set(await through_wrong.publish(each, *readings(first, to=each.id))) == {1}
    await receiver.received_numbers(first)

    scene.clock.set(offset)

    async def is_noticed() -> bool:
        said = [(await scene.api.at(service.url).call("GET", "/readyz")).text for service in scene.wrong]
        return all("the clock of this machine is" in each for each in said)

    await wait_until(is_noticed)
    for each in (key, hooked):
        assert set(await through_wrong.publish(each, *readings(second, to=each.id))) == {1}
    await receiver.received_numbers(range(100))
    await wait_until(lambda: [number_of(item) for item in hook.items] == [*range(100)])
    await scene.api.until(key, queue_size=0)
    again = await listen(key, edge.url)
    assert await scene.api.publish(key, reading(100, to=key.id)) == [1]
    await again.received_numbers([100])


async def is_gone(api: Api, key: ApiKey) -> bool:
    return (await api.channel(key)).status == 404


@pytest.mark.parametrize("offset", ["-1h", pytest.param("+1h", marks=pytest.mark.long)])
async def test_a_clock_of_redis_that_is_set_loses_nothing(
    start: Start, http: aiohttp.ClientSession, listen: Listen, hook: Webhook, offset: str
) -> None:
    """What is pending then, and what comes later, arrives in order and once."""
    clocks: list[WrongClock] = []

    def with_clock(folder: Path) -> Valkey:
        valkey = Valkey(folder)
        clocks.append(WrongClock(folder))
        clocks[0].set("+0")
        clocks[0].rule(valkey)
        return valkey

    stack = start(redis_like=with_clock, edges=1, dispatchers=1, ALLOW_PRIVATE_CALLBACKS=1, HEARTBEAT_S=0.5)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    keys = connected, away, hooked = [await api.api_key() for _ in range(3)]
    for key in (connected, away):
        await api.register(key)
    await api.register_webhook(hooked, hook.url)
    receiver = await listen(connected, stack.edges[0].url)
    for key in keys:
        await api.publish(key, *readings(range(50), to=key.id))
    await receiver.received_numbers(range(50))

    clocks[0].set(offset)

    async def all_follow() -> bool:
        said = [(await api.at(service.url).call("GET", "/readyz")).text for service in stack.services]
        return all("Redis'" in each for each in said)

    await wait_until(all_follow, within_s=40, what="the next measurement")
    for key in keys:
        assert set(await api.publish(key, *readings(range(50, 100), to=key.id))) == {1}
    await receiver.received_numbers(range(100))
    late = await listen(away, stack.edges[0].url)
    await late.received_numbers(range(100))
    await wait_until(lambda: [number_of(item) for item in hook.items] == [*range(100)])
    for key in (connected, away):
        await api.until(key, queue_size=0)
    assert receiver.open_now
