"""A busy socket confirms many frames with one ping; nothing stays unconfirmed for longer than the spacing."""

import asyncio
from collections.abc import Sequence

import pytest

from services.socket_edge.leased_socket import LeasedSocket
from shared.model.channels import CloseReason
from shared.store.leases import Claimed
from tests.harness.waiting import wait_until
from tests.socket_edge.conftest import KIB, PING_TIMEOUT_S, Client, Clock, pending
from tests.store.stores import Stores

SPACING_S = 0.05
LONG_S = 1000.0


@pytest.fixture
async def busy(client: Client, clock: Clock) -> Client:
    """A client that has just answered the ping behind its first notification."""
    # The clock of a new machine may be younger than the spacing.
    clock.ahead_s += LONG_S
    client.edge.ping_spacing_s = LONG_S / 2
    client.socket.deliver(pending(1))
    await client.pong()
    assert client.kinds == ["send", "ping"]
    client.sent.clear()
    return client


def deliver(socket: LeasedSocket, numbers: Sequence[int], *, size_bytes: int = 1) -> None:
    for number in numbers:
        socket.deliver(pending(number, size_bytes=size_bytes))


async def test_frames_within_the_spacing_carry_no_ping(busy: Client) -> None:
    deliver(busy.socket, range(2, 6))

    assert busy.kinds == ["send"] * 4


async def test_the_first_frame_after_the_spacing_confirms_all(busy: Client, clock: Clock) -> None:
    deliver(busy.socket, [2, 3])
    clock.ahead_s += LONG_S / 2
    deliver(busy.socket, [4])

    assert busy.kinds == ["send", "send", "send", "ping"]
    await busy.pong()
    assert busy.socket.acked_until == "4-0"


async def test_what_no_later_frame_confirms_is_pinged_by_a_timer(busy: Client) -> None:
    busy.edge.ping_spacing_s = SPACING_S
    # Its own ping was just now.
    busy.socket._pinged_s += LONG_S
    deliver(busy.socket, [2, 3])
    assert busy.kinds == ["send", "send"]

    await wait_until(lambda: busy.kinds == ["send", "send", "ping"])

    await busy.pong()
    assert busy.socket.acked_until == "3-0"
    assert not busy.edge.unconfirmed


async def test_a_pong_within_the_spacing_brings_the_next_ping_later(busy: Client, clock: Clock) -> None:
    clock.ahead_s += LONG_S / 2
    deliver(busy.socket, [2, 3])
    assert busy.kinds == ["send", "ping", "send"]

    await busy.pong()
    assert busy.kinds == ["send", "ping", "send"]
    assert list(busy.edge.unconfirmed) == [busy.socket]

    clock.ahead_s += LONG_S / 2
    deliver(busy.socket, [4])
    await busy.pong()
    assert busy.socket.acked_until == "4-0"


async def test_half_a_window_is_confirmed_at_once(busy: Client) -> None:
    """The window of a client that has confirmed once: 20 notifications."""
    deliver(busy.socket, range(2, 11))
    assert "ping" not in busy.kinds

    deliver(busy.socket, [11])

    assert busy.kinds[-2:] == ["send", "ping"]


async def test_half_a_window_in_bytes_is_confirmed_at_once(busy: Client) -> None:
    deliver(busy.socket, [2], size_bytes=40 * KIB)
    assert "ping" not in busy.kinds

    deliver(busy.socket, [3], size_bytes=40 * KIB)

    assert busy.kinds == ["send", "send", "ping"]


async def test_a_careful_socket_confirms_each_frame_at_once(
    client: Client, stores: Stores, channel: str
) -> None:
    """The next frame waits for it."""
    lease = await stores.claim(channel)
    socket = client.holds(Claimed(lease=lease, frame_limit_bytes=None, careful_until="9-0"))
    client.edge.ping_spacing_s = LONG_S
    for number in (1, 2):
        deliver(socket, [number])
        await client.pong()

    assert client.kinds == ["send", "ping"] * 2


async def test_a_shutdown_confirms_at_once(busy: Client) -> None:
    deliver(busy.socket, [2])

    draining = asyncio.create_task(busy.socket.drain(within_s=PING_TIMEOUT_S))
    await wait_until(lambda: busy.kinds == ["send", "ping"])
    await busy.pong()
    await draining

    assert busy.socket.acked_until == "2-0"
    assert busy.kinds == ["send", "ping", "close"]


async def test_a_pong_during_a_shutdown_brings_the_next_ping_at_once(busy: Client, clock: Clock) -> None:
    clock.ahead_s += LONG_S / 2
    deliver(busy.socket, [2, 3])
    draining = asyncio.create_task(busy.socket.drain(within_s=PING_TIMEOUT_S))
    await asyncio.sleep(0)

    await busy.pong()
    await busy.pong()
    await draining

    assert busy.socket.acked_until == "3-0"
    assert busy.kinds == ["send", "ping", "send", "ping", "close"]


async def test_a_close_by_a_shutdown_sends_the_last_ping(busy: Client) -> None:
    deliver(busy.socket, [2])

    await busy.socket.close(CloseReason.STOPPING)

    assert busy.kinds == ["send", "ping", "close"]


async def test_a_closed_socket_is_not_pinged_by_the_timer(busy: Client) -> None:
    deliver(busy.socket, [2])
    await busy.socket.close(CloseReason.TAKEN_OVER)

    busy.socket.ping_behind()

    assert busy.kinds == ["send", "close"]


async def test_the_window_is_adapted_to_the_time_from_ping_to_pong(busy: Client, clock: Clock) -> None:
    """Not to the time that frames waited for their ping."""
    before = busy.socket.window.size_bytes
    deliver(busy.socket, [2])
    clock.ahead_s += PING_TIMEOUT_S
    deliver(busy.socket, [3])
    await busy.pong()

    assert busy.socket.window.size_bytes == 2 * before
