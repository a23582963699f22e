"""A notification is pending until the client's WebSocket library has answered the ping sent after it."""

from collections.abc import Awaitable, Callable

from tests.conftest import Listen, ListenSilently
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading, readings
from tests.harness.raw import SilentSocket
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until


async def test_unacked_notifications_are_sent_again(
    api: Api, channel: ApiKey, stack: Stack, listen: Listen, listen_silently: ListenSilently
) -> None:
    silent = await listen_silently(channel, stack.edges[0].url)
    await api.publish(channel, *readings(range(3), to=channel.id))
    await wait_until(lambda: silent.numbers == [*range(3)] and silent.pings)

    assert await api.queue_size(channel) == 3
    await silent.close()

    receiver = await listen(channel, stack.edges[1].url)
    await receiver.received_numbers(range(3))
    await api.until(channel, queue_size=0)


async def test_a_pong_acks_what_was_sent_before_its_ping(
    api: Api, channel: ApiKey, stack: Stack, listen: Listen, listen_silently: ListenSilently
) -> None:
    silent = await listen_silently(channel, stack.edges[0].url)
    await api.publish(channel, *readings(range(1), to=channel.id))
    await wait_until(lambda: silent.numbers == [*range(1)] and silent.pings)
    await _answer_pings(silent, until=lambda: _is_empty(api, channel))

    await api.publish(channel, *readings(range(1, 3), to=channel.id))
    await wait_until(lambda: silent.numbers == [*range(3)])
    await silent.close()

    receiver = await listen(channel)
    await receiver.received_numbers(range(1, 3))


async def test_an_unsolicited_pong_acks_nothing(
    api: Api, channel: ApiKey, stack: Stack, listen: Listen, listen_silently: ListenSilently
) -> None:
    silent = await listen_silently(channel, stack.edges[0].url)
    await api.publish(channel, *readings(range(3), to=channel.id))
    await wait_until(lambda: silent.numbers == [*range(3)] and silent.pings)

    for payload in (b"", b"x", b"0", b"999999999", b"\x00\x00\x00\x00\x00\x00\x00\xff", b"-1", b"\xff" * 125):
        await silent.pong(payload)
    await silent.close()
    await api.until(channel, status="disconnected")

    assert await api.queue_size(channel) == 3
    receiver = await listen(channel)
    await receiver.received_numbers(range(3))


async def test_the_window_is_bounded_and_the_rest_stays_queued(
    api: Api, channel: ApiKey, stack: Stack, listen: Listen, listen_silently: ListenSilently
) -> None:
    silent = await listen_silently(channel, stack.edges[0].url)
    await api.publish(channel, *readings(range(5000), to=channel.id))
    await wait_until(lambda: silent.numbers)
    await api.publish(channel, reading(5000, to=channel.id))

    assert await api.queue_size(channel) == 5001
    receiver = await listen(channel)
    await wait_until(lambda: silent.close_code == 1001)
    assert silent.numbers == [*range(len(silent.numbers))]
    assert len(silent.numbers) <= 1000
    await receiver.received_numbers(range(5001))


async def _answer_pings(silent: SilentSocket, *, until: Callable[[], Awaitable[bool]]) -> None:
    """Answers each ping once, as a live client does."""
    answered = 0
    while not await until():
        for payload in silent.pings[answered:]:
            answered += 1
            await silent.pong(payload)


async def _is_empty(api: Api, key: ApiKey) -> bool:
    return await api.queue_size(key) == 0
