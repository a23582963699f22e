"""Long polls: a request waits for notifications and gets all pending ones in one response."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from tests.conftest import Listen
from tests.harness.api import SECRETS, Api, ApiKey
from tests.harness.events import reading, readings, registration
from tests.harness.polls import PULL, Polls, numbers_in
from tests.harness.processes import Service
from tests.harness.raw import exchange
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

# Usually 7 ms. A second is what an owner gets that does not confirm its lease.
QUICKLY_S = 0.8


@pytest.fixture
def polls(api: Api, key: ApiKey, stack: Stack) -> Polls:
    return Polls(api, key, stack.edges[0])


@pytest.fixture
def elsewhere(api: Api, key: ApiKey, stack: Stack) -> Polls:
    """Polls of the same API key through the other edge."""
    return Polls(api, key, stack.edges[1])


@pytest.fixture(scope="module")
def brief(shared_stack: Stack) -> Iterator[Service]:
    """An edge whose polls time out quickly."""
    with shared_stack.more_edges("edge-brief", LONG_POLL_WAIT_S=0.2) as [edge]:
        yield edge


class TestPoll:
    async def test_the_first_poll_creates_the_channel(self, api: Api, key: ApiKey, polls: Polls) -> None:
        assert await api.publish(key, reading(0, to=key.id)) == [0]

        assert (await polls.now()).status == 204

        metadata = await api.call("GET", "/v2/notification/channel", key=key)
        assert metadata.json == {"delivery_mechanism": "LONG_POLLING"}
        assert await api.publish(key, reading(1, to=key.id)) == [1]
        assert numbers_in(await polls.now()) == [1]

    async def test_a_response_holds_all_pending_notifications(
        self, api: Api, key: ApiKey, polls: Polls
    ) -> None:
        await polls.now()
        await api.publish(key, registration("lamp"))
        await api.publish(key, *readings(range(3), to=key.id), {"topic": "orders", "data": 1, "to": key.id})
        await api.publish(key, *readings(range(3, 5), to=key.id))

        response = await polls.get()

        assert response.status == 200
        assert response.headers["Content-Type"] == "application/json"
        assert response.headers["X-Request-Id"]
        assert [*response.json] == ["registrations", "notifications", "events"]
        assert numbers_in(response) == [*range(5)]

    async def test_a_waiting_poll_gets_a_response_at_the_next_publish(
        self, api: Api, key: ApiKey, polls: Polls
    ) -> None:
        waiting = await polls.open()

        await api.publish(key, reading(1, to=key.id))

        assert numbers_in(await waiting) == [1]

    async def test_a_poll_without_notifications_ends_with_a_204(
        self, api: Api, key: ApiKey, brief: Service
    ) -> None:
        response = await Polls(api, key, brief).get()

        assert response.status == 204
        assert response.text == ""

    async def test_delivered_notifications_are_not_repeated(
        self, api: Api, key: ApiKey, polls: Polls, elsewhere: Polls
    ) -> None:
        await polls.now()
        for number in range(10):
            await api.publish(key, reading(number, to=key.id))
            assert numbers_in(await polls.get()) == [number]
            assert (await elsewhere.now()).status == 204

    async def test_polls_that_end_as_notifications_arrive_return_each_once(
        self, api: Api, key: ApiKey, brief: Service, polls: Polls
    ) -> None:
        """The time of each poll is over in the middle of the publishes."""
        short = Polls(api, key, brief)
        await short.now()
        count = 150

        async def publish() -> None:
            for number in range(count):
                await api.publish(key, reading(number, to=key.id))

        publishing = asyncio.create_task(publish())
        numbers: list[int] = []
        while not publishing.done() or len(numbers) < count:
            response = await (polls.now() if len(numbers) % 3 else short.get())
            numbers += numbers_in(response)
        await publishing

        assert numbers == [*range(count)]
        assert (await polls.now()).status == 204

    async def test_successive_polls_return_everything_in_order(
        self, api: Api, key: ApiKey, polls: Polls, elsewhere: Polls
    ) -> None:
        await polls.now()
        numbers: list[int] = []
        for first in range(0, 500, 50):
            await api.publish(key, *readings(range(first, first + 50), to=key.id))
            numbers += numbers_in(await polls.get())
            await api.publish(key, *readings(range(first + 500, first + 550), to=key.id))
            numbers += numbers_in(await elsewhere.get())

        assert numbers == [
            n + at for n in range(0, 500, 50) for part in (0, 500) for at in range(part, part + 50)
        ]

    async def test_the_size_of_a_response_is_bounded(self, api: Api, key: ApiKey, polls: Polls) -> None:
        await polls.now()
        await api.publish(key, *readings(range(40), to=key.id, padding=60_000))

        first = await polls.get()

        assert len(first.text) <= 1024 * 1024
        numbers = numbers_in(first)
        while len(numbers) < 40:
            numbers += numbers_in(await polls.get())
        assert numbers == [*range(40)]

    @pytest.mark.parametrize("query", [{"noWait": "TRUE"}, {"noWait": "true", "x": "%ff", "limit": "-1"}])
    async def test_unknown_parameters_are_ignored(self, polls: Polls, query: dict[str, str]) -> None:
        assert (await polls.get(**query)).status == 204


class TestSecondPoll:
    @pytest.mark.parametrize("edge", [0, 1])
    async def test_a_second_poll_is_a_409_and_the_first_continues(
        self, api: Api, key: ApiKey, polls: Polls, stack: Stack, edge: int
    ) -> None:
        waiting = await polls.open()
        second = Polls(api, key, stack.edges[edge])

        for _ in range(3):
            began_s = time.monotonic()
            response = await second.get()
            assert response.status == 409
            assert time.monotonic() - began_s < QUICKLY_S
            assert response.text == "CONCURRENT_PULL_REQUEST_RECEIVED"
            assert response.headers["Content-Type"].startswith("text/plain")

        await api.publish(key, reading(1, to=key.id))
        assert numbers_in(await waiting) == [1]
        assert (await second.now()).status == 204

    @pytest.mark.parametrize("edge", [0, 1])
    async def test_a_disconnected_poll_does_not_block_the_next(
        self, api: Api, key: ApiKey, polls: Polls, stack: Stack, edge: int
    ) -> None:
        second = Polls(api, key, stack.edges[edge])
        for number in range(5):
            waiting = await polls.open()
            waiting.cancel()
            await asyncio.wait([waiting])

            assert (await second.now()).status == 204
            await api.publish(key, reading(number, to=key.id))
            assert numbers_in(await second.get()) == [number]


class TestDelete:
    @pytest.mark.parametrize("edge", [0, 1])
    async def test_delete_ends_the_open_poll(
        self, api: Api, key: ApiKey, polls: Polls, stack: Stack, edge: int
    ) -> None:
        waiting = await polls.open()

        deleted = await Polls(api, key, stack.edges[edge]).delete()

        assert (deleted.status, deleted.text) == (200, "REMOVED")
        ended = await waiting
        assert (ended.status, ended.text) == (410, "CHANNEL_DELETED")

    async def test_deleting_twice_is_reported(self, polls: Polls) -> None:
        before = await polls.delete()
        await polls.now()
        first, second = await polls.delete(), await polls.delete()

        assert [(a.status, a.text) for a in (before, first, second)] == [
            (200, "ALREADY_DELETED"),
            (200, "REMOVED"),
            (200, "ALREADY_DELETED"),
        ]

    async def test_the_next_poll_recreates_the_channel(
        self, api: Api, key: ApiKey, polls: Polls, elsewhere: Polls
    ) -> None:
        for number in range(10):
            old = await polls.open()
            await elsewhere.delete()
            newer = polls if number % 2 else elsewhere
            assert (await newer.now()).status == 204
            await api.publish(key, reading(number, to=key.id))

            assert numbers_in(await newer.get()) == [number]
            assert (await old).status == 410

    async def test_delete_deletes_the_queue(self, api: Api, key: ApiKey, polls: Polls) -> None:
        await polls.now()
        await api.publish(key, reading(1, to=key.id))

        await polls.delete()

        assert (await polls.now()).status == 204


class TestOneKindAtATime:
    async def test_a_websocket_channel_excludes_polls(
        self, api: Api, channel: ApiKey, polls: Polls, listen: Listen
    ) -> None:
        receiver = await listen(channel)

        refused = await polls.get()
        deleted = await polls.delete()

        assert refused.status == 400
        assert refused.json["type"] == "bad_request"
        assert (deleted.status, deleted.text) == (200, "ALREADY_DELETED")
        await api.publish(channel, reading(1, to=channel.id))
        await receiver.received_numbers([1])

    async def test_a_long_poll_channel_excludes_websockets(self, api: Api, key: ApiKey, polls: Polls) -> None:
        waiting = await polls.open()

        refused = await api.call("PUT", "/v2/notification/websocket", key=key)

        assert refused.status == 400
        assert (await api.channel(key)).status == 404
        assert (await api.delete_channel(key)).status == 404
        await api.publish(key, reading(1, to=key.id))
        assert numbers_in(await waiting) == [1]
        await polls.delete()
        await api.register(key)


class TestExplicitAcks:
    """Explicit acks: the client names the last notification that it has handled."""

    async def test_notifications_stay_queued_until_acked_by_uid(
        self, api: Api, key: ApiKey, polls: Polls, elsewhere: Polls
    ) -> None:
        await polls.get(after="", noWait="true")
        await api.publish(key, *readings(range(3), to=key.id))
        first = await polls.get(after="")
        again = await elsewhere.get(after="")
        assert first.json == again.json
        uids = [item["uid"] for item in first.json["notifications"]]
        assert first.headers["X-Last-Uid"] == uids[-1]

        rest = await elsewhere.get(after=uids[1])
        assert numbers_in(rest) == [2]
        await api.publish(key, reading(3, to=key.id))

        assert numbers_in(await polls.get(after=uids[2])) == [3]

    async def test_an_unknown_uid_acks_nothing(self, api: Api, key: ApiKey, polls: Polls) -> None:
        await polls.now()
        await api.publish(key, *readings(range(3), to=key.id))

        assert numbers_in(await polls.get(after="0" * 32)) == [0, 1, 2]
        last = (await polls.get(after="")).headers["X-Last-Uid"]
        assert (await polls.get(after=last, noWait="true")).status == 204
        assert (await polls.get(after=last, noWait="true")).status == 204

    async def test_every_kind_of_item_has_a_uid(self, api: Api, key: ApiKey, polls: Polls) -> None:
        """A plain device name becomes an object; an async response has its own id."""
        await polls.now()
        await api.publish(key, {"topic": "device.de-registrations", "data": "lamp"})
        response = await polls.get(after="")
        assert response.json == {"de-registrations": [{"ep": "lamp", "uid": response.headers["X-Last-Uid"]}]}
        async_response = {"id": "mine", "status": 200}
        await api.publish(key, {"topic": "device.async-responses", "data": async_response, "to": key.id})
        response = await polls.get(after=response.headers["X-Last-Uid"])
        assert response.json == {"async-responses": [async_response]}
        last = response.headers["X-Last-Uid"]
        assert (await polls.get(after=last, noWait="true")).status == 204

    @pytest.mark.parametrize("encodes", ["not", "once"])
    @pytest.mark.parametrize(
        "uid",
        [
            *("a+b", "a b", "ü-1", "100%", "a%20b", "a&b=c#d", "日本", " a ", "urn:x:1/2?3"),
            *("+", "%", "%2B", "%252B", "a%", '"a"', "'a'", "a\\b", "a,b;c=d", "<a>", "😀"),
        ],
    )
    async def test_any_event_id_can_be_sent_back(
        self, api: Api, key: ApiKey, polls: Polls, stack: Stack, uid: str, encodes: str
    ) -> None:
        """Some clients put the header into the URL as it is, others encode it."""
        await polls.now()
        await api.publish(key, {**reading(1, to=key.id), "id": uid})
        header = (await polls.get(after="")).headers["X-Last-Uid"]
        after = header if encodes == "not" else quote(header, safe="")

        head = f"Host: x\nAuthorization: Bearer {key.secret}\n\n"
        poll = f"GET {PULL}?noWait=true&after={after} HTTP/1.1\n{head}"
        status, _, _ = await exchange(stack.edges[0].url, poll)
        assert status == 204

    async def test_a_waiting_poll_works_with_explicit_acks(self, api: Api, key: ApiKey, polls: Polls) -> None:
        waiting = await polls.open(after="")
        await api.publish(key, reading(1, to=key.id))
        assert numbers_in(await waiting) == [1]

    async def test_receipts_show_explicit_acks(self, api: Api, key: ApiKey, polls: Polls) -> None:
        await polls.now()
        await api.publish(key, reading(1, to=key.id) | {"id": "event-1", "receipt": True})
        assert numbers_in(await polls.get(after="")) == [1]

        async def is_sent() -> bool:
            # The edge records `sent` after it has written the response.
            [channel] = (await api.receipt(key, "event-1")).json["channels"]
            return bool(channel["state"] == "sent")

        await wait_until(is_sent)

        await polls.get(after="event-1", noWait="true")
        await polls.delete()

        [channel] = (await api.receipt(key, "event-1")).json["channels"]
        assert channel["state"] == "acked"


class TestAuthentication:
    async def test_a_poll_needs_a_key_with_the_receive_scope(
        self, api: Api, stack: Stack, key: ApiKey
    ) -> None:
        edge = api.at(stack.edges[0].url)
        for method in ("GET", "DELETE"):
            for token in (None, "ak_wrong", key.secret[:-1]):
                response = await edge.call(method, PULL, token=token)
                assert (response.status, response.json["type"]) == (401, "invalid_auth")
            publisher = await api.api_key(scopes=("publish",))
            response = await edge.call(method, PULL, key=publisher)
            assert (response.status, response.json["type"]) == (403, "access_denied")

    @pytest.mark.parametrize("method", ["HEAD", "PUT", "POST", "PATCH"])
    async def test_other_methods_are_a_405(self, api: Api, stack: Stack, key: ApiKey, method: str) -> None:
        response = await api.at(stack.edges[0].url).call(method, PULL, key=key)

        assert response.status == 405
        assert {word.strip() for word in response.headers["Allow"].split(",")} == {"GET", "DELETE"}

    async def test_a_revoked_key_ends_its_poll(self, api: Api, key: ApiKey, polls: Polls) -> None:
        waiting = await polls.open()

        await api.revoke(key)

        response = await waiting
        assert (response.status, response.json["type"]) == (401, "invalid_auth")
        assert (await polls.get()).status == 401

    async def test_an_expired_key_ends_its_poll(self, api: Api, stack: Stack) -> None:
        account = await api.account()
        expires_at = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
        body = {"name": "brief", "scopes": ["receive"], "expires_at": expires_at}
        made = (await api.admin("POST", f"/v1/accounts/{account}/api-keys", json=body)).json
        SECRETS.append(made["secret"])
        polls = Polls(api, ApiKey(made["id"], account, made["secret"]), stack.edges[0])

        response = await polls.get()

        assert (response.status, response.json["type"]) == (401, "invalid_auth")
        assert (await polls.get()).status == 401
