"""Clients that close with 1009 (too big): frames shrink; a notification that never fits is dropped."""

from tests.conftest import Listen
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading, readings
from tests.harness.sockets import Receiver, assert_consecutive, in_arrival_order
from tests.harness.waiting import wait_until

CLIENT_LIMIT_BYTES = 4096
ATTEMPTS = 20


async def reconnecting(listen: Listen, key: ApiKey, *, until: int) -> list[Receiver]:
    """Reconnects after every 1009 until `until` has arrived."""
    receivers: list[Receiver] = []
    while not any(until in receiver.numbers for receiver in receivers):
        assert len(receivers) < ATTEMPTS, [receiver.numbers for receiver in receivers]
        receiver = await listen(key, max_size=CLIENT_LIMIT_BYTES)
        receivers.append(receiver)
        await wait_until(lambda got=receiver: until in got.numbers or not got.open_now)  # type: ignore[misc]
        if not receiver.open_now:
            assert_refused(receiver)
    return receivers


def assert_refused(receiver: Receiver) -> None:
    sent = receiver.connection.protocol.close_sent
    assert sent is not None
    assert sent.code == 1009


async def test_frames_shrink_until_they_fit(api: Api, channel: ApiKey, listen: Listen) -> None:
    await api.publish(channel, *readings(range(2000), to=channel.id))

    receivers = await reconnecting(listen, channel, until=1999)

    assert len(receivers) > 1
    for receiver in receivers:
        assert_consecutive(receiver.numbers)
    assert list(dict.fromkeys(in_arrival_order(receivers))) == [*range(2000)]
    await api.until(channel, queue_size=0)
    assert receivers[-1].open_now


async def test_the_next_socket_starts_with_the_smaller_frames(
    api: Api, channel: ApiKey, listen: Listen
) -> None:
    await api.publish(channel, *readings(range(500), to=channel.id))
    earlier = await reconnecting(listen, channel, until=499)
    await earlier[-1].close()
    await api.publish(channel, *readings(range(500, 1000), to=channel.id))

    receivers = await reconnecting(listen, channel, until=999)

    assert len(receivers) == 1


async def test_a_single_notification_that_is_refused_three_times_is_dropped(
    api: Api, channel: ApiKey, listen: Listen
) -> None:
    events = readings(range(100), to=channel.id)
    events[50] = reading(50, to=channel.id, padding=2 * CLIENT_LIMIT_BYTES)
    await api.publish(channel, *events)

    receivers = await reconnecting(listen, channel, until=99)

    expected = [number for number in range(100) if number != 50]
    assert list(dict.fromkeys(in_arrival_order(receivers))) == expected
    await api.until(channel, queue_size=0)
    alone = [r for r in receivers if r.numbers[-1:] == [49] or r.numbers == []]
    assert len(alone) >= 3


async def test_a_notification_refused_twice_still_reaches_a_client_that_accepts_it(
    api: Api, channel: ApiKey, listen: Listen
) -> None:
    await api.publish(channel, reading(0, to=channel.id, padding=2 * CLIENT_LIMIT_BYTES))
    for _ in range(2):
        receiver = await listen(channel, max_size=CLIENT_LIMIT_BYTES)
        await receiver.closed()
        assert_refused(receiver)

    larger = await listen(channel)

    await larger.received_numbers([0])
