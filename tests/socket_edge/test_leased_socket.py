"""One socket as a transport: the pong to the ping in flight confirms what was written before it."""

import asyncio

import pytest

from services.socket_edge.leased_socket import LeasedSocket
from shared.delivery.loop import Window
from shared.model.channels import CloseReason
from shared.store.queues import BEGINNING
from tests.harness.waiting import wait_until
from tests.socket_edge.conftest import KIB, PING_TIMEOUT_S, Client, Clock, pending
from tests.store.stores import OTHER_EDGE, Stores


async def test_frames_go_out_with_one_ping_behind_them(client: Client) -> None:
    last = client.socket.deliver([*pending(1, 2), *pending(3, topic="device.reg-updates")])

    assert client.kinds == ["send", "send", "ping"]
    assert client.frames == [b'{"registrations":["",""]}', b'{"reg-updates":[""]}']
    assert last == "3-0"


async def test_what_is_written_is_not_confirmed(client: Client) -> None:
    client.socket.deliver(pending(1))

    assert client.socket.acked_until == BEGINNING


async def test_there_is_one_ping_in_flight(client: Client) -> None:
    for number in range(1, 5):
        client.socket.deliver(pending(number))

    assert client.kinds == ["send", "ping", "send", "send", "send"]


async def test_a_pong_confirms_what_was_written_before_its_ping_and_the_next_ping_follows(
    client: Client,
) -> None:
    client.socket.deliver(pending(1))
    client.socket.deliver(pending(2))
    client.socket.deliver(pending(3))

    await client.pong()
    assert client.socket.acked_until == "1-0"
    assert client.kinds[-1] == "ping"

    await client.pong()
    assert client.socket.acked_until == "3-0"
    assert len(client.pings) == 2, "nothing is left to confirm"


async def test_payloads_are_opaque_and_never_the_same(client: Client) -> None:
    for number in range(1, 300):
        client.socket.deliver(pending(number))
        await client.pong()

    assert len(set(client.pings)) == len(client.pings) == 299
    assert all(0 < len(payload) <= 125 for payload in client.pings)


@pytest.mark.parametrize("payload", [b"", b"\0", b"\0" * 8, (2).to_bytes(8, "big"), b"x" * 125])
async def test_an_unsolicited_pong_confirms_nothing(client: Client, payload: bytes) -> None:
    client.socket.deliver(pending(1))

    client.socket.on_pong(payload)

    assert client.socket.acked_until == BEGINNING
    assert len(client.pings) == 1


async def test_the_same_pong_again_confirms_nothing_more(client: Client) -> None:
    client.socket.deliver(pending(1))
    client.socket.deliver(pending(2))
    await client.pong(0)

    await client.pong(0)

    assert client.socket.acked_until == "1-0"


async def test_a_quiet_sockets_pong_confirms_nothing_and_causes_no_ping(client: Client) -> None:
    client.socket.ping()
    await client.pong()

    assert client.socket.acked_until == BEGINNING
    assert client.kinds == ["ping"]


# Bounds


async def test_the_window_shrinks_by_what_is_not_confirmed(client: Client) -> None:
    assert client.socket.window == Window(count=10, size_bytes=64 * KIB)

    client.socket.deliver(pending(1, 2, 3))

    in_flight = sum(map(len, client.frames))
    assert client.socket.window == Window(count=7, size_bytes=64 * KIB - in_flight)
    await client.pong()
    assert client.socket.window.count == 20, "a quick client gets more at once"


async def test_a_full_socket_has_an_empty_window(client: Client) -> None:
    client.socket.deliver(pending(*range(1, 10)))
    assert client.socket.window.count == 1
    client.socket.deliver(pending(10))

    assert client.socket.window == Window(count=0, size_bytes=0)
    await client.pong(0)
    assert client.socket.window.count == 19


async def test_bytes_fill_a_socket_too(client: Client) -> None:
    client.socket.deliver(pending(1, size_bytes=40 * KIB))
    assert 0 < client.socket.window.size_bytes < 24 * KIB
    client.socket.deliver(pending(2, size_bytes=40 * KIB))

    assert client.socket.window == Window(count=0, size_bytes=0)


async def test_a_frame_is_bounded(client: Client) -> None:
    client.socket.deliver(pending(*range(1, 6), size_bytes=20 * KIB))

    assert [frame.count(b"x" * 100 + b'"') for frame in client.frames] == [2, 2, 1]
    assert all(len(frame) <= 48 * KIB for frame in client.frames)


