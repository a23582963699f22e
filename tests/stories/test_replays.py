"""Retained events that a channel gets once more: one by its id, and those since a time."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from tests.harness.api import Api, Response
from tests.harness.channels import AccountChannels, Sockets
from tests.harness.stack import RedisLike, Stack, running_stack
from tests.harness.waiting import wait_until
from tests.harness.webhooks import webhook
from tests.stories.test_errors import assert_error
from tests.stories.test_streams import KEPT, published, put_rules

LONG_AGO = "2026-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def installation(redis_like: RedisLike | None) -> Iterator[Stack]:
    with running_stack(
        gateways=2, edges=1, dispatchers=2, redis_like=redis_like, ALLOW_PRIVATE_CALLBACKS="1"
    ) as stack:
        yield stack


@pytest.fixture
def api(installation: Stack, http: aiohttp.ClientSession) -> Api:
    return Api(http, installation.gateways[0].url, installation.admin_token)


@pytest.fixture
def other_api(installation: Stack, http: aiohttp.ClientSession) -> Api:
    return Api(http, installation.gateways[1].url, installation.admin_token)


@pytest.fixture
async def mine(api: Api) -> AccountChannels:
    """The channels of a new account that retains its orders."""
    key = await api.api_key(scopes=("publish", "channels", "admin"))
    await put_rules(api, key, KEPT)
    return AccountChannels(api, key)


def order(number: int, topic: str = "orders.paid", **more: Any) -> dict[str, Any]:
    return {"topic": topic, "id": f"e{number}", "data": {"number": number}, **more}


async def publish(mine: AccountChannels, *numbers: int, **more: Any) -> None:
    await published(mine.api, mine.key, *(order(number, **more) for number in numbers))


async def ids(mine: AccountChannels, channel: str) -> list[str]:
    """Fetches and acks all that is pending; returns the ids of the events."""
    found: list[str] = []
    while (fetch := await mine.fetch(channel, max=100)).events:
        found += [event["id"] for event in fetch.events]
        acked = await mine.post(channel, "ack", lease=fetch.lease, until=fetch.entries[-1])
        assert acked.status == 204, acked.text
    return found


async def begin(mine: AccountChannels, channel: str, since: str = LONG_AGO, **more: Any) -> dict[str, Any]:
    response = await mine.post(channel, "replay", since=since, **more)
    assert response.status == 202, response.text
    begun: dict[str, Any] = response.json
    return begun


async def replay(mine: AccountChannels, channel: str) -> dict[str, Any]:
    response = await mine.call("GET", f"/{channel}/replay")
    assert response.status == 200, response.text
    found: dict[str, Any] = response.json
    return found


async def ended(mine: AccountChannels, channel: str, within_s: float = 30) -> dict[str, Any]:
    """The replay, when it has ended."""
    shown: dict[str, Any] = {}

    async def is_over() -> bool:
        shown.update(await replay(mine, channel))
        return bool(shown["state"] != "running")

    await wait_until(is_over, within_s=within_s, what=lambda: f"the replay is {shown}")
    return shown


async def now(api: Api) -> str:
    """A time behind all that was published, on this machine's clock, which is Redis' clock here."""
    await asyncio.to_thread(_next_ms)
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _next_ms() -> None:
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    while datetime.now(UTC).isoformat(timespec="milliseconds") == at:
        pass


async def test_an_event_arrives_once_more_under_its_id(mine: AccountChannels, other_api: Api) -> None:
    channel = (await mine.create("pull", bindings=["orders.#"]))["id"]
    await publish(mine, 1, 2)
    assert await ids(mine, channel) == ["e1", "e2"]
    by_other = AccountChannels(other_api, mine.key)
    resent = await by_other.post(channel, "resend", event_id="e1")
    assert (resent.status, resent.json["id"], resent.json["topic"]) == (202, "e1", "orders.paid")
    assert await ids(mine, channel) == ["e1"]


async def repeated(mine: AccountChannels, channel: str) -> list[tuple[str | None, list[str]]]:
    """Why each attempt was made once more, with its events."""
    found: list[tuple[str | None, list[str]]] = []

    async def are_listed() -> bool:
        attempts = (await mine.call("GET", f"/{channel}/deliveries")).json["deliveries"]
        found[:] = [(each["again"], each["events"]) for each in attempts]
        return bool(found)

    await wait_until(are_listed)
    return found


async def test_a_socket_and_a_webhook_get_it_too(mine: AccountChannels, installation: Stack) -> None:
    await publish(mine, 1)
    sockets = Sockets(installation.edges[0].url)
    socket = (await mine.create("websocket"))["id"]
    receiver = await sockets.open(mine.key, socket)
    async with webhook() as hook:
        target = {"url": hook.url}
        of_hook = (await mine.create("webhook", webhook=target))["id"]
        for channel in (socket, of_hook):
            assert (await mine.post(channel, "resend", event_id="e1")).status == 202
        await wait_until(lambda: bool(hook.calls), what="a request")
        # When it was published, not when it came once more.
        published = (await mine.api.call("GET", "/v1/history/e1", key=mine.key)).json["published_at"]
        assert hook.events[0].items() >= {"id": "e1", "time": published}.items()
        assert await repeated(mine, of_hook) == [("resend", ["e1"])]
    await wait_until(lambda: bool(receiver.items), what="an event on the socket")
    await receiver.drop()


async def test_no_channel_gets_what_was_for_another_one(mine: AccountChannels) -> None:
    acme = (await mine.create("pull", name="acme", customer="acme"))["id"]
    other = (await mine.create("pull", name="other"))["id"]
    await publish(mine, 1, customer="acme")
    await publish(mine, 2, to="other")
    wanted = {(acme, "e1"): 202, (other, "e1"): 409, (acme, "e2"): 409, (other, "e2"): 202}
    got = {each: (await mine.post(each[0], "resend", event_id=each[1])).status for each in wanted}
    assert got == wanted


async def test_a_replay_brings_what_todays_bindings_match(mine: AccountChannels) -> None:
    await publish(mine, 1)
    since = await now(mine.api)
    await publish(mine, 2, 3, topic="orders.paid")
    await publish(mine, 4, topic="orders.sent")
    await publish(mine, 5, topic="other")
    await publish(mine, 6, topic="orders.paid", customer="acme")
    await publish(mine, 7, topic="orders.lost")
    until = await now(mine.api)
    await publish(mine, 8)

    # None of these had a channel when they were published.
    channel = (
        await mine.create("pull", bindings=[{"topic": "orders.*", "where": {"number": [2, 4, 6, 7, 1]}}])
    )["id"]
    begun = await begin(mine, channel, since, until=until)
    assert (begun["state"], begun["since"], begun["per_s"]) == ("running", since, 100)
    shown = await ended(mine, channel)
    assert shown["state"] == "done", shown
    assert (shown["queued"], shown["passed"], shown["id"]) == (3, 5, begun["id"])
    assert shown["total"] >= 5
    assert await ids(mine, channel) == ["e2", "e4", "e7"]

    await begin(mine, channel, since, topics=["orders.sent", "orders.lost"])
    assert (await ended(mine, channel))["queued"] == 2
    assert await ids(mine, channel) == ["e4", "e7"]


async def test_a_replay_goes_on_with_changed_bindings(mine: AccountChannels) -> None:
    await publish(mine, *range(30))
    channel = (await mine.create("pull", bindings=["orders.#"]))["id"]
    await begin(mine, channel, per_s=10)

    async def has_some() -> bool:
        return bool((await replay(mine, channel))["queued"] >= 4)

    await wait_until(has_some, what="some that are queued")
    changed = await mine.call("PATCH", f"/{channel}", json={"bindings": []})
    assert changed.status == 200
    shown = await ended(mine, channel)
    assert (shown["state"], shown["passed"]) == ("done", 30)
    found = await ids(mine, channel)
    assert found == [f"e{number}" for number in range(shown["queued"])]
    assert 4 <= len(found) < 30


async def test_a_replay_keeps_its_rate(mine: AccountChannels) -> None:
    await publish(mine, *range(20))
    channel = (await mine.create("pull", bindings=["orders.#"]))["id"]
    begun_s = asyncio.get_running_loop().time()
    await begin(mine, channel, per_s=10)
    assert (await ended(mine, channel))["queued"] == 20
    assert asyncio.get_running_loop().time() - begun_s > 1.5


async def test_a_cancelled_replay_queues_nothing_more(mine: AccountChannels) -> None:
    await publish(mine, *range(60))
    channel = (await mine.create("pull", bindings=["orders.#"]))["id"]
    await begin(mine, channel, per_s=10)
    assert_error(await mine.post(channel, "replay", since=LONG_AGO), 409, "conflict")
    cancelled = await mine.call("DELETE", f"/{channel}/replay")
    assert cancelled.status == 204
    shown = await replay(mine, channel)
    assert (shown["state"], shown["ended_at"] is not None) == ("cancelled", True)
    assert shown["queued"] < 60
    assert (await mine.call("DELETE", f"/{channel}/replay")).status == 404
    await begin(mine, channel, per_s=1000)
    assert (await ended(mine, channel))["queued"] == 60
    assert await ids(mine, channel) == [f"e{n}" for n in (*range(shown["queued"]), *range(60))]


async def test_live_events_come_during_a_replay_and_none_is_dropped(mine: AccountChannels) -> None:
    """More than a replay may have pending: it waits until there is room."""
    await mine.api.call("PUT", "/v1/streams", key=mine.key, json=[{"topics": ["orders.#"]}])
    for start in range(0, 700, 100):
        await publish(mine, *range(start, start + 100))
    channel = (await mine.create("pull", bindings=["orders.#"]))["id"]
    await begin(mine, channel, per_s=1000)

    async def waits() -> bool:
        return bool((await replay(mine, channel))["waits_for_queue"])

    await wait_until(waits, what="a replay that waits")
    await publish(mine, 10_000)
    found: list[str] = []

    async def has_all() -> bool:
        found.extend(await ids(mine, channel))
        return len(found) >= 701

    await wait_until(has_all, within_s=30, what="all of them")
    assert (await ended(mine, channel))["queued"] == 700
    assert [each for each in found if each != "e10000"] == [f"e{number}" for number in range(700)]
    assert found.count("e10000") == 1
    assert (await mine.get(channel))["dropped"] == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "since"),
        ({"since": "yesterday"}, "since"),
        ({"since": "2026-01-01T00:00:00"}, "since"),
        ({"since": "2999-01-01T00:00:00Z"}, "since"),
        ({"since": LONG_AGO, "until": LONG_AGO}, "since"),
        ({"since": LONG_AGO, "until": "later"}, "until"),
        ({"since": LONG_AGO, "topics": []}, "topics"),
        ({"since": LONG_AGO, "topics": ["a*"]}, "topics[0]"),
        ({"since": LONG_AGO, "topics": ["orders.#", "device.#"]}, "topics[1]"),
        ({"since": LONG_AGO, "per_s": 0}, "per_s"),
        ({"since": LONG_AGO, "per_s": 1001}, "per_s"),
    ],
)
async def test_replays_that_cannot_be_are_refused(
    mine: AccountChannels, body: dict[str, Any], field: str
) -> None:
    channel = (await mine.create("pull"))["id"]
    response: Response = await mine.post(channel, "replay", **body)
    assert_error(response, 400, "validation_error")
    assert response.json["fields"][0]["name"] == field
    assert (await mine.call("GET", f"/{channel}/replay")).status == 404


async def test_what_is_done_once_more_is_in_the_audit_log(mine: AccountChannels, api: Api) -> None:
    channel = (await mine.create("pull", bindings=["orders.#"]))["id"]
    await publish(mine, *range(30))
    await mine.post(channel, "resend", event_id="e1")
    await begin(mine, channel, per_s=1)
    await mine.call("DELETE", f"/{channel}/replay")
    entries = (await api.admin("GET", f"/v1/audit?account={mine.key.account}")).json["entries"]
    assert [each["action"] for each in entries[:3]] == [
        "channel.replay-cancelled",
        "channel.replay-begun",
        "channel.event-resent",
    ]
    assert {each["target"] for each in entries[:3]} == {channel}
