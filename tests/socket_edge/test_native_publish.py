"""Publishing by frame, in this process: what a turn of the loop costs, the order, and the end of a socket."""

import asyncio
from typing import Any

import fakeredis
import pytest

from services.socket_edge.native import publish as native_publish
from services.socket_edge.native.socket import MOST_UNANSWERED
from shared.model.api_keys import Scope
from shared.model.channels import CloseReason
from shared.model.errors import KeyIsRunning, StoreUnavailable
from shared.model.idempotency import Deadline
from shared.publish.idempotency import IdempotentRequests
from shared.publish.publishing import Publishing
from shared.store.idempotency import BeginResult, Idempotency, RequestState
from shared.store.quotas import AccountQuotas
from shared.store.stored_bytes import StoredBytes
from tests.harness.waiting import wait_until
from tests.publish.conftest import gateway, new_gateway
from tests.publish.publishing import Gateway, bound_channel, queued, turns
from tests.socket_edge.conftest import edge_of
from tests.socket_edge.native_peer import Peer

__all__ = ["gateway", "new_gateway"]


class Publisher(Peer):
    """A client whose frames are not awaited: several come in one turn of the event loop."""

    holds: list[bool]

    async def publish(self, *ids: object, key: str | None = None) -> int:
        events = [{"topic": "orders", "id": str(each), "data": 1} for each in ids]
        more = {} if key is None else {"idempotency_key": key}
        return await self.send(publish={"events": events, **more})

    @property
    def answers(self) -> list[tuple[int, Any]]:
        """For each ref the ids of what was published, or the code of the error, as they came."""
        found: list[tuple[int, Any]] = []
        for frame in self.frames:
            said = frame.get("published")
            found.append((frame["ref"], frame["error"]["code"] if said is None else [e["id"] for e in said]))
        return found

    async def answered(self, *refs: int) -> None:
        await wait_until(lambda: len(self.answers) >= len(refs), what=lambda: str(self.answers))
        assert [ref for ref, _ in self.answers] == [*refs]


@pytest.fixture
async def channel(gateway: Gateway) -> str:
    return await bound_channel(gateway.stores)


@pytest.fixture
async def peer(gateway: Gateway, channel: str) -> Publisher:
    """Its account has published before, so that the tables are in memory."""
    stores = gateway.stores
    key, _ = await stores.api_key(Scope.PUBLISH)
    edge = edge_of(stores)
    edge.publishing = Publishing(
        gateway.publisher,
        IdempotentRequests(Idempotency(stores.calls)),
        StoredBytes(stores.calls, quotas=AccountQuotas(stores.calls)),
    )
    peer = Publisher(edge, key)
    peer.holds = []
    peer.socket._hold_messages = peer.holds.append
    await peer.publish("first")
    await peer.answered(1)
    await turns()
    peer.frames.clear()
    gateway.count_pipelines()
    peer.writes = 0
    return peer


async def test_what_one_turn_brings_is_one_pipeline_one_write_and_no_task(
    gateway: Gateway, peer: Publisher, channel: str
) -> None:
    before = asyncio.all_tasks()

    refs = [await peer.publish(number) for number in range(10)]

    assert asyncio.all_tasks() == before
    await peer.answered(*refs)
    [commands] = gateway.redis.pipelines
    assert sum(command.arguments[0] == "EVALSHA" for command in commands) == 1, "they share an append"
    assert peer.writes == 1
    assert asyncio.all_tasks() == before
    assert queued(gateway.stores, channel) == ["first", *map(str, range(10))]
    assert peer.answers == [(ref, [str(number)]) for number, ref in enumerate(refs)]


async def test_reading_stops_beyond_the_limit_until_there_is_room(peer: Publisher) -> None:
    refs = [await peer.publish(number) for number in range(MOST_UNANSWERED)]
    assert peer.holds == [], "a client that keeps to the limit is read"

    refs.append(await peer.publish("one more"))

    assert peer.holds == [True]
    await peer.answered(*refs)
    assert peer.holds == [True, False]


