"""A new socket reads its queue only if the claim found something in it, or a wakeup may have been missed."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from services.socket_edge.edge import Edge
from services.socket_edge.leased_socket import LeasedSocket
from services.socket_edge.pelion_socket import open_pelion_socket
from shared.store.inline_entries import parse_inline_entries
from shared.store.leases import Claimed
from tests.socket_edge.conftest import edge_of, scope_of
from tests.store.stores import EDGE, OTHER_EDGE, Stores, events


class Opening:
    """One handshake of an API key, and what its client gets."""

    def __init__(self, stores: Stores, channel: str, secret: str) -> None:
        self.stores, self.channel, self._secret = stores, channel, secret
        self.edge: Edge = edge_of(stores)
        self.frames: list[bytes] = []
        self.reads = 0
        self._read = stores.queues.read
        self.after_claim: Callable[[], Awaitable[Any]] | None = None

    async def open(self) -> LeasedSocket:
        scope = scope_of(write=lambda texts, _: self.frames.extend(texts))
        scope["headers"] = [(b"authorization", f"Bearer {self._secret}".encode())]
        scope["subprotocols"], scope["query_string"], scope["client"] = [], b"", ("192.0.2.1", 1)

        async def send(_: object) -> None:
            raise AssertionError("the handshake is accepted")

        opened = await open_pelion_socket(self.edge, scope, send)
        assert opened is not None
        return opened[0]

    async def append(self, number: int) -> None:
        assert await self.stores.queues.append(self.channel, events(number))

    async def read(self, *arguments: Any, **options: Any) -> Any:
        self.reads += 1
        return await self._read(*arguments, **options)

    async def claim(self, *arguments: Any, **options: Any) -> Claimed:
        claimed = await type(self.stores.leases).claim(self.stores.leases, *arguments, **options)
        if self.after_claim is not None:
            await self.after_claim()
        return claimed


@pytest.fixture
async def opening(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> Opening:
    key, secret = await stores.api_key()
    await stores.make_channel(key.id)
    opening = Opening(stores, key.id, secret)
    monkeypatch.setattr(stores.queues, "read", opening.read)
    monkeypatch.setattr(stores.leases, "claim", opening.claim)
    return opening


async def opened(opening: Opening) -> LeasedSocket:
    socket = await opening.open()
    await socket.loop.wait_idle()
    return socket


async def test_an_empty_queue_is_not_read(opening: Opening) -> None:
    await opened(opening)

    assert opening.reads == 0


async def test_what_is_pending_is_read(opening: Opening) -> None:
    await opening.append(1)

    await opened(opening)

    assert (opening.reads, len(opening.frames)) == (1, 1)


async def test_a_queue_whose_entries_were_acked_is_not_read(opening: Opening) -> None:
    await opening.append(1)
    lease = await opening.stores.claim(opening.channel)
    await opening.stores.queues.ack_until(lease, until=opening.stores.tail(opening.channel))
    await opening.stores.leases.release(lease)

    socket = await opened(opening)

    assert opening.reads == 0
    payload = b"\0".join(
        part.encode()
        for part in (
            *("+" + opening.channel, socket.lease.owner, socket.lease.generation),
            *(opening.stores.tail(opening.channel), ""),
            *("9999999999999-0", "e", "orders.paid", "{}", "", "", ""),
        )
    )
    entries = parse_inline_entries(payload)
    assert entries is not None
    socket.loop.deliver_inline(entries)
    assert (opening.reads, len(opening.frames)) == (0, 1), "it follows the last entry that was acked"


async def test_an_append_behind_the_claim_whose_wakeup_came_too_early_is_read(opening: Opening) -> None:
    async def append_and_wake() -> None:
        await opening.append(1)
        opening.edge.wakeups.on_messages([opening.channel.encode()])

    opening.after_claim = append_and_wake

    await opened(opening)

    assert (opening.reads, len(opening.frames)) == (1, 1)


@pytest.mark.parametrize("happens", ["on_lost", "on_restored"])
async def test_after_a_lost_subscription_the_queue_is_read(
    opening: Opening, happens: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose_a_wakeup() -> None:
        await opening.append(1)
        getattr(opening.edge.wakeups, happens)()

    async def recover() -> None:
        """Wakes what is held, and the new socket is not."""

    monkeypatch.setattr(opening.edge.wakeups, "recover", recover)
    opening.after_claim = lose_a_wakeup

    await opened(opening)

    assert (opening.reads, len(opening.frames)) == (1, 1)


@pytest.mark.parametrize(("edge", "reads"), [(EDGE, 1), (OTHER_EDGE, 0)])
async def test_after_a_takeover_within_the_edge_the_queue_is_read(
    opening: Opening, edge: str, reads: int
) -> None:
    """A wakeup behind its claim may have reached the older socket there."""
    await opening.stores.claim(opening.channel, f"{edge}/1")

    await opened(opening)

    assert opening.reads == reads


async def test_beside_an_older_socket_that_has_lost_its_lease_the_queue_is_read(opening: Opening) -> None:
    """It would get the wakeup, wherever its lease went since."""
    await opened(opening)
    await opening.stores.claim(opening.channel, f"{OTHER_EDGE}/1")
    opening.reads = 0

    socket = await opening.open()
    await socket.loop.wait_idle()

    assert opening.reads == 1


async def test_a_key_is_read_again_only_if_a_credential_has_changed_since(opening: Opening) -> None:
    socket = await opened(opening)
    credentials = opening.edge.credentials
    assert not credentials._waiting

    opening.edge.remove(socket)

    async def change() -> None:
        credentials.on_change(())

    opening.after_claim = change
    await opened(opening)

    assert list(credentials._waiting) == [opening.channel]
