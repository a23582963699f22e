"""The channels of a native socket: who may open which, who has them next, and how they end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from services.socket_edge.edge import Edge
from shared.model.account_channels import shown_id
from shared.model.api_keys import ApiKey, Scope, new_id
from shared.model.channels import CloseReason, Kind
from shared.model.grants import Grant
from shared.model.quotas import Quota
from shared.store.leases import Claimed, Leases
from tests.harness.waiting import wait_until
from tests.socket_edge.conftest import edge_of
from tests.socket_edge.native_peer import Peer, grant_of
from tests.store.native import create
from tests.store.stores import OTHER_EDGE, Stores


@pytest.fixture
async def edge(stores: Stores) -> Edge:
    return edge_of(stores)


@pytest.fixture
async def peers(edge: Edge) -> AsyncIterator[list[Peer]]:
    peers: list[Peer] = []
    yield peers
    for peer in peers:
        await peer.leaves()
    assert len(edge.registry) == 0
    assert len(edge.socket_quota) in (0, 1), "an account is forgotten with its last connection"


@pytest.fixture
async def channel(stores: Stores) -> str:
    return await create(stores, name="kitchen")


def peer_of(edge: Edge, peers: list[Peer], caller: ApiKey | Grant) -> Peer:
    peers.append(Peer(edge, caller))
    return peers[-1]


async def key_with(stores: Stores, *scopes: Scope) -> ApiKey:
    key, _ = await stores.api_key()
    await stores.make_channel(key.id)
    return replace(key, scopes=frozenset(scopes))


# Who may open which


@pytest.mark.parametrize("claim", ["kitchen", "id"])
@pytest.mark.parametrize("wanted", ["kitchen", "id"])
async def test_a_token_opens_what_it_names_by_either_name(
    stores: Stores, edge: Edge, peers: list[Peer], channel: str, claim: str, wanted: str
) -> None:
    spelled = {"kitchen": "kitchen", "id": shown_id(channel)}
    peer = peer_of(edge, peers, grant_of(stores.account_id, spelled[claim]))

    said = await peer.ask(open={"channel": spelled[wanted]})

    assert said == {"channel": shown_id(channel), "name": "kitchen"}


async def test_what_a_token_does_not_name_is_forbidden_whether_it_is_there_or_not(
    stores: Stores, edge: Edge, peers: list[Peer], channel: str
) -> None:
    peer = peer_of(edge, peers, grant_of(stores.account_id, "cellar", "ch_none"))

    for wanted in (shown_id(channel), "kitchen", "attic", shown_id(new_id()), "ch_x", "."):
        assert await peer.refused(open={"channel": wanted}) == "forbidden", wanted
    for wanted in ("cellar", "ch_none"):
        assert await peer.refused(open={"channel": wanted}) == "not_found", wanted


async def test_a_channel_of_another_account_is_not_there(
    stores: Stores, edge: Edge, peers: list[Peer], channel: str
) -> None:
    peer = peer_of(edge, peers, grant_of(new_id(), "kitchen", shown_id(channel)))

    for wanted in ("kitchen", shown_id(channel)):
        assert await peer.refused(open={"channel": wanted}) == "not_found"


@pytest.mark.parametrize(
    ("scopes", "own", "native", "others"),
    [
        ((Scope.RECEIVE,), "opened", "forbidden", "forbidden"),
        ((Scope.CHANNELS,), "opened", "opened", "conflict"),
        ((Scope.ADMIN,), "opened", "opened", "conflict"),
        ((Scope.PUBLISH,), "forbidden", "forbidden", "forbidden"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
async def test_an_api_key_opens_by_its_scopes(
    stores: Stores,
    edge: Edge,
    peers: list[Peer],
    channel: str,
    scopes: tuple[Scope, ...],
    own: str,
    native: str,
    others: str,
) -> None:
    key, other = await key_with(stores, *scopes), await stores.channel()
    peer = peer_of(edge, peers, key)

    for id, outcome in ((key.id, own), (channel, native), (other, others)):
        wanted = {"channel": shown_id(id)}
        if outcome == "opened":
            assert (await peer.ask(open=wanted))["channel"] == shown_id(id)
        else:
            assert await peer.refused(open=wanted) == outcome


async def test_a_token_opens_no_channel_of_an_api_key(stores: Stores, edge: Edge, peers: list[Peer]) -> None:
    shown = shown_id(await stores.channel())

    assert (
        await peer_of(edge, peers, grant_of(stores.account_id, shown)).refused(open={"channel": shown})
        == "conflict"
    )


@pytest.mark.parametrize("kind", [Kind.PULL, Kind.WEBHOOK])
async def test_a_channel_of_another_kind_is_a_conflict(
    stores: Stores, edge: Edge, peers: list[Peer], kind: Kind
) -> None:
    await create(stores, kind=kind, name="cellar")
    peer = peer_of(edge, peers, grant_of(stores.account_id, "cellar"))

    assert await peer.refused(open={"channel": "cellar"}) == "conflict"
    assert kind in peer.frames[-1]["error"]["message"]


async def test_a_channel_is_open_once_on_a_socket(
    stores: Stores, edge: Edge, peers: list[Peer], channel: str
) -> None:
    peer = peer_of(edge, peers, grant_of(stores.account_id, "kitchen"))
    await peer.ask(open={"channel": "kitchen"})
    owner = stores.owner(channel)

    assert await peer.refused(open={"channel": shown_id(channel)}) == "conflict"
    assert stores.owner(channel) == owner


async def test_a_socket_has_a_number_of_channels(
    stores: Stores, edge: Edge, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.socket_edge.native.channels.MOST_CHANNELS", 2)
    shown = [shown_id(await create(stores)) for _ in range(3)]
    peer = peer_of(edge, peers, grant_of(stores.account_id, *shown))
    for each in shown[:2]:
        await peer.ask(open={"channel": each})

    assert await peer.refused(open={"channel": shown[2]}) == "too_many"
    await peer.ask(close={"channel": shown[0]})
    await peer.ask(open={"channel": shown[2]})


async def test_a_socket_that_is_about_to_close_opens_nothing(
    stores: Stores, edge: Edge, peers: list[Peer], channel: str
) -> None:
    older, newer = (peer_of(edge, peers, grant_of(stores.account_id, "kitchen")) for _ in range(2))
    await older.ask(open={"channel": "kitchen"})
    newer.socket.is_draining = True

    assert await newer.refused(open={"channel": "kitchen"}) == "unavailable"
    assert edge.registry.of(channel)


async def test_an_open_channel_counts_in_the_quota_of_sockets(
    stores: Stores, edge: Edge, peers: list[Peer], channel: str
) -> None:
    other = await create(stores)
    await edge.stores.quotas.change(stores.account_id, quotas={Quota.SOCKETS: 1}, key_quotas={})
    await edge.heartbeat.beat()
    peer = peer_of(edge, peers, grant_of(stores.account_id, "kitchen", shown_id(other)))
    await peer.ask(open={"channel": "kitchen"})

    assert await peer.refused(open={"channel": shown_id(other)}) == "too_many"
    assert peer.frames[-1]["error"]["retry_after_s"] > 0
    # Its present owner is replaced: there is always a place.
    newer = peer_of(edge, peers, peer.caller)
    await newer.ask(open={"channel": "kitchen"})
    await peer.told()


# Who has it next


async def test_the_newest_socket_has_the_channel_and_the_older_one_stays_open(
    stores: Stores, edge: Edge, peers: list[Peer], channel: str
) -> None:
    await stores.queued(channel, 3)
    older, newer = (peer_of(edge, peers, grant_of(stores.account_id, "kitchen")) for _ in range(2))
    await older.ask(open={"channel": "kitchen"})
    await older.got(0, 1, 2)
    await older.ask(ack={"channel": shown_id(channel), "entry": older.entry(0)})

    await newer.ask(open={"channel": "kitchen"})

    told = await older.told()
    assert told == {"channel": shown_id(channel), "reason": "taken_over", "reconnect": False}
    await newer.got(1, 2)
    body = {"channel": shown_id(channel), "entry": older.entry(2)}
    assert await older.refused(ack=body) == "not_found"
    assert await older.ask(ping={}) == {}
    assert len(stores.entries(channel)) == 2


async def test_a_channel_that_is_closed_leaves_the_rest_to_the_next_owner(
    stores: Stores, edge: Edge, peers: list[Peer], channel: str
) -> None:
    entries = await stores.queued(channel, 3)
    peer = peer_of(edge, peers, grant_of(stores.account_id, "kitchen"))
    await peer.ask(open={"channel": "kitchen"})
    await peer.got(0, 1, 2)
    await peer.ask(ack={"channel": shown_id(channel), "entry": entries[0]})

    said = await peer.ask(close={"channel": shown_id(channel)})

    assert said == {"channel": shown_id(channel)}
    assert stores.owner(channel) is None
    assert stores.entries(channel) == entries[1:]
    assert await peer.refused(close={"channel": shown_id(channel)}) == "not_found"
    await peer.ask(open={"channel": "kitchen"})
    await peer.got(0, 1, 2, 1, 2)


async def test_the_end_of_a_socket_gives_all_its_channels_back(
    stores: Stores, edge: Edge, peers: list[Peer]
) -> None:
    channels = [await create(stores) for _ in range(3)]
    peer = peer_of(edge, peers, grant_of(stores.account_id, *map(shown_id, channels)))
    for each in channels:
        await stores.queued(each, 1)
        await peer.ask(open={"channel": shown_id(each)})
    await wait_until(lambda: len(peer.events) == 3)
    first = peer.events[0]
    await peer.ask(ack={"channel": first["channel"], "entry": first["entry"]})

    await peer.leaves()

    assert [stores.owner(each) for each in channels] == [None] * 3
    assert sorted(len(stores.entries(each)) for each in channels) == [0, 1, 1]
    assert not edge.registry.by_id


class _SlowLeases(Leases):
    """A claim is done in Redis, and its reply is late."""

    may_reply: asyncio.Event
    claims = 0

    async def claim(self, api_key_id: str, *, owner: str) -> Claimed:
        claimed = await super().claim(api_key_id, owner=owner)
        self.claims += 1
        await self.may_reply.wait()
        return claimed


async def test_a_socket_that_ends_during_an_open_keeps_nothing(
    stores: Stores, edge: Edge, peers: list[Peer], channel: str
) -> None:
    older = peer_of(edge, peers, grant_of(stores.account_id, "kitchen"))
    await older.ask(open={"channel": "kitchen"})
    slow = _SlowLeases(stores.calls)
    slow.may_reply = asyncio.Event()
    edge.stores.leases = slow
    peer = peer_of(edge, peers, grant_of(stores.account_id, "kitchen"))
    await peer.send(open={"channel": "kitchen"})
    await wait_until(lambda: slow.claims)

    leaving = asyncio.create_task(peer.leaves())
    await asyncio.sleep(0)
    slow.may_reply.set()
    await leaving

    assert stores.owner(channel) is None
    assert (await older.told())["reason"] == "taken_over"
    await wait_until(lambda: not edge.registry.of(channel))


async def test_an_ack_behind_an_open_counts_when_the_client_leaves(
    stores: Stores, edge: Edge, peers: list[Peer], channel: str
) -> None:
    await stores.queued(channel, 2)
    other = await create(stores, name="cellar")
    peer = peer_of(edge, peers, grant_of(stores.account_id, "kitchen", "cellar"))
    await peer.ask(open={"channel": "kitchen"})
    await peer.got(0, 1)
    slow = _SlowLeases(stores.calls)
    slow.may_reply = asyncio.Event()
    edge.stores.leases = slow
    await peer.send(open={"channel": "cellar"})
    await peer.send(ack={"channel": shown_id(channel), "entry": peer.entry(0)})
    await wait_until(lambda: slow.claims)

    leaving = asyncio.create_task(peer.leaves())
    await asyncio.sleep(0)
    slow.may_reply.set()
    await leaving

    assert len(stores.entries(channel)) == 1
    assert stores.owner(channel) is stores.owner(other) is None


# How it ends by itself


async def _delete(stores: Stores, channel: str) -> None:
    found = await stores.account_channels.read(channel)
    assert found is not None
    await stores.account_channels.delete(found)


async def _pause(stores: Stores, channel: str) -> None:
    await stores.account_channels.pause(channel)


async def _take_over(stores: Stores, channel: str) -> None:
    await stores.claim(channel, f"{OTHER_EDGE}/1")


@pytest.mark.parametrize(
    ("end", "reason", "reconnect", "then"),
    [
        (_delete, "channel_deleted", False, "not_found"),
        (_pause, "paused", True, "unavailable"),
        (_take_over, "taken_over", False, ""),
    ],
    ids=["deleted", "paused", "taken over"],
)
async def test_a_channel_that_ends_is_told_and_the_socket_stays_open(
    stores: Stores,
    edge: Edge,
    peers: list[Peer],
    channel: str,
    end: Callable[[Stores, str], Awaitable[None]],
    reason: str,
    reconnect: bool,
    then: str,
) -> None:
    peer = peer_of(edge, peers, grant_of(stores.account_id, "kitchen", shown_id(channel)))
    await peer.ask(open={"channel": "kitchen"})

    await end(stores, channel)
    edge.registry.of(channel)[0].wake()

    assert await peer.told() == {"channel": shown_id(channel), "reason": reason, "reconnect": reconnect}
    await wait_until(lambda: not edge.registry.of(channel))
    if then:
        assert await peer.refused(open={"channel": shown_id(channel)}) == then
    assert await peer.ask(ping={}) == {}


async def test_a_refreshed_token_ends_the_channels_that_it_does_not_name(
    stores: Stores, edge: Edge, peers: list[Peer], channel: str
) -> None:
    others = [await create(stores, name=name) for name in ("attic", "cellar")]
    await stores.queued(channel, 1)
    peer = peer_of(edge, peers, grant_of(stores.account_id, "attic", "cellar", "kitchen"))
    for name in ("kitchen", "attic", "cellar"):
        await peer.ask(open={"channel": name})
    renamed = await stores.account_channels.read(others[1])
    assert renamed is not None
    await stores.account_channels.change(renamed, name="vault")

    peer.become(grant_of(stores.account_id, shown_id(others[0]), "vault"))

    told = await peer.told()
    assert told == {"channel": shown_id(channel), "reason": "forbidden", "reconnect": False}
    await wait_until(lambda: stores.owner(channel) is None)
    assert len(stores.entries(channel)) == 1
    assert all(edge.registry.of(each) for each in others)


async def test_redis_beyond_the_limit_ends_the_socket_and_says_nothing_of_channels(
    stores: Stores, edge: Edge, peers: list[Peer], channel: str
) -> None:
    peer = peer_of(edge, peers, grant_of(stores.account_id, "kitchen"))
    await peer.ask(open={"channel": "kitchen"})

    for connection in edge.registry.all():
        await connection.close(CloseReason.REDIS_UNAVAILABLE)

    assert peer.closed is not None
    assert peer.closed["code"] == 1011
    assert not any("closed" in frame for frame in peer.frames)
