"""What each pong confirms when several pings are in flight, and the ping before a close frame."""

import pytest

from shared.model.channels import CloseReason
from tests.socket_edge.conftest import Client, pending


@pytest.mark.parametrize(
    ("pongs", "acked_until"),
    [
        ([0], "1-0"),
        ([1], "2-0"),
        ([0, 1, 2], "3-0"),
        ([2], "3-0"),
        ([1, 0], "2-0"),
        ([2, 1, 0], "3-0"),
        ([0, 0, 0], "1-0"),
    ],
)
async def test_each_pong_confirms_what_was_written_before_its_ping(
    client: Client, pongs: list[int], acked_until: str
) -> None:
    """A client need not answer a ping when a newer one has come."""
    for number in (1, 2, 3):
        client.socket.deliver(pending(number))
        if number > 1:
            client.socket.ping()

    for number in pongs:
        await client.pong(number)

    assert client.socket.acked_until == acked_until


@pytest.mark.parametrize(
    ("reason", "last"),
    [
        (CloseReason.STOPPING, ["ping", "close"]),
        (CloseReason.KEY_EXPIRED, ["ping", "close"]),
        (CloseReason.REDIS_UNAVAILABLE, ["ping", "close"]),
        (CloseReason.UNEXPECTED, ["ping", "close"]),
        (CloseReason.TAKEN_OVER, ["close"]),
        (CloseReason.CHANNEL_DELETED, ["close"]),
        (CloseReason.KEY_REVOKED, ["close"]),
    ],
)
async def test_a_close_sends_a_last_ping_unless_the_lease_is_gone(
    client: Client, reason: CloseReason, last: list[str]
) -> None:
    """Its client may have a newer secret, and connect again."""
    client.socket.deliver(pending(1))
    client.socket.deliver(pending(2))
    await client.socket.close(reason)

    assert client.kinds == ["send", "ping", "send", *last]
