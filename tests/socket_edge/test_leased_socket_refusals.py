"""A client that refuses a frame as too long, and one that does not respond at all."""

import math

import pytest

from services.socket_edge.leased_socket import SMALLEST_FRAME_BYTES
from shared.delivery.loop import Window
from shared.model.channels import CloseReason, Lease
from shared.store.leases import Claimed
from shared.store.queues import BEGINNING
from tests.harness.waiting import wait_until
from tests.socket_edge.conftest import KIB, PING_INTERVAL_S, PING_TIMEOUT_S, Client, Clock, pending
from tests.store.stores import EDGE, Stores


def claimed(*, frame_limit_bytes: int | None = None, careful_until: str = "") -> Claimed:
    """A lease, with what earlier sockets learned of the client."""
    lease = Lease(channel="0" * 32, generation="1", owner=f"{EDGE}/2", previous="")
    return Claimed(lease=lease, frame_limit_bytes=frame_limit_bytes, careful_until=careful_until)


# What is learned from a 1009


async def test_a_refusal_with_nothing_in_flight_is_not_about_our_frames(client: Client) -> None:
    assert client.socket.refused is None
    client.socket.deliver(pending(1))
    await client.pong()
    assert client.socket.refused is None


async def test_a_refused_frame_of_several_halves_the_limit(client: Client) -> None:
    client.socket.deliver(pending(1, 2))

    assert client.socket.refused == (24 * KIB, "2-0", "")


async def test_which_of_several_frames_was_refused_is_not_known(client: Client) -> None:
    client.socket.deliver(pending(1))
    client.socket.deliver(pending(2))

    assert client.socket.refused == (24 * KIB, "2-0", "")


async def test_a_refused_single_one_is_named_and_the_limit_stays(client: Client) -> None:
    client.socket.deliver(pending(1, 2))
    await client.pong()
    client.socket.deliver(pending(3, size_bytes=60 * KIB))

    assert client.socket.refused == (48 * KIB, "3-0", "3-0")


async def test_the_limit_halves_from_what_it_was_and_not_below_the_smallest(client: Client) -> None:
    for limit, half in ((24 * KIB, 12 * KIB), (1500, SMALLEST_FRAME_BYTES), (SMALLEST_FRAME_BYTES,) * 2):
        socket = client.holds(claimed(frame_limit_bytes=limit))
        socket.deliver(pending(1, 2))
        assert socket.refused == (half, "2-0", "")


async def test_a_limit_that_was_learned_bounds_the_frames(client: Client) -> None:
    socket = client.holds(claimed(frame_limit_bytes=2 * KIB))

    socket.deliver(pending(1, 2, 3, size_bytes=900))

    assert [len(frame) <= 2 * KIB for frame in client.frames] == [True, True]


async def test_a_limit_that_was_learnt_is_no_reason_to_send_longer_frames(client: Client) -> None:
    socket = client.holds(claimed(frame_limit_bytes=1024 * KIB))

    socket.deliver(pending(*range(1, 6), size_bytes=20 * KIB))

    assert max(map(len, client.frames)) <= 48 * KIB


# Careful: one frame at a time, to learn which it is


async def test_a_careful_socket_sends_one_frame_and_waits(client: Client) -> None:
    socket = client.holds(claimed(frame_limit_bytes=1024, careful_until="3-0"))

    assert socket.deliver(pending(1, 2, 3, 4, size_bytes=900)) == "1-0"

    assert client.kinds == ["send", "ping"]
    assert socket.window == Window(count=0, size_bytes=0)
    assert socket.refused == (1024, "3-0", "1-0")


async def test_a_careful_socket_sends_one_frame_per_confirmation_until_it_is_past_the_entry(
    client: Client,
) -> None:
    socket = client.holds(claimed(frame_limit_bytes=1024, careful_until="3-0"))
    for number in (1, 2, 3):
        assert socket.deliver(pending(*range(number, 6), size_bytes=900)) == f"{number}-0"
        assert socket.window.count == 0
        await client.pong()
        assert socket.acked_until == f"{number}-0"
        assert socket.window.count > 0

    assert socket.deliver(pending(4, 5, size_bytes=900)) == "5-0", "past that entry it is as before"


async def test_entry_ids_are_compared_as_numbers(client: Client) -> None:
    socket = client.holds(claimed(careful_until="9-0"))
    socket.deliver(pending(10))
    await client.pong()

    assert socket.deliver([*pending(11), *pending(12, topic="device.reg-updates")]) == "12-0"


async def test_a_refused_entry_never_goes_back(client: Client) -> None:
    socket = client.holds(claimed(careful_until="10-0"))
    socket.deliver(pending(9))

    assert socket.refused is not None
    assert socket.refused[1] == "10-0"


