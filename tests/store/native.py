"""Native channels for tests of the store."""

from typing import Any

from shared.model.account_channels import NewChannel
from shared.model.api_keys import new_id
from shared.model.callbacks import Callback
from shared.model.channels import Kind
from shared.model.events import Event
from shared.store import keyspace
from shared.store.channel_pages import Wanted
from shared.store.fetches import Fetched
from tests.store.routing import table_of
from tests.store.stores import Stores

ORDERS = b'["orders.#"]'
HOOK = Callback("https://example.com/hook", {"x": "y"})


def a_channel(stores: Stores, **more: Any) -> NewChannel:
    of_kind = {"callback": HOOK} if more.get("kind") is Kind.WEBHOOK else {}
    made = {"kind": Kind.WEBSOCKET, "bindings": ORDERS, **of_kind, **more}
    return NewChannel(id=new_id(), account_id=stores.account_id, **made)


async def create(stores: Stores, **more: Any) -> str:
    new = a_channel(stores, **more)
    await stores.account_channels.create(new)
    return new.id


async def fetch(stores: Stores, channel: str, *, count: int = 10) -> Fetched:
    """A fetch that is not refused."""
    fetched = await stores.fetches.fetch(channel, count=count)
    assert isinstance(fetched, Fetched), fetched
    return fetched


async def receivers(stores: Stores, **event: Any) -> set[str]:
    """The channels that an event goes to, by the account's present routing table."""
    table = await table_of(stores.routing, stores.account_id)
    return set(table.channels_for(Event(id="e", data=b"{}", **{"topic": "orders.paid", **event})))


async def listed(stores: Stores, **wanted: Any) -> list[str]:
    found, _ = await stores.channel_pages.page(stores.account_id, Wanted(**wanted), after="", count=1000)
    return [channel.record.id for channel in found]


def names_left(stores: Stores, *more: str) -> set[bytes]:
    """Every name in Redis of these ids and of the account, without what every table leaves behind."""
    tags = {stores.account_id, *more}
    kept = {keyspace.routing(stores.account_id), keyspace.routing_changes(stores.account_id)}
    return {
        name
        for name in stores.direct.scan_iter()
        if keyspace.id_in(name) in tags and name.decode() not in kept
    }
