"""Topics on the native WebSocket: what a socket may read, from where, and when it ends.

docs/protocols/native.md
"""

from typing import Any

import aiohttp
import pytest

from tests.harness.api import Api, ApiKey
from tests.harness.metrics import metric
from tests.harness.native import NativeSocket, native_socket
from tests.harness.sse import OTHER, TOPIC, bind, keep, publish
from tests.harness.stack import Stack
from tests.harness.tokens import Issuer, issuer
from tests.harness.waiting import wait_until

READ = ["orders.#"]


@pytest.fixture
async def admin(api: Api) -> ApiKey:
    made = await api.api_key(scopes=("publish", "receive", "channels", "admin"))
    await keep(api, made, "orders.#", "free")
    return made


@pytest.fixture
async def back_end(api: Api, admin: ApiKey) -> Issuer:
    return await issuer(api, admin)


async def test_two_tabs_with_one_token_read_the_same(
    stack: Stack, api: Api, admin: ApiKey, back_end: Issuer
) -> None:
    """Also on two edges, and none is closed for the other."""
    token = back_end.token(read=READ)
    async with (
        native_socket(stack.edges[0].url, token=token) as one,
        native_socket(stack.edges[0].url, bearer=token) as two,
        native_socket(stack.edges[1].url, token=token) as three,
    ):
        tabs = [one, two, three]
        for tab in tabs:
            begun = await tab.ask(subscribe={"topic": TOPIC})
            assert (begun["topic"], begun["recovered"]) == (TOPIC, True)
        offsets = await publish(api, admin, 1, {"a": [2]})
        for tab in tabs:
            await tab.until_data([1, {"a": [2]}])
            frames = tab.of("event")
            assert [frame["offset"] for frame in frames] == offsets
            assert {frame["topic"] for frame in frames} == {TOPIC}
            assert frames[0]["event"]["type"] == TOPIC
            assert frames[0]["event"]["notifyoffset"] == offsets[0]
            assert not tab.has_ended
        assert one.of("event") == three.of("event")


async def test_a_socket_begins_where_it_wants(
    stack: Stack, api: Api, admin: ApiKey, back_end: Issuer
) -> None:
    offsets = await publish(api, admin, 1, 2, 3)
    async with native_socket(stack.edges[0].url, token=back_end.token(read=READ)) as socket:
        begun = await socket.ask(subscribe={"topic": TOPIC, "from": "earliest"})
        assert (begun["first"], begun["recovered"]) == (offsets[0], True)
        await socket.until_data([1, 2, 3])
    place = {"topic": TOPIC, "epoch": begun["epoch"], "after": offsets[1]}
    async with native_socket(stack.edges[1].url, token=back_end.token(read=READ)) as socket:
        begun = await socket.ask(subscribe=place)
        assert (begun["offset"], begun["recovered"]) == (offsets[1], True)
        await socket.until_data([3])
        assert (await socket.refused(subscribe=place))["code"] == "conflict"
        assert await socket.ask(unsubscribe={"topic": TOPIC}) == {"topic": TOPIC}
        assert (await socket.refused(unsubscribe={"topic": TOPIC}))["code"] == "not_found"
        begun = await socket.ask(subscribe={"topic": TOPIC, "from": "latest"})
        assert begun["offset"] == offsets[2]
        await publish(api, admin, 4)
        await socket.until_data([3, 4])


@pytest.mark.parametrize(
    ("place", "reason"),
    [({"epoch": "a0", "after": "1-0"}, "lost"), ({"epoch": "", "after": "99999999999999-0"}, "lost")],
)
async def test_what_is_missing_is_told(
    stack: Stack, api: Api, admin: ApiKey, back_end: Issuer, place: dict[str, str], reason: str
) -> None:
    [offset] = await publish(api, admin, 1)
    async with native_socket(stack.edges[0].url, token=back_end.token(read=READ)) as socket:
        begun = await socket.ask(subscribe={"topic": TOPIC, **place})
        assert (begun["recovered"], begun["reason"], begun["first"]) == (False, reason, offset)


async def test_a_purge_is_told_to_a_socket_that_is_connected(
    stack: Stack, api: Api, admin: ApiKey, back_end: Issuer
) -> None:
    await publish(api, admin, 1)
    async with native_socket(stack.edges[0].url, token=back_end.token(read=READ)) as socket:
        begun = await socket.ask(subscribe={"topic": TOPIC})
        assert (await api.call("DELETE", f"/v1/streams/{TOPIC}", key=admin)).status == 204
        told = (await socket.next("recovered"))["recovered"]
        assert (told["topic"], told["recovered"], told["reason"]) == (TOPIC, False, "purged")
        assert told["epoch"] != begun["epoch"]
        await publish(api, admin, 2)
        await socket.until_data([2])


