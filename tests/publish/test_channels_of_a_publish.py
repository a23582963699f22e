"""Which queues a publish reaches through a gateway whose table is current."""

from shared.model.events import DEVICE_REGISTRATIONS
from shared.store import keyspace
from tests.publish.publishing import Gateway, bound_channel, event, queued
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