# The window


async def confirm_after(client: Client, clock: Clock, number: int, took_s: float) -> int:
    """The window's size after one notification was confirmed in that time."""
    client.socket.deliver(pending(number))
    clock.ahead_s += took_s
    await client.pong()
    return client.socket.window.size_bytes


async def test_the_window_grows_for_a_quick_client_up_to_the_limit(client: Client, clock: Clock) -> None:
    sizes = [await confirm_after(client, clock, number, 0) for number in range(1, 8)]

    assert sizes == [128 * KIB, 256 * KIB, 512 * KIB, 1024 * KIB, 2048 * KIB, 4096 * KIB, 8192 * KIB]


async def test_the_window_shrinks_for_a_slow_client_and_never_to_nothing(
    client: Client, clock: Clock
) -> None:
    slow_s = PING_TIMEOUT_S / 2

    sizes = [await confirm_after(client, clock, number, slow_s) for number in range(1, 6)]

    assert sizes == [32 * KIB, 16 * KIB, 16 * KIB, 16 * KIB, 16 * KIB]


async def test_the_window_stays_for_a_client_in_between(client: Client, clock: Clock) -> None:
    assert await confirm_after(client, clock, 1, PING_TIMEOUT_S / 5) == 64 * KIB


async def test_a_quiet_sockets_pongs_say_nothing_about_the_window(client: Client, clock: Clock) -> None:
    for took_s in (0, PING_TIMEOUT_S / 2):
        client.socket.ping()
        clock.ahead_s += took_s
        await client.pong()

    assert client.socket.window.size_bytes == 64 * KIB


async def test_the_window_always_holds_one(client: Client, channel: str) -> None:
    socket = await client.opens(channel, in_flight_limit=3, in_flight_bytes=2 * KIB)

    assert socket.window == Window(count=1, size_bytes=KIB)


# The close


@pytest.mark.parametrize(
    ("close_reason", "codes", "code"),
    [
        (CloseReason.TAKEN_OVER, 2019, 1001),
        (CloseReason.CHANNEL_DELETED, 2019, 1001),
        (CloseReason.CHANNEL_DELETED, 2020, 1000),
        (CloseReason.KEY_REVOKED, 2019, 1008),
        (CloseReason.STOPPING, 2019, 1001),
        (CloseReason.STOPPING, 2020, 1012),
        (CloseReason.REDIS_UNAVAILABLE, 2020, 1011),
    ],
)
async def test_each_close_reason_has_its_code(
    client: Client, channel: str, close_reason: CloseReason, codes: int, code: int
) -> None:
    socket = await client.opens(channel, pelion_close_codes=codes)

    await socket.close(close_reason)

    assert socket.close_reason is close_reason
    assert client.kinds == ["close"]
    assert client.sent[0]["code"] == code
    assert client.sent[0]["reason"]


async def test_a_close_reason_without_a_code_aborts(client: Client) -> None:
    await client.socket.close(CloseReason.IDLE)

    assert client.kinds == ["abort"]


async def test_only_the_first_close_counts(client: Client) -> None:
    await client.socket.close(CloseReason.TAKEN_OVER)
    await client.socket.close(CloseReason.STOPPING)

    assert client.socket.close_reason is CloseReason.TAKEN_OVER
    assert client.kinds == ["close"]


async def test_nothing_is_sent_after_the_close(client: Client) -> None:
    await client.socket.close(CloseReason.TAKEN_OVER)

    assert client.socket.window == Window(count=0, size_bytes=0)
    assert client.socket.deliver(pending(1)) is None
    assert client.kinds == ["close"]


async def test_a_shutdown_sends_a_last_ping_for_what_no_ping_stands_for_yet(client: Client) -> None:
    client.socket.deliver(pending(1))
    client.socket.deliver(pending(2))

    await client.socket.close(CloseReason.STOPPING)
    assert client.kinds == ["send", "ping", "send", "ping", "close"]

    await client.pong()
    assert client.socket.acked_until == "2-0"
    assert client.kinds[-1] == "close", "no ping follows the close frame"


async def test_a_shutdown_sends_no_ping_when_one_stands_for_everything(client: Client) -> None:
    client.socket.deliver(pending(1))
    await client.socket.close(CloseReason.STOPPING)

    assert client.kinds == ["send", "ping", "close"]