async def test_the_first_event_of_a_topic_tells_its_epoch(
    stack: Stack, api: Api, admin: ApiKey, back_end: Issuer
) -> None:
    """Without it a client could not come back to its place."""
    token = back_end.token(read=READ)
    async with native_socket(stack.edges[0].url, token=token) as socket:
        begun = await socket.ask(subscribe={"topic": TOPIC})
        assert (begun["epoch"], begun["offset"]) == ("", "0-0")
        [offset] = await publish(api, admin, 1)
        await socket.until_data([1])
        [told] = socket.of("recovered")
        assert told["recovered"]["recovered"] is True
        epoch = told["recovered"]["epoch"]
    await publish(api, admin, 2)
    async with native_socket(stack.edges[1].url, token=token) as socket:
        begun = await socket.ask(subscribe={"topic": TOPIC, "epoch": epoch, "after": offset})
        assert begun["recovered"] is True
        await socket.until_data([2])


async def test_events_for_others_move_the_place(
    stack: Stack, shared_stack: Stack, api: Api, admin: ApiKey, back_end: Issuer
) -> None:
    with shared_stack.more_edges("edge-quiet", SSE_HEARTBEAT_S=1) as [edge]:
        async with native_socket(edge.url, token=back_end.token(read=READ)) as socket:
            await socket.ask(subscribe={"topic": TOPIC})
            await publish(api, admin, 1)
            [offset] = await publish(api, admin, 2, customer="c")
            moved = (await socket.next("moved"))["moved"]
            assert moved == {"topic": TOPIC, "offset": offset}
            await publish(api, admin, 3)
            await socket.until_data([1, 3])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no right": ({"topic": "free"}, "forbidden"),
    "no right and no stream": ({"topic": "stock"}, "forbidden"),
    "no stream": ({"topic": "orders.late"}, "not_found"),
    "a pattern": ({"topic": "orders.*"}, "invalid"),
    "a device's": ({"topic": "device.a"}, "invalid"),
    "a place without an epoch": ({"topic": TOPIC, "after": "1-0"}, "invalid"),
    "a place and a beginning": ({"topic": TOPIC, "after": "1-0", "epoch": "", "from": "latest"}, "invalid"),
    "an offset that is none": ({"topic": TOPIC, "after": "now", "epoch": ""}, "invalid"),
    "an unknown field": ({"topic": TOPIC, "since": "1-0"}, "invalid"),
    "nothing": ({}, "invalid"),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_a_token_does_not_name_is_not_read(
    stack: Stack, api: Api, admin: ApiKey, back_end: Issuer, what: str
) -> None:
    await keep(api, admin, TOPIC, OTHER, "free")
    body, code = REFUSED[what]
    token = back_end.token(read=["orders.#", "system.#"], publish=["#"], channels=["free"])
    async with native_socket(stack.edges[0].url, token=token) as socket:
        assert (await socket.refused(subscribe=body))["code"] == code
        await socket.ask(subscribe={"topic": TOPIC})
        await publish(api, admin, 1, topic="free")
        await publish(api, admin, 2)
        await socket.until_data([2])


async def test_an_api_key_reads_what_is_bound_to_it(stack: Stack, api: Api, admin: ApiKey) -> None:
    key = await api.api_key(account=admin.account, scopes=("receive",))
    await bind(api, key, TOPIC, {"topic": OTHER, "where": {"a": 1}})
    async with native_socket(stack.edges[0].url, bearer=key.secret) as socket:
        await socket.ask(subscribe={"topic": TOPIC})
        assert (await socket.refused(subscribe={"topic": OTHER}))["code"] == "forbidden"
        assert (await socket.refused(subscribe={"topic": "free"}))["code"] == "forbidden"
        await publish(api, admin, 1)
        await socket.until_data([1])
    publisher = await api.api_key(account=admin.account, scopes=("publish",))
    async with native_socket(stack.edges[0].url, bearer=publisher.secret) as socket:
        error = await socket.refused(subscribe={"topic": TOPIC})
        assert (error["code"], "receive" in error["message"]) == ("forbidden", True)


async def test_a_refresh_ends_what_the_new_token_does_not_name(
    stack: Stack, api: Api, admin: ApiKey, back_end: Issuer
) -> None:
    async with native_socket(stack.edges[0].url, token=back_end.token(read=[*READ, "free"])) as socket:
        for topic in (TOPIC, OTHER, "free"):
            await socket.ask(subscribe={"topic": topic})
        await socket.ask(refresh={"token": back_end.token(read=[TOPIC])})
        ended = [(await socket.next("ended"))["ended"] for _ in range(2)]
        assert ended == [{"topic": topic, "reason": "forbidden"} for topic in (OTHER, "free")]
        assert (await socket.refused(subscribe={"topic": "free"}))["code"] == "forbidden"
        await publish(api, admin, 1, topic=OTHER)
        await publish(api, admin, 2)
        await socket.until_data([2])