async def test_three_sockets_find_and_drop_the_one_that_is_too_long(
    client: Client, stores: Stores, channel: str
) -> None:
    entries = await stores.queued(channel, 3)
    outcomes = []
    for attempt in range(4):
        socket = await client.opens(channel, f"{EDGE}/{attempt + 10}")
        client.sent.clear()
        socket.loop.wake()
        await wait_until(lambda: client.pings)
        assert socket.refused is not None
        limit, until, single = socket.refused
        await socket.loop.stop()
        outcomes.append(
            await stores.queues.refuse(
                socket.lease, frame_limit_bytes=limit, until=until, single_entry=single
            )
        )
        # What is left of a frame's limit still fits all three: only a careful socket sends each alone.
        if attempt == 0:
            stores.direct.hset(f"{{{channel}}}:channel", "frame_limit_bytes", 1)

    assert outcomes == ["remembered", "remembered", "remembered", "dropped"]
    assert stores.entries(channel) == entries[1:]


async def pass_time(client: Client, clock: Clock, seconds: float) -> None:
    """What is due by then is done."""
    clock.ahead_s += seconds + 1
    await client.edge.liveness.check_due(clock.now_s())


async def pass_time_out(client: Client, clock: Clock) -> None:
    """The pong is late, and then overdue."""
    await pass_time(client, clock, PING_TIMEOUT_S / 4)
    await pass_time(client, clock, PING_TIMEOUT_S * 3 / 4)


# Silence


async def test_a_quiet_socket_is_pinged_once(client: Client, clock: Clock) -> None:
    await pass_time(client, clock, PING_INTERVAL_S)
    await pass_time(client, clock, PING_INTERVAL_S)

    assert client.kinds == ["ping"]


async def test_a_socket_that_answered_is_quiet_until_its_next_ping(client: Client, clock: Clock) -> None:
    client.socket.deliver(pending(1))
    await client.pong()

    await pass_time(client, clock, PING_TIMEOUT_S)

    assert client.kinds == ["send", "ping", "ping"]
    assert client.socket.close_reason is None


async def test_a_client_that_has_gone_is_not_pinged_again(client: Client, clock: Clock) -> None:
    client.gone = True

    await pass_time(client, clock, PING_INTERVAL_S)

    assert client.socket.next_check_s == math.inf


async def test_a_client_that_reads_nothing_is_aborted(client: Client, clock: Clock) -> None:
    client.unread_bytes = 5000
    client.socket.deliver(pending(1))

    await pass_time_out(client, clock)

    assert client.kinds[-1] == "abort"
    assert client.socket.close_reason is CloseReason.STALLED
    assert client.socket.acked_until == BEGINNING
    assert client.socket.next_check_s == math.inf


async def test_a_client_that_reads_slowly_gets_time_for_as_long_as_it_reads(
    client: Client, clock: Clock
) -> None:
    client.unread_bytes = 5000
    client.socket.deliver(pending(1))
    await pass_time(client, clock, PING_TIMEOUT_S / 4)
    for left in (4000, 1):
        client.unread_bytes = left
        await pass_time(client, clock, PING_TIMEOUT_S)
        assert client.socket.close_reason is None

    await pass_time(client, clock, PING_TIMEOUT_S)

    assert client.kinds[-1] == "abort"


@pytest.mark.parametrize("unread_bytes", [0, 5000])
async def test_a_client_that_has_read_all_and_is_silent_is_aborted(
    client: Client, clock: Clock, unread_bytes: int
) -> None:
    client.unread_bytes = unread_bytes
    client.socket.ping()
    client.unread_bytes = 0

    await pass_time_out(client, clock)

    assert client.kinds == ["ping", "abort"]


async def test_an_edge_that_was_stopped_meanwhile_aborts_no_client_at_its_first_look(
    client: Client, clock: Clock
) -> None:
    client.socket.ping()
    await pass_time(client, clock, 2 * PING_TIMEOUT_S)
    assert client.kinds == ["ping"]

    await pass_time(client, clock, 0)

    assert client.kinds == ["ping", "abort"]


async def test_the_kernel_is_asked_for_unread_bytes_only_when_a_pong_is_late(
    client: Client, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def unread_bytes() -> int:
        nonlocal asked
        asked += 1
        return 0

    monkeypatch.setattr(client.socket, "_unread_bytes", unread_bytes)
    for number in (1, 2):
        client.socket.deliver(pending(number))
        await client.pong()
    client.socket.deliver(pending(3))
    assert asked == 0

    await pass_time(client, clock, PING_TIMEOUT_S / 4)

    assert asked == 1


async def test_a_socket_that_stalls_while_it_closes_keeps_its_reason(client: Client, clock: Clock) -> None:
    client.socket.ping()
    await client.socket.close(CloseReason.TAKEN_OVER)

    await pass_time_out(client, clock)

    assert client.socket.close_reason is CloseReason.TAKEN_OVER
    assert client.kinds == ["ping", "close", "abort"]
