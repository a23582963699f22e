"""A client that has read, confirms it, and closes at once gets on its next socket what it has not confirmed.

The pongs and the end of the connection arrive in one packet, so that the edge reads them together.
"""

from collections.abc import Callable, Sequence

import pytest
from websockets.frames import Close, Frame, Opcode

from tests.conftest import Listen, ListenSilently
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading, readings
from tests.harness.raw import SilentSocket
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

COUNT = 3


def masked(opcode: Opcode, payload: bytes = b"") -> bytes:
    return Frame(opcode, payload).serialize(mask=True)


def pongs(pings: Sequence[bytes]) -> bytes:
    return b"".join(masked(Opcode.PONG, ping) for ping in pings)


CLOSE = masked(Opcode.CLOSE, Close(1000, "").serialize())
ANSWER = Close(1000, "").serialize()
LONG = masked(Opcode.TEXT, b"x" * 1000)

# What the client sends in one packet, by its pings: they stand for 1, 2 and 3 notifications. Then how many
# notifications come again, and the payload of the answer to its close frame.
PACKETS: dict[str, tuple[Callable[[Sequence[bytes]], bytes], int, bytes]] = {
    "the last pong, close": (lambda p: pongs(p[2:]) + CLOSE, 0, ANSWER),
    "every pong, close": (lambda p: pongs(p) + CLOSE, 0, ANSWER),
    "every pong in reverse, close": (lambda p: pongs(p[::-1]) + CLOSE, 0, ANSWER),
    "the same pong again and again, close": (lambda p: pongs([p[2]] * 5) + CLOSE, 0, ANSWER),
    "the first pong, close": (lambda p: pongs(p[:1]) + CLOSE, 2, ANSWER),
    "the second pong, close": (lambda p: pongs(p[1:2]) + CLOSE, 1, ANSWER),
    "no pong, close": (lambda _: CLOSE, 3, ANSWER),
    "unsolicited pongs, close": (
        lambda _: pongs([b"", b"x", b"\0" * 8, (99).to_bytes(8, "big"), b"\xff" * 125]) + CLOSE,
        3,
        ANSWER,
    ),
    "close, the last pong": (lambda p: CLOSE + pongs(p[2:]), 3, ANSWER),
    "the first pong, close, the last pong": (lambda p: pongs(p[:1]) + CLOSE + pongs(p[2:]), 2, ANSWER),
    "the last pong, close without a code": (lambda p: pongs(p[2:]) + masked(Opcode.CLOSE), 0, b""),
    "the last pong, close with the longest reason": (
        lambda p: pongs(p[2:]) + masked(Opcode.CLOSE, ANSWER + b"r" * 123),
        0,
        ANSWER + b"r" * 123,
    ),
    "the last pong, a malformed close": (
        lambda p: pongs(p[2:]) + masked(Opcode.CLOSE, b"x"),
        0,
        Close(1002, "close frame too short").serialize(),
    ),
    "the last pong, a reserved opcode": (
        lambda p: pongs(p[2:]) + b"\x83\x80\0\0\0\0",
        0,
        Close(1002, "invalid opcode").serialize(),
    ),
    "a ping, the last pong, close": (lambda p: masked(Opcode.PING, b"?") + pongs(p[2:]) + CLOSE, 0, ANSWER),
    "texts, the last pong, close": (lambda p: LONG * 3 + pongs(p[2:]) + CLOSE, 0, ANSWER),
}


@pytest.fixture
async def client(api: Api, channel: ApiKey, stack: Stack, listen_silently: ListenSilently) -> SilentSocket:
    """It has been sent notifications, each with a ping behind it, and has answered nothing."""
    client = await listen_silently(channel, stack.edges[0].url)
    for number in range(COUNT):
        await api.publish(channel, reading(number, to=channel.id))
        await wait_until(lambda: len(client.pings) > number, what=lambda: client.pings)  # noqa: B023
    assert client.numbers == [*range(COUNT)]
    return client


