"""Which channels and sessions a publish reaches."""

import pytest

from shared.model.events import (
    DEVICE_DE_REGISTRATIONS,
    DEVICE_NOTIFICATIONS,
    DEVICE_REGISTRATIONS,
    DEVICE_REGISTRATIONS_EXPIRED,
    Event,
)
from shared.model.sessions import EVERY_ACCOUNT
from shared.store import keyspace, sessions
from tests.publish.conftest import NewGateway
from tests.publish.publishing import Gateway, bound_channel, event, listen, queued
from tests.store.stores import Stores


async def test_a_channel_whose_key_is_gone_is_left_out(gateway: Gateway, stores: Stores) -> None:
    channel, gone = await bound_channel(stores), await stores.channel()
    # A deletion died before it reached the table, and the channel was created again and revoked.
    stores.direct.hset(keyspace.routing(stores.account_id), f"channel:{gone}:lost", "")
    key = await stores.api_keys.find(gone)
    assert key is not None
    await stores.api_keys.revoke(key)

    # The first one reads the table, the second one finds it in memory.
    assert [await gateway.publish(event(n, DEVICE_REGISTRATIONS)) for n in (1, 2)] == [[1], [1]]

    assert queued(stores, channel) == ["1", "2"]
    assert await gateway.is_idle()


# Device types


def registration(
    number: int, device: str, kind: str | None = None, topic: str = DEVICE_REGISTRATIONS
) -> Event:
    fields = {"ep": device} if kind is None else {"ep": device, "ept": kind}
    return Event(str(number), topic, b"{}", fields=fields)


def notification(number: int, device: str) -> Event:
    return Event(str(number), DEVICE_NOTIFICATIONS, b"{}", fields={"ep": device, "path": "/3"})


@pytest.fixture
async def lights(stores: Stores) -> str:
    """A channel with a binding to a type of devices."""
    channel = await stores.channel()
    await stores.routing.put_bindings(stores.account_id, channel, b'[{"endpoint-type":"light"}]')
    return channel


async def test_type_of_a_registration_counts_for_later_publishes(
    gateway: Gateway, new_gateway: NewGateway, lights: str
) -> None:
    await gateway.publish(registration(1, "lamp", "light"), registration(2, "door", "lock"))

    for each in (gateway, new_gateway(), gateway):
        assert await each.publish(notification(3, "lamp"), notification(4, "door")) == [1, 0]


async def test_type_counts_in_its_own_publish_from_there_on(gateway: Gateway, lights: str) -> None:
    events = (notification(1, "lamp"), registration(2, "lamp", "light"), notification(3, "lamp"))
    for expected in ([0, 1, 1], [1, 1, 1]):
        assert await gateway.publish(*events) == expected


@pytest.mark.parametrize("topic", [DEVICE_DE_REGISTRATIONS, DEVICE_REGISTRATIONS_EXPIRED])
async def test_de_registration_removes_the_type(gateway: Gateway, lights: str, topic: str) -> None:
    await gateway.publish(registration(1, "lamp", "light"))
    gone = (registration(2, "lamp", topic=topic), notification(3, "lamp"))

    assert await gateway.publish(*gone) == [1, 0]
    assert await gateway.publish(notification(4, "lamp")) == [0]


# Receipts


async def test_receipt_names_the_channels_that_a_repair_added(gateway: Gateway, stores: Stores) -> None:
    known = await bound_channel(stores)
    await gateway.publish(event(0))
    added = await bound_channel(stores)

    assert await gateway.publish(event(1)._replace(receipt=True)) == [2]

    receipt = await stores.receipts.find(stores.account_id, "1")
    assert receipt is not None
    assert {each.channel for each in receipt.channels} == {known, added}


# Sessions


@pytest.mark.parametrize("account", ["", EVERY_ACCOUNT])
async def test_session_gets_what_it_binds_to(gateway: Gateway, stores: Stores, account: str) -> None:
    await gateway.publish(event(0))
    session = await listen(stores, "orders", account=account)

    assert [await gateway.publish(event(n)) for n in (1, 2)] == [[1], [1]]

    assert queued(stores, session) == ["1", "2"]


async def test_session_gets_what_a_repair_adds_once(gateway: Gateway, stores: Stores) -> None:
    session = await listen(stores, "orders")
    await gateway.publish(event(0))
    await listen(stores, "orders", "other", session_id=session)

    assert await gateway.publish(event(1, "other"), event(2)) == [1, 1]

    # A session refuses no bindings: it gets what is missing behind the rest.
    assert sorted(queued(stores, session)) == ["0", "1", "2"]


async def test_session_that_no_longer_binds_does_not_count(gateway: Gateway, stores: Stores) -> None:
    session = await listen(stores, "orders")
    await gateway.publish(event(0))
    await listen(stores, "other", session_id=session)

    assert await gateway.publish(event(1)) == [0]


async def test_session_with_a_full_queue_counts_what_it_took(
    gateway: Gateway, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_QUEUE_LIMIT", 3)
    session = await listen(stores, "orders")

    assert await gateway.publish(*(event(n) for n in range(5))) == [1, 1, 1, 0, 0]

    assert queued(stores, session) == ["0", "1", "2"]
    assert await gateway.is_idle()
