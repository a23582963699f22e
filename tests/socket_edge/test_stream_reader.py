"""A reader of streams: what it writes for what the hub says, and how it ends."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
from starlette.routing import Route
from starlette.types import Message

from services.socket_edge.credential_watcher import Credential
from services.socket_edge.edge import Edge
from services.socket_edge.streams import sse
from services.socket_edge.streams.sse import stream_routes
from services.socket_edge.streams.stream_reader import StreamReader
from services.socket_edge.streams.topic_reader import Delivery
from shared.model.api_keys import hash_of
from shared.model.channels import CloseReason
from shared.model.events import Event
from shared.model.streams import Mark, NotRecovered, Retained
from shared.runtime.loops import in_background
from shared.wire.stream_ids import marks_in
from tests.harness.waiting import wait_until
from tests.socket_edge.conftest import Clock
from tests.socket_edge.stream_peers import (
    HEARTBEAT_S,
    Begin,
    Hub,
    Peer,
    beginning,
    delivery,
    edge_for_readers,
    ids,
    started,
)
from tests.store.stores import Stores


@pytest.fixture
async def edge(stores: Stores, clock: Clock) -> Edge:
    return edge_for_readers(stores)


@pytest.fixture
async def peer() -> Peer:
    return Peer()


@pytest.fixture
async def begin(edge: Edge, peer: Peer) -> Begin:
    return beginning(edge, peer)


@pytest.mark.parametrize("is_chunked", [True, False])
async def test_events_have_the_id_behind_them(begin: Begin, is_chunked: bool) -> None:
    peer = Peer(is_chunked=is_chunked)
    reader = begin(peer=peer)
    reader.on_start(started(offset="1-0"))
    reader.on_events(delivery(2, 3))
    reader.on_events(delivery(5))
    found = [(message.type, marks_in(message.last_event_id, ["a"])) for message in peer.parsed().messages]
    places = [("recovered", "1-0"), ("message", "2-0"), ("message", "3-0"), ("message", "5-0")]
    assert found == [(kind, {"a": Mark("ep", offset)}) for kind, offset in places]


async def test_readers_of_one_topic_share_the_bytes(begin: Begin) -> None:
    peers = [Peer() for _ in range(3)]
    shared = delivery(1, 2)
    for peer in peers:
        begin(peer=peer).on_events(shared)
    assert len({id(peer.written[0]) for peer in peers}) == 1


async def test_readers_of_several_topics_share_the_data_and_have_ids_of_their_own(begin: Begin) -> None:
    one, other = Peer(), Peer()
    first, second = begin("a", "b", peer=one), begin("b", "a", peer=other)
    second.on_start(started("b", "7-0"))
    shared = delivery(1, 2)
    calls = 0
    encoded = shared.encoded

    def counted(format: str, encode: Callable[[Delivery], bytes]) -> bytes:
        def counting(found: Delivery) -> bytes:
            nonlocal calls
            calls += 1
            return encode(found)

        return encoded(format, counting)

    for reader in (first, second):
        counting = SimpleNamespace(
            topic="a", epoch="ep", events=shared.events, last=shared.last, count=2, encoded=counted
        )
        reader.on_events(cast(Delivery, counting))
    assert calls == 1
    assert ids(one.parsed()) == ids(other.parsed()) == ["e1", "e2"]
    assert marks_in(one.parsed().last_event_id, ["a", "b"]) == {"a": Mark("ep", "2-0")}
    both = {"a": Mark("ep", "2-0"), "b": Mark("ep", "7-0")}
    assert marks_in(other.parsed().last_event_id, ["a", "b"]) == both


@pytest.mark.parametrize("topics", [("a",), ("a", "b")])
async def test_a_sign_of_life_has_an_id_only_if_events_for_others_were_passed(
    begin: Begin, peer: Peer, clock: Clock, topics: tuple[str, ...]
) -> None:
    reader = begin(*topics)
    reader.on_start(started())
    reader.on_events(delivery(1))
    reader.on_events(delivery(2, last="4-0"))
    reader.on_events(Delivery("a", "ep", [], "6-0"))
    before = len(peer.parsed().messages)
    for at, comments in enumerate((0, 1)):
        clock.ahead_s += HEARTBEAT_S
        await reader.check(clock.now_s())
        parser = peer.parsed()
        assert (len(parser.messages), parser.comments) == (before, comments), at
        assert marks_in(parser.last_event_id, topics) == {"a": Mark("ep", "6-0")}


async def test_a_sign_of_life_is_not_early(begin: Begin, peer: Peer, clock: Clock) -> None:
    reader = begin()
    clock.ahead_s += HEARTBEAT_S / 2
    await reader.check(clock.now_s())
    assert peer.written == []
    assert reader.next_check_s <= clock.now_s() + HEARTBEAT_S / 2


async def test_a_hole_is_told_in_the_middle(begin: Begin, peer: Peer) -> None:
    reader = begin()
    reader.on_start(started())
    reader.on_events(delivery(1))
    reader.on_start(started(offset="9-0", reason=NotRecovered.PURGED))
    told = peer.parsed().messages[-1]
    assert (told.type, told.json["reason"]) == ("recovered", "purged")
    assert marks_in(told.last_event_id, ["a"]) == {"a": Mark("ep", "9-0")}


async def test_events_that_cannot_be_encoded_end_it_with_a_word(begin: Begin, peer: Peer) -> None:
    reader = begin()
    reader.begin(retry_s=2)
    malformed = Event("e", "a", b"1", attributes=b"{")
    reader.on_events(Delivery("a", "ep", [Retained("1-0", malformed)], "1-0"))
    [last] = peer.parsed().messages
    assert (last.type, last.json["reason"], last.json["reconnect"]) == ("end", "unexpected", True)


class TestTheEnd:
    @pytest.mark.parametrize(
        ("reason", "kind"),
        [
            (CloseReason.STOPPING, "end"),
            (CloseReason.KEY_EXPIRED, "end"),
            (CloseReason.UNBOUND, "end"),
            (CloseReason.TOO_SLOW, "overflow"),
        ],
    )
    async def test_the_client_is_told_why(
        self, begin: Begin, peer: Peer, edge: Edge, reason: CloseReason, kind: str
    ) -> None:
        reader = begin("a", "b")
        reader.begin(retry_s=2.5)
        assert peer.parsed().retry_ms == 2500
        hub = cast(Hub, edge.topics)
        assert list(hub.joined) == ["a", "b"]
        reader.end(reason)
        [last] = peer.parsed().messages
        assert last.type == kind
        assert hub.left == ["a", "b"]
        assert len(edge.registry) == 1
        await wait_until(lambda: len(edge.registry) == 0)
        assert peer.was_ended

    async def test_one_that_was_closed_before_it_began_reads_nothing(
        self, begin: Begin, peer: Peer, edge: Edge
    ) -> None:
        reader = begin()
        await reader.close(CloseReason.STOPPING)
        assert peer.written == []
        reader.begin(retry_s=2)
        assert [message.type for message in peer.parsed().messages] == ["end"]
        assert cast(Hub, edge.topics).joined == {}
        await wait_until(lambda: len(edge.registry) == 0)

    @pytest.mark.parametrize("when", ["before", "after", "while it ends"])
    async def test_a_client_that_has_gone_is_told_nothing_more(
        self, begin: Begin, peer: Peer, edge: Edge, when: str
    ) -> None:
        reader, hub = begin(), cast(Hub, edge.topics)
        if when == "before":
            peer.goes()
        reader.begin(retry_s=2)
        assert bool(hub.joined) is (when != "before")
        if when == "while it ends":
            reader.end(CloseReason.STOPPING)
        before = list(peer.written)
        peer.goes()
        assert peer.written == before
        assert hub.left == list(hub.joined)
        await wait_until(lambda: len(edge.registry) == 0)
        assert reader.close_reason in (CloseReason.CLIENT_GONE, CloseReason.STOPPING)

    async def test_a_key_that_is_gone_ends_it(self, begin: Begin, peer: Peer, clock: Clock) -> None:
        reader = begin()
        reader.key_is_gone()
        await reader.check(clock.now_s())
        assert reader.close_reason is CloseReason.KEY_EXPIRED

    async def test_a_sweep_looks_at_its_bindings_again(
        self, begin: Begin, edge: Edge, peer: Peer, stores: Stores
    ) -> None:
        key, secret = await stores.api_key()
        reader = begin()
        reader.begin(retry_s=2)
        edge.authenticated(reader, Credential(key.id, key.account_id, hash_of(secret), changes=0))
        async with in_background(edge.stream_rights.run):
            reader.wake()
            await wait_until(lambda: reader.close_reason is CloseReason.UNBOUND)
        assert peer.parsed().messages[-1].json["reconnect"] is False

    async def test_a_bug_at_the_beginning_leaves_no_connection(
        self, begin: Begin, edge: Edge, peer: Peer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reader, sent = begin(), list[Message]()

        async def opened(*_: object) -> StreamReader:
            return reader

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            raise AssertionError

        def join(*_: object, **__: object) -> None:
            raise RuntimeError

        monkeypatch.setattr(sse, "_opened", opened)
        monkeypatch.setattr(edge.topics, "join", join)
        [route] = stream_routes(edge)
        assert isinstance(route, Route)
        with pytest.raises(RuntimeError):
            await route.app({"type": "http"}, receive, send)
        assert sent[0]["status"] == 200
        assert peer.was_aborted
        assert len(edge.registry) == 0