class Gate:
    """Holds back the mark of each key until it is opened."""

    def __init__(self, requests: IdempotentRequests, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state = RequestState.BEGUN
        self.error: Exception | None = None
        self.is_open = asyncio.Event()
        self._begin = requests._begin
        monkeypatch.setattr(requests, "_begin", self._begin_later)

    async def _begin_later(self, *arguments: Any) -> BeginResult:
        await self.is_open.wait()
        if self.error is not None:
            raise self.error
        return await self._begin(*arguments)


@pytest.fixture
def gate(peer: Publisher, monkeypatch: pytest.MonkeyPatch) -> Gate:
    requests = peer.edge.publishing.idempotent_requests
    assert isinstance(requests, IdempotentRequests)
    return Gate(requests, monkeypatch)


async def test_nothing_overtakes_a_request_that_waits_for_its_key(
    gateway: Gateway, peer: Publisher, channel: str, gate: Gate
) -> None:
    refs = [await peer.publish("plain"), await peer.publish("keyed", key="a"), await peer.publish("behind")]
    refs += [await peer.publish("keyed too", key="b"), await peer.publish("last")]
    await peer.answered(refs[0])
    await turns()
    assert queued(gateway.stores, channel) == ["first", "plain"]

    gate.is_open.set()

    # The answer of one with a key comes a round trip later than those behind it could.
    await peer.answered(*refs)
    assert queued(gateway.stores, channel) == ["first", "plain", "keyed", "behind", "keyed too", "last"]


@pytest.mark.parametrize(
    ("error", "code"), [(KeyIsRunning(), "conflict"), (StoreUnavailable(why="gone"), "unavailable")]
)
async def test_a_refused_key_holds_up_nothing(
    gateway: Gateway, peer: Publisher, channel: str, gate: Gate, error: Exception, code: str
) -> None:
    gate.error = error
    refs = [await peer.publish("refused", key="a"), await peer.publish("behind")]
    await turns()
    assert peer.answers == []

    gate.is_open.set()

    await peer.answered(*refs)
    assert peer.answers == [(refs[0], code), (refs[1], ["behind"])]
    [refused, _] = peer.frames
    assert refused["error"]["retry_after_s"] == 1
    assert queued(gateway.stores, channel) == ["first", "behind"]


async def test_an_error_of_a_request_waits_for_the_answers_before_it(peer: Publisher, gate: Gate) -> None:
    refs = [await peer.publish("keyed", key="a"), await peer.send(publish={"events": []})]
    refs.append(await peer.send(publish={"events": [], "unknown": 1}))
    await turns()
    assert peer.answers == []

    gate.is_open.set()

    await peer.answered(*refs)
    assert [said for _, said in peer.answers] == [["keyed"], "invalid", "invalid"]


async def test_a_key_without_a_reply_in_time_is_not_carried_out_behind_its_repetition(
    gateway: Gateway, peer: Publisher, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline of its mark is that of its writes."""
    deadlines: list[Deadline | None] = []
    begin = gateway.publisher.begin

    def overheard(*arguments: Any, deadline: Deadline | None = None) -> None:
        deadlines.append(deadline)
        begin(*arguments, deadline=deadline)

    monkeypatch.setattr(gateway.publisher, "begin", overheard)
    refs = [await peer.publish("keyed", key="a"), await peer.publish("plain")]

    await peer.answered(*refs)
    with_key, without = deadlines
    assert with_key is not None
    assert with_key.ms > 0
    assert without is None


async def test_what_was_taken_is_published_after_the_client_has_gone(
    gateway: Gateway, peer: Publisher, channel: str, gate: Gate
) -> None:
    await peer.publish("keyed", key="a")
    await peer.publish("plain")
    await peer.leaves()

    gate.is_open.set()

    await wait_until(lambda: queued(gateway.stores, channel) == ["first", "keyed", "plain"])
    await wait_until(lambda: not native_publish._TASKS)
    # A repetition gets the answer.
    again = Publisher(peer.edge, peer.caller)
    ref = await again.publish("keyed", key="a")
    await again.answered(ref)
    assert again.answers == [(ref, ["keyed"])]
    assert queued(gateway.stores, channel) == ["first", "keyed", "plain"]


async def test_a_socket_that_drains_answers_what_it_took_and_takes_no_more(
    peer: Publisher, gate: Gate
) -> None:
    taken = await peer.publish("keyed", key="a")
    draining = asyncio.create_task(peer.socket.drain(within_s=60))
    await turns()
    refused = await peer.publish("late")
    await turns()
    assert not draining.done()

    gate.is_open.set()

    await draining
    assert peer.answers == [(taken, ["keyed"]), (refused, "unavailable")]
    assert peer.socket.close_reason is CloseReason.STOPPING


async def test_a_caller_whose_time_is_over_publishes_nothing(peer: Publisher) -> None:
    """Before the next check of liveness closes the socket."""
    peer.socket.expires_at_ms = 1

    ref = await peer.publish("late")

    await peer.answered(ref)
    assert peer.answers == [(ref, "unauthenticated")]


async def test_redis_that_is_away_refuses_each_request(server: fakeredis.FakeServer, peer: Publisher) -> None:
    server.connected = False
    refs = [await peer.publish(number) for number in range(3)]

    await peer.answered(*refs)
    assert [said for _, said in peer.answers] == ["unavailable"] * 3