async def test_a_client_that_has_gone_is_a_close_reason_and_no_error(client: Client) -> None:
    client.gone = True

    client.socket.deliver(pending(1))

    assert client.socket.close_reason is CloseReason.CLIENT_GONE
    assert client.socket.acked_until == BEGINNING
    assert client.socket.window == Window(count=0, size_bytes=0)


async def test_a_close_to_a_client_that_has_gone(client: Client) -> None:
    client.gone = True

    await client.socket.close(CloseReason.STOPPING)

    assert client.socket.close_reason is CloseReason.CLIENT_GONE


# With a real queue


async def test_draining_waits_until_what_is_in_flight_is_acked(
    client: Client, stores: Stores, channel: str
) -> None:
    """Its client reconnects elsewhere at once, and what is not acked would be sent again."""
    await stores.queued(channel, 3)
    client.socket.loop.wake()
    await wait_until(lambda: client.pings)

    draining = asyncio.create_task(client.socket.drain(within_s=PING_TIMEOUT_S))
    late = await stores.queued(channel, 2)
    client.socket.loop.wake()
    await client.socket.loop.wait_idle()
    assert "close" not in client.kinds
    await client.pong()
    await draining

    assert stores.entries(channel) == late, "nothing new was sent, and what was is acked"
    assert client.kinds[-1] == "close"
    assert client.socket.close_reason is CloseReason.STOPPING


async def test_draining_does_not_wait_for_ever(
    client: Client, stores: Stores, channel: str, clock: Clock
) -> None:
    await stores.queued(channel, 3)
    client.socket.loop.wake()
    await wait_until(lambda: client.pings)

    draining = asyncio.create_task(client.socket.drain(within_s=1000))
    await asyncio.sleep(0)
    clock.ahead_s += 1001
    await draining

    assert client.kinds[-1] == "close"
    assert len(stores.entries(channel)) == 3


async def test_draining_with_nothing_in_flight_closes_at_once(client: Client) -> None:
    await client.socket.drain(within_s=PING_TIMEOUT_S)

    assert client.kinds == ["close"]


async def acked(client: Client, stores: Stores, channel: str, *, ping: int) -> None:
    """Answers one ping, when it has come; what it stands for leaves the queue."""
    before = stores.entries(channel)
    await wait_until(lambda: len(client.pings) > ping)
    assert stores.entries(channel) == before
    await client.pong(ping)
    await wait_until(lambda: stores.entries(channel) != before)


async def test_a_pong_acks(client: Client, stores: Stores, channel: str) -> None:
    await stores.queued(channel, 25)
    client.socket.loop.wake()

    await acked(client, stores, channel, ping=0)
    assert len(stores.entries(channel)) == 15, "the first window is small"
    await acked(client, stores, channel, ping=1)

    assert stores.entries(channel) == []
    assert client.socket.facts["sent"] == client.socket.facts["acked"] == 25


async def test_a_takeover_closes_the_older_socket(client: Client, stores: Stores, channel: str) -> None:
    await stores.claim(channel, f"{OTHER_EDGE}/1")

    client.socket.loop.wake()

    await wait_until(lambda: client.socket.close_reason)
    assert client.socket.close_reason is CloseReason.TAKEN_OVER
    assert client.sent[-1]["code"] == 1001


async def test_a_rewound_socket_is_sent_everything_again_and_old_pongs_mean_nothing(client: Client) -> None:
    client.socket.deliver(pending(1, 2, 3))

    client.socket.rewind()
    assert client.socket.acked_until == BEGINNING
    assert client.socket.window == Window(count=10, size_bytes=64 * KIB)
    await client.pong(0)
    assert client.socket.acked_until == BEGINNING

    client.socket.deliver(pending(1))
    assert len(client.pings) == 2
    await client.pong(1)
    assert client.socket.acked_until == "1-0"


async def test_draining_a_socket_that_ended_just_before_does_nothing(
    client: Client, stores: Stores, channel: str
) -> None:
    """Its task may begin after the end; an error would end the shutdown of all other sockets."""
    other = Client(stores, client.clock)
    ended = await other.opens(channel)
    other.edge.registry.add(ended)
    other.edge.remove(ended)

    await ended.drain(within_s=PING_TIMEOUT_S)

    assert other.kinds == []


def test_sockets_are_compared_by_identity() -> None:
    assert LeasedSocket.__eq__ is object.__eq__, "liveness keeps sockets in dictionaries"