async def test_a_socket_reads_a_hundred_topics(
    stack: Stack, api: Api, admin: ApiKey, back_end: Issuer
) -> None:
    async with native_socket(stack.edges[0].url, token=back_end.token(read=READ)) as socket:
        names = [f"orders.{number}" for number in range(100)]
        refs = [await socket.begin(subscribe={"topic": topic}) for topic in names]
        for ref, topic in zip(refs, names, strict=True):
            assert (await socket.answer(ref))["subscribed"]["topic"] == topic
        assert (await socket.refused(subscribe={"topic": TOPIC}))["code"] == "too_many"
        await socket.ask(unsubscribe={"topic": names[0]})
        await socket.ask(subscribe={"topic": TOPIC})
        for number in (1, 50, 99):
            await publish(api, admin, number, topic=names[number])
        await wait_until(lambda: sorted(socket.data) == [1, 50, 99], what=lambda: socket.data)


async def test_retained_events_come_as_fast_as_the_client_reads(
    stack: Stack, api: Api, admin: ApiKey, back_end: Issuer
) -> None:
    """Several MiB of two topics: far more than may wait."""
    for topic in (TOPIC, OTHER):
        for start in range(0, 300, 100):
            await publish(api, admin, *[["x" * 8192, start + n] for n in range(100)], topic=topic)
    async with native_socket(stack.edges[0].url, token=back_end.token(read=READ)) as socket:
        socket.pause()
        refs = [
            await socket.begin(subscribe={"topic": topic, "from": "earliest"}) for topic in (TOPIC, OTHER)
        ]
        # Its answer shows that the edge goes on without the client.
        assert (await api.at(stack.edges[0].url).call("GET", "/livez")).status == 200
        socket.go_on()
        for ref in refs:
            await socket.answer(ref)
        await wait_until(lambda: len(socket.data) >= 600, within_s=60, what=lambda: len(socket.data))
        for topic in (TOPIC, OTHER):
            numbers = [frame["event"]["data"][1] for frame in socket.of("event") if frame["topic"] == topic]
            assert numbers == list(range(300))


async def test_a_client_that_reads_too_slowly_is_closed_and_comes_back(
    stack: Stack, api: Api, admin: ApiKey, back_end: Issuer, http: aiohttp.ClientSession
) -> None:
    await keep(api, admin, *READ, count=10_000)
    token = back_end.token(read=READ)
    async with (
        native_socket(stack.edges[0].url, token=token) as slow,
        native_socket(stack.edges[0].url, token=token) as other,
    ):
        begun = await slow.ask(subscribe={"topic": TOPIC})
        await other.ask(subscribe={"topic": TOPIC})
        await publish(api, admin, 0)
        await slow.until_data([0])
        slow.pause()
        sent, before = await flooded(api, admin, other, sent=0), await overflows(http, stack)
        while await overflows(http, stack) == before:
            sent = await flooded(api, admin, other, sent=sent)
        slow.go_on()
        code, text = await slow.closed()
        assert (code, "too much waits" in text) == (4008, True)
        assert len(other.data) == sent + 1
        last = slow.of("event")[-1]["offset"]
        epoch = [frame["recovered"] for frame in slow.of("recovered")][-1]["epoch"] or begun["epoch"]
        async with native_socket(stack.edges[1].url, token=token) as again:
            begun = await again.ask(subscribe={"topic": TOPIC, "epoch": epoch, "after": last})
            assert begun["recovered"] is True
            await wait_until(
                lambda: len(slow.data) + len(again.data) == sent + 1,
                what=lambda: (len(slow.data), len(again.data), sent),
            )


async def flooded(api: Api, admin: ApiKey, keeps_up: NativeSocket, *, sent: int) -> int:
    """More events, all of which a client has read that keeps up, also on a busy machine."""
    # Less than a page of the stream: what is more waits for room, and overflows nothing.
    await publish(api, admin, *[["x" * 8192, sent + n] for n in range(20)])
    await wait_until(lambda: len(keeps_up.data) == sent + 21, what=lambda: (len(keeps_up.data), sent))
    return sent + 20


async def overflows(http: aiohttp.ClientSession, stack: Stack) -> float:
    return await metric(http, stack.edges[0].url, "notify_stream_overflows_total")
