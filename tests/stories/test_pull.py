"""Pull: consumers fetch from native channels through any gateway, and ack or nack what they got."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest

from shared.model.account_channels import id_shown
from shared.store import keyspace
from tests.harness.api import Api, Response
from tests.harness.channels import AccountChannels, Fetch
from tests.harness.processes import Service
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.stories.test_errors import assert_error

LONG = {"wait_s": 30}


@pytest.fixture
async def mine(api: Api) -> AccountChannels:
    """The channels of a new account, by a key that publishes too."""
    return AccountChannels(api, await api.api_key(scopes=("publish", "channels")))


@pytest.fixture
def by_other(mine: AccountChannels, other_api: Api) -> AccountChannels:
    """The same through the second gateway."""
    return AccountChannels(other_api, mine.key)


async def pull_channel(mine: AccountChannels, **more: Any) -> str:
    return str((await mine.create("pull", bindings=["orders.#"], **more))["id"])


async def publish(mine: AccountChannels, *numbers: int, **more: Any) -> None:
    events = ({"topic": "orders.paid", "data": {"number": number}, **more} for number in numbers)
    assert await mine.api.publish(mine.key, *events) == [1] * len(numbers)


@asynccontextmanager
async def waiting(by: AccountChannels, channel: str, stack: Stack) -> AsyncIterator[asyncio.Task[Response]]:
    """A fetch that has found nothing yet."""
    task = asyncio.create_task(by.post(channel, "fetch", **LONG))
    with stack.redis.client() as direct:
        name = keyspace.channel(id_shown(channel) or "")
        await wait_until(lambda: direct.hexists(name, "released_at_ms"))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@contextmanager
def gateway(stack: Stack, **settings: object) -> Iterator[Service]:
    service = stack.new_gateway("gateway-extra", **settings)
    try:
        service.start()
        service.wait_ready()
        yield service
    finally:
        service.close()


async def test_competing_consumers_get_each_event_once_and_in_order(
    mine: AccountChannels, by_other: AccountChannels
) -> None:
    channel, got, count = await pull_channel(mine), list[int](), 120

    async def consume(by: AccountChannels) -> None:
        while len(got) < count:
            response = await by.post(channel, "fetch", max=7, wait_s=0.5)
            if response.status == 409:
                assert_error(response, 409, "busy")
                assert response.headers["Retry-After"] == "1"
                continue
            fetched = Fetch(**response.json)
            got.extend(fetched.numbers)
            if fetched.events:
                body = {"lease": fetched.lease, "until": fetched.entries[-1]}
                assert (await by.post(channel, "ack", **body)).status == 204

    async def produce() -> None:
        for start in range(0, count, 10):
            await publish(mine, *range(start, start + 10))

    await asyncio.gather(produce(), *(consume(by) for by in (mine, by_other) * 2))

    assert got == list(range(count))
    assert (await mine.get(channel))["pending"] == 0


async def test_what_a_killed_consumer_had_comes_again(
    mine: AccountChannels, by_other: AccountChannels
) -> None:
    channel = await pull_channel(mine, ack_timeout_s=1)
    await publish(mine, *range(5))
    first = await mine.fetch(channel, max=3)
    found: list[Fetch] = []

    async def comes_again() -> bool:
        response = await by_other.post(channel, "fetch", max=3)
        if response.status == 200:
            found.append(Fetch(**response.json))
        return bool(found)

    await wait_until(comes_again)

    assert found[0].events == first.events
    late = {"lease": first.lease, "until": first.entries[0]}
    assert_error(await mine.post(channel, "ack", **late), 409, "conflict", field="lease")
    late = {"lease": first.lease, "entry": first.entries[0]}
    assert_error(await mine.post(channel, "nack", **late), 409, "conflict", field="lease")
    assert (await mine.get(channel))["pending"] == 5


async def test_a_wait_ends_with_the_first_event(
    mine: AccountChannels, by_other: AccountChannels, stack: Stack
) -> None:
    channel = await pull_channel(mine)
    async with waiting(by_other, channel, stack) as fetch:
        began_s = time.monotonic()
        await publish(mine, 7, id="e", name="n", time="t")
        response = await fetch

    assert time.monotonic() - began_s < LONG["wait_s"] / 2
    [event] = response.json["events"]
    event.pop("entry")
    assert event == {"id": "e", "topic": "orders.paid", "name": "n", "time": "t", "data": {"number": 7}}


async def test_a_wait_that_finds_nothing(mine: AccountChannels) -> None:
    channel = await pull_channel(mine)

    assert await mine.fetch(channel, wait_s=0.3) == Fetch([], None, None)


async def test_the_order_across_a_nack(mine: AccountChannels, by_other: AccountChannels) -> None:
    channel = await pull_channel(mine)
    await publish(mine, *range(6))
    first = await mine.fetch(channel, max=5)

    ack = {"lease": first.lease, "until": first.entries[1]}
    assert (await by_other.post(channel, "ack", **ack)).status == 204
    nack = {"lease": first.lease, "entry": first.entries[2]}
    assert (await by_other.post(channel, "nack", **nack)).status == 204

    second = await mine.fetch(channel)
    assert second.numbers == [2, 3, 4, 5]
    delayed = {"lease": second.lease, "entry": second.entries[0], "delay_s": 1}
    assert (await mine.post(channel, "nack", **delayed)).status == 204
    assert (await by_other.fetch(channel, **LONG)).numbers == [2, 3, 4, 5]


async def test_what_is_before_a_nack_is_not_acknowledged(
    mine: AccountChannels, by_other: AccountChannels
) -> None:
    channel = await pull_channel(mine)
    await publish(mine, *range(3))
    first = await mine.fetch(channel)
    await mine.post(channel, "nack", lease=first.lease, entry=first.entries[1])

    assert_error(await by_other.post(channel, "fetch"), 409, "busy")
    shown = await mine.get(channel)
    assert (shown["pending"], shown["fetched"], shown["ack_by"]) == (3, 1, first.ack_by)
    given_back = {"lease": first.lease, "until": first.entries[1]}
    assert_error(await mine.post(channel, "ack", **given_back), 400, "validation_error", field="until")
    await mine.post(channel, "ack", lease=first.lease, until=first.entries[0])
    assert (await by_other.fetch(channel)).numbers == [1, 2]


async def test_a_client_that_goes_while_it_waits_takes_nothing(mine: AccountChannels, stack: Stack) -> None:
    channel = await pull_channel(mine)
    with gateway(stack, MOST_FETCHES=1) as extra:
        by = AccountChannels(mine.api.at(extra.url), mine.key)
        async with waiting(by, channel, stack) as fetch:
            await wait_until(lambda: is_full(by, channel))
            fetch.cancel()
            with suppress(asyncio.CancelledError):
                await fetch

        async def is_free() -> bool:
            return not await is_full(by, channel)

        await wait_until(is_free, within_s=LONG["wait_s"] / 2)
        await publish(mine, 1)
        assert (await by.fetch(channel, **LONG)).numbers == [1]


async def is_full(by: AccountChannels, channel: str) -> bool:
    """Whether no more fetch may wait there."""
    return (await by.post(channel, "fetch", wait_s=0.01)).status == 503


async def test_a_gateway_that_stops_ends_its_waits(mine: AccountChannels, stack: Stack) -> None:
    channel = await pull_channel(mine)
    with gateway(stack, MOST_FETCHES=1) as extra:
        by = AccountChannels(mine.api.at(extra.url), mine.key)
        async with waiting(by, channel, stack) as fetch:
            await wait_until(lambda: is_full(by, channel))
            refused = await by.post(channel, "fetch", **LONG)
            assert_error(refused, 503, "service_unavailable")
            assert refused.headers["Retry-After"] == "1"
            assert (await by.fetch(channel)).events == []

            extra.terminate()

            response = await fetch
    assert (response.status, response.json["events"]) == (200, [])


async def test_a_key_that_ends_while_it_waits_gets_nothing(mine: AccountChannels, stack: Stack) -> None:
    channel = await pull_channel(mine)
    key = await mine.api.api_key(account=mine.key.account, scopes=("channels",))
    async with waiting(AccountChannels(mine.api, key), channel, stack) as fetch:
        await mine.api.revoke(key)
        await publish(mine, 1)
        assert (await fetch).status == 401

    assert (await mine.fetch(channel)).numbers == [1]


async def test_a_channel_that_is_paused_under_a_wait(mine: AccountChannels, stack: Stack) -> None:
    channel = await pull_channel(mine)
    async with waiting(mine, channel, stack) as fetch:
        await mine.do(channel, "pause")
        await publish(mine, 1)
        assert_error(await fetch, 409, "conflict")


async def test_a_channel_that_ends_under_a_wait(
    mine: AccountChannels, by_other: AccountChannels, stack: Stack
) -> None:
    channel = await pull_channel(mine)
    await publish(mine, 1)
    fetched = await mine.fetch(channel)
    await mine.post(channel, "nack", lease=fetched.lease, entry=fetched.entries[0], delay_s=3600)
    async with waiting(by_other, channel, stack) as fetch:
        assert (await mine.call("DELETE", f"/{channel}")).status == 204
        assert_error(await fetch, 404, "not_found")


async def test_what_is_not_fetched_from(mine: AccountChannels) -> None:
    channel = await pull_channel(mine)
    await publish(mine, 1)
    await mine.do(channel, "pause")
    paused = await mine.post(channel, "fetch")
    assert_error(paused, 409, "conflict")
    assert "paused" in paused.json["message"]
    await mine.do(channel, "resume")
    fetched = await mine.fetch(channel)
    assert fetched.numbers == [1]

    await mine.do(channel, "purge", 200)

    late = {"lease": fetched.lease, "until": fetched.entries[0]}
    assert_error(await mine.post(channel, "ack", **late), 409, "conflict", field="lease")
    await mine.create("websocket", name="socket")
    assert "kind pull" in (await mine.post("socket", "fetch")).json["message"]
    assert_error(await mine.post("missing", "fetch"), 404, "not_found")


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "nothing": ("fetch", {"max": 0}, "max"),
    "too many": ("fetch", {"max": 101}, "max"),
    "too long": ("fetch", {"wait_s": 31}, "wait_s"),
    "an unknown field": ("fetch", {"limit": 1}, "limit"),
    "no lease": ("ack", {"until": "1-0"}, "lease"),
    "no entry": ("ack", {"lease": "x"}, "until"),
    "an entry that is none": ("ack", {"lease": "x", "until": "+"}, "until"),
    "an entry of another form": ("nack", {"lease": "x", "entry": "01-0"}, "entry"),
    "too long a delay": ("nack", {"lease": "x", "entry": "1-0", "delay_s": 3601}, "delay_s"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_is_wrong_is_named(mine: AccountChannels, what: str) -> None:
    channel = await pull_channel(mine)
    verb, body, field = WRONG[what]

    assert_error(await mine.post(channel, verb, **body), 400, "validation_error", field=field)


async def test_the_time_for_acks_is_a_setting_of_the_channel(mine: AccountChannels) -> None:
    channel = await pull_channel(mine, ack_timeout_s=5)
    for given, shown in ((7, 7), (None, 30)):
        changed = await mine.call("PATCH", f"/{channel}", json={"ack_timeout_s": given})
        assert changed.json["ack_timeout_s"] == shown
        assert (await mine.get(channel))["ack_timeout_s"] == shown
    socket = await mine.create("websocket")
    for refused in (
        await mine.call("PATCH", f"/{socket['id']}", json={"ack_timeout_s": 5}),
        await mine.call("POST", json={"kind": "websocket", "ack_timeout_s": 5}),
        await mine.call("POST", json={"kind": "pull", "ack_timeout_s": 0}),
        await mine.call("POST", json={"kind": "pull", "ack_timeout_s": 3601}),
    ):
        assert_error(refused, 400, "validation_error", field="ack_timeout_s")


async def test_receipts(mine: AccountChannels) -> None:
    channel = await pull_channel(mine)
    for number in range(2):
        await publish(mine, number, id=f"e{number}", receipt=True)
    fetched = await mine.fetch(channel)

    await mine.post(channel, "ack", lease=fetched.lease, until=fetched.entries[0])

    for number, state in enumerate(("acked", "sent")):
        [receipt] = (await mine.api.receipt(mine.key, f"e{number}")).json["channels"]
        assert (receipt["state"], receipt["channel"]) == (state, channel)