async def assert_repeats(api: Api, channel: ApiKey, stack: Stack, listen: Listen, count: int) -> None:
    """The next socket, on the other edge, gets the last `count` and then what is new, and each once."""
    receiver = await listen(channel, stack.edges[1].url)
    await api.publish(channel, reading(COUNT, to=channel.id))
    await receiver.received_numbers(range(COUNT - count, COUNT + 1))
    await api.until(channel, queue_size=0)


@pytest.mark.parametrize("name", PACKETS)
async def test_pongs_before_the_close_in_the_same_packet_count(
    api: Api, channel: ApiKey, stack: Stack, client: SilentSocket, listen: Listen, name: str
) -> None:
    packet, repeated, answer = PACKETS[name]

    await client.write(packet(client.pings))
    await wait_until(lambda: client.close_payload is not None, what="the answer to the close frame")

    assert client.close_payload == answer
    await assert_repeats(api, channel, stack, listen, repeated)


async def test_the_close_is_answered_when_redis_has_the_acks(
    api: Api, channel: ApiKey, client: SilentSocket
) -> None:
    """Otherwise a client that reconnects at once may claim the channel before them."""
    await client.write(pongs(client.pings) + CLOSE)
    await wait_until(lambda: client.close_payload is not None, what="the answer to the close frame")

    assert await api.queue_size(channel) == 0
    assert await api.status(channel) == "disconnected"


async def test_a_client_that_ends_its_output_behind_the_close_reads_the_answer(
    client: SilentSocket, api: Api, channel: ApiKey
) -> None:
    await client.write(pongs(client.pings) + CLOSE)
    client.end_output()

    await wait_until(lambda: client.ended, what="the end of the connection")
    assert client.close_payload == ANSWER
    assert await api.queue_size(channel) == 0


@pytest.mark.parametrize("end", [SilentSocket.end_output, SilentSocket.reset], ids=["end", "reset"])
async def test_pongs_before_an_end_without_a_close_count(
    api: Api,
    channel: ApiKey,
    stack: Stack,
    client: SilentSocket,
    listen: Listen,
    end: Callable[[SilentSocket], None],
) -> None:
    """Linux gives out what came before a reset."""
    await client.write(pongs(client.pings))
    end(client)

    await api.until(channel, status="disconnected")
    await assert_repeats(api, channel, stack, listen, 0)


async def test_a_pong_in_many_packets_counts(
    api: Api, channel: ApiKey, stack: Stack, client: SilentSocket, listen: Listen
) -> None:
    for byte in pongs(client.pings[2:]) + CLOSE:
        await client.write(bytes([byte]))
    await wait_until(lambda: client.close_payload is not None, what="the answer to the close frame")

    await assert_repeats(api, channel, stack, listen, 0)


@pytest.mark.parametrize("edge", [0, 1])
@pytest.mark.parametrize("arrival", ["before", "one by one"])
async def test_a_client_that_reconnects_again_and_again_gets_each_once(
    api: Api, channel: ApiKey, stack: Stack, listen: Listen, edge: int, arrival: str
) -> None:
    """It closes as soon as it has read, and opens the next socket as soon as that is closed."""
    numbers: list[int] = []
    for first in range(0, 200, 20):
        batch = range(first, first + 20)
        if arrival == "before":
            await api.publish(channel, *readings(batch, to=channel.id))
        receiver = await listen(channel, stack.edges[0 if first % 40 else edge].url)
        if arrival == "one by one":
            for number in batch:
                await api.publish(channel, reading(number, to=channel.id))
        await receiver.received(20)
        await receiver.close()
        numbers += receiver.numbers

    assert numbers == [*range(200)]
    assert await api.queue_size(channel) == 0


async def test_a_newer_socket_on_the_same_edge_gets_nothing_that_was_confirmed(
    api: Api, channel: ApiKey, stack: Stack, client: SilentSocket, listen: Listen
) -> None:
    """The acks of the older one wait for others, and the claim must not overtake them."""
    await client.write(pongs(client.pings))

    receiver = await listen(channel, stack.edges[0].url)
    await api.publish(channel, reading(COUNT, to=channel.id))
    await receiver.received_numbers([COUNT])
