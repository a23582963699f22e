"""Opening a socket: the key in the Authorization header or among the subprotocols."""

import pytest

from tests.conftest import Listen, ListenSilently
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading
from tests.harness.sockets import Receiver
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_key_in_the_authorization_header(
    api: Api, channel: ApiKey, listen: Listen, scheme: str
) -> None:
    headers = {"Authorization": f"{scheme} {channel.secret}"}
    receiver = await listen(channel, additional_headers=headers)

    await api.publish(channel, reading(1, to=channel.id))

    await receiver.received_numbers([1])
    assert receiver.connection.subprotocol is None


@pytest.mark.parametrize(
    "offer",
    [
        "wss, pelion_{}",
        "wss,pelion_{}",
        "pelion_{}, wss",
        "wss,  pelion_{} ",
        '"wss,pelion_{}"',
        '"wss", "pelion_{}"',
    ],
)
async def test_key_among_the_subprotocols(
    api: Api, channel: ApiKey, stack: Stack, listen_silently: ListenSilently, offer: str
) -> None:
    """Browsers have no other way. The response selects `wss` and never repeats the key."""
    headers = {"Sec-WebSocket-Protocol": offer.format(channel.secret)}
    client = await listen_silently(channel, stack.edges[0].url, headers)

    assert client.response is not None
    assert client.response.headers["Sec-WebSocket-Protocol"] == "wss"
    assert client.response.headers["X-Request-Id"]
    assert channel.secret not in str(client.response.headers)
    await api.publish(channel, reading(1, to=channel.id))
    await wait_until(lambda: client.numbers == [1])


async def test_stock_clients_accept_the_selected_subprotocol(api: Api, channel: ApiKey, stack: Stack) -> None:
    for offered in (("wss", f"pelion_{channel.secret}"), (f"pelion_{channel.secret}", "wss")):
        receiver = await Receiver.open_as(stack.edges[0].url, *offered)
        assert receiver.connection.subprotocol == "wss"
        await api.publish(channel, reading(1, to=channel.id))
        await receiver.received_numbers([1])
        await receiver.close()


async def test_no_subprotocol_is_selected_unless_wss_is_offered(
    channel: ApiKey, stack: Stack, listen: Listen
) -> None:
    receiver = await Receiver.open_as(stack.edges[0].url, f"pelion_{channel.secret}")
    assert receiver.connection.subprotocol is None
    await receiver.close()

    headers = {"Authorization": f"Bearer {channel.secret}"}
    both = await listen(channel, additional_headers=headers, subprotocols=["chat", "wss"])
    assert both.connection.subprotocol == "wss"


async def test_client_pings_get_pongs(channel: ApiKey, listen: Listen) -> None:
    receiver = await listen(channel)

    for payload in (b"ping", b"", b"\xff" * 125):
        await (await receiver.connection.ping(payload or None))

    assert receiver.open_now


async def test_frames_of_the_client_are_ignored(api: Api, channel: ApiKey, listen: Listen) -> None:
    """Its pongs still ack."""
    receiver = await listen(channel)
    for number in range(50):
        await receiver.connection.send("hello" * 20)
        await receiver.connection.send(b"\x00\xff")
        await api.publish(channel, reading(number, to=channel.id))

    await receiver.received_numbers(range(50))
    await api.until(channel, queue_size=0)
    assert receiver.open_now


async def test_a_key_in_the_query_is_refused(channel: ApiKey, stack: Stack) -> None:
    """It would end up in access logs."""
    receiver = await Receiver.open_as(stack.edges[0].url, "wss", query=f"?access_token={channel.secret}")

    assert await receiver.closed() == 1008
