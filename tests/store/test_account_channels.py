"""Native channels: made in steps that may end anywhere, named once, and gone without a trace."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from shared.model.account_channels import Activity, ChannelRecord, ChannelSettings
from shared.model.api_keys import new_id
from shared.model.callbacks import Callback
from shared.model.channels import Kind
from shared.model.errors import NameTaken, NoSuchChannel
from shared.model.webhooks import DEFAULT_POLICY
from shared.store import keyspace
from shared.store.account_channels import CREATION_MS, AccountChannels
from shared.store.channel_pages import Wanted
from shared.store.channels import Channels
from shared.store.routing import Routing
from shared.wire.pelion.subscriptions import compiled
from tests.store.native import HOOK, ORDERS, a_channel, create, listed, names_left, receivers
from tests.store.stores import Stores


async def test_a_channel_is_read_as_it_was_made(stores: Stores) -> None:
    settings = ChannelSettings(expires_after_ms=5000, queue_bytes=2048, queue_age_ms=7000)
    channel = await create(
        stores, kind=Kind.WEBHOOK, name="Käse / 1", customer="c.1", settings=settings, bindings=ORDERS
    )

    found = await stores.account_channels.read(channel)

    assert found is not None
    assert found.record == ChannelRecord(channel, stores.account_id, True, "Käse / 1", "c.1")
    assert (found.kind, found.state, found.settings) == (Kind.WEBHOOK, Activity.ACTIVE, settings)
    assert found.callback == HOOK
    assert (found.pending, found.dropped, found.connected) == (0, 0, False)
    assert await stores.account_channels.bindings(found.record) == ORDERS
    assert await stores.account_channels.names.find(stores.account_id, "Käse / 1") == channel
    assert await receivers(stores) == {channel}
    [counted] = [stores.direct.hgetall(keyspace.counts(stores.account_id))]
    assert counted == {b"channels": b"1", b"bindings": b"1"}


async def test_it_is_no_api_key(stores: Stores) -> None:
    channel, (key, _) = await create(stores), await stores.api_key()

    assert await stores.api_keys.find(channel) is None
    assert [
        each.id for each in (await stores.api_keys.of_account(stores.account_id, after="", count=9))[0]
    ] == [key.id]
    # A revocation of an API key that is gone ends it once more: that must not end a channel.
    await stores.api_keys.end_again(channel)
    assert await stores.account_channels.read(channel) is not None


@pytest.mark.parametrize("kind", list(Kind))
async def test_nothing_is_left_of_a_deleted_channel(stores: Stores, kind: Kind) -> None:
    channel = await create(stores, kind=kind, name="n", customer="c")
    found = await stores.account_channels.read(channel)
    assert found is not None

    assert await stores.account_channels.delete(found) is True

    assert await stores.account_channels.read(channel) is None
    assert await stores.account_channels.delete(found) is False
    assert names_left(stores, channel) == set()
    assert stores.direct.smembers(keyspace.WEBHOOKS) == set()
    assert stores.direct.hkeys(keyspace.routing(stores.account_id)) == [b"version"]
    assert await receivers(stores) == await receivers(stores, customer="c") == set()


# How an event names its receivers, and whether a channel with name and customer is among them.
REACHED = {
    "by binding": ({}, True),
    "by id": ({"to": "ch_{id}"}, True),
    "by name": ({"to": "n"}, True),
    "by customer": ({"customer": "c.1"}, True),
    "by the id of another": ({"to": "ch_" + "0" * 32}, False),
    "by an API key's form of id": ({"to": "{id}"}, False),
    "by another name": ({"to": "m"}, False),
    "of another customer": ({"customer": "c"}, False),
    "of a customer that looks like a pattern": ({"customer": "#"}, False),
    "of its customer on another topic": ({"customer": "c.1", "topic": "other"}, False),
    "of its customer on a topic of devices": ({"customer": "c.1", "topic": "device.notifications"}, False),
    "of its customer to every channel": ({"customer": "c.1", "topic": "device.registrations"}, True),
    "of another customer to every channel": ({"customer": "x", "topic": "device.registrations"}, False),
    "to every channel": ({"topic": "device.registrations"}, True),
}


@pytest.mark.parametrize("how", REACHED)
async def test_what_reaches_a_channel(stores: Stores, how: str) -> None:
    channel = await create(stores, name="n", customer="c.1")
    event, is_reached = REACHED[how]
    event = {field: value.replace("{id}", channel) for field, value in event.items()}

    assert await receivers(stores, **event) == ({channel} if is_reached else set())


async def test_an_event_of_a_customer_reaches_no_channel_without_one(stores: Stores) -> None:
    key, _ = await stores.api_key()
    await stores.make_channel(key.id)
    without = await create(stores)

    assert await receivers(stores, customer="c") == set()
    assert await receivers(stores) == {without}
    assert await receivers(stores, to=key.id) == await receivers(stores, to=f"ch_{key.id}") == {key.id}


async def test_a_name_belongs_to_one_channel(stores: Stores) -> None:
    made = await asyncio.gather(*(create(stores, name="n") for _ in range(5)), return_exceptions=True)

    [channel] = [each for each in made if isinstance(each, str)]
    assert [type(each) for each in made if each != channel] == [NameTaken] * 4
    assert await listed(stores) == [channel]
    assert await receivers(stores, to="n") == {channel}
    # Other accounts have names of their own.
    elsewhere = replace(a_channel(stores, name="n"), account_id=new_id())
    await stores.account_channels.create(elsewhere)


class Dies(Exception):
    """The gateway is killed."""


def killed_after(stores: Stores, commands: int) -> AccountChannels:
    """Those of a gateway that is killed when it has sent so many commands."""
    left = commands

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Dies
            left -= 1
            return call(*arguments)

        return run

    calls: Any = SimpleNamespace(
        **{name: counted(getattr(stores.calls, name)) for name in ("command", "script", "read")}
    )
    routing = Routing(calls, compiled)
    channels = Channels(calls, routing, stores.wakeups)
    return AccountChannels(calls, routing, stores.wakeups, channels=channels)


COMMANDS_OF_A_CREATION = 8
COMMANDS_OF_A_RENAMING = 7


@pytest.mark.parametrize("commands", range(COMMANDS_OF_A_CREATION + 1))
async def test_a_creation_that_is_cut_short_leaves_nothing(stores: Stores, commands: int) -> None:
    new = a_channel(stores, kind=Kind.WEBHOOK, name="n", customer="c")
    gateway = killed_after(stores, commands)
    if commands == COMMANDS_OF_A_CREATION:
        await gateway.create(new)
        assert await listed(stores) == [new.id]
        assert await stores.channels.abandon(await stores.channels.ref(new.id), new.id, after_ms=0) is False
        return
    with pytest.raises(Dies):
        await gateway.create(new)
    assert await stores.account_channels.read(new.id) is None
    assert await listed(stores) == []

    ref = await stores.channels.ref(new.id)
    if ref.generation:
        assert stores.due_ms(new.id) is not None, "the reaper will visit it"
        assert await stores.channels.abandon(ref, new.id, after_ms=CREATION_MS) is False
        assert await stores.channels.abandon(ref, new.id, after_ms=0) is True
    again = await create(stores, name="n")
    assert await receivers(stores, to="n") == await receivers(stores) == {again}
    assert await receivers(stores, customer="c") == set()
    assert {keyspace.id_in(name) for name in names_left(stores, new.id)} == {stores.account_id}


@pytest.mark.parametrize("commands", range(COMMANDS_OF_A_RENAMING + 1))
async def test_a_renaming_that_is_cut_short_is_completed_or_undone(stores: Stores, commands: int) -> None:
    channel = await create(stores, name="old", customer="c")
    before = await stores.account_channels.read(channel)
    assert before is not None
    with contextlib.suppress(Dies):
        await killed_after(stores, commands).change(before, name="new", customer="d")

    record = await stores.account_channels.record(channel)
    assert record is not None
    await stores.account_channels.repair(record)

    free = {"old", "new"} - {record.name}
    for name in free:
        other = await create(stores, name=name, bindings=b"")
        assert await receivers(stores, to=name) == {other}
    assert await receivers(stores, to=record.name) == {channel}
    assert await receivers(stores, customer=record.customer) == {channel}
    with pytest.raises(NameTaken):
        await create(stores, name=record.name)


@pytest.mark.parametrize("commands", range(COMMANDS_OF_A_RENAMING + 1))
async def test_a_change_that_is_cut_short_can_be_repeated(stores: Stores, commands: int) -> None:
    """Its record may have it already, and the routing table not yet."""
    channel = await create(stores, name="old", customer="c")
    before = await stores.account_channels.read(channel)
    assert before is not None
    with contextlib.suppress(Dies):
        await killed_after(stores, commands).change(before, name="new", customer="d")
        assert commands == COMMANDS_OF_A_RENAMING

    now = await stores.account_channels.read(channel)
    assert now is not None
    await stores.account_channels.change(now, name="new", customer="d")

    assert await receivers(stores, to="new") == await receivers(stores, customer="d") == {channel}
    assert await receivers(stores, to="old") == await receivers(stores, customer="c") == set()


async def test_two_changes_at_once_keep_what_each_leaves_out(stores: Stores) -> None:
    """Both have read the channel before; the slower one writes the routing table with the newer record."""
    channel = await create(stores, name="old", customer="c")
    before = await stores.account_channels.read(channel)
    assert before is not None

    await stores.account_channels.change(before, name="new")
    older = await stores.account_channels.record(channel)
    await stores.account_channels.change(before, customer="d")
    assert older is not None
    assert await stores.routing.set_native(older)

    record = await stores.account_channels.record(channel)
    assert record is not None
    assert (record.name, record.customer) == ("new", "d")
    assert await receivers(stores, to="new") == await receivers(stores, customer="d") == {channel}


async def test_a_table_newer_than_the_record_is_repaired(stores: Stores) -> None:
    """Redis has lost the last writes of the channel's slot, and not those of the account's."""
    channel = await create(stores, name="old", customer="c")
    before = stores.direct.hgetall(keyspace.api_key(channel))
    found = await stores.account_channels.read(channel)
    assert found is not None
    await stores.account_channels.change(found, name="new", customer="d")
    stores.direct.delete(keyspace.api_key(channel))
    stores.direct.hset(keyspace.api_key(channel), mapping=before)
    record = await stores.account_channels.record(channel)
    assert record is not None

    assert await stores.account_channels.repair(record) == 1

    assert await receivers(stores, to="old") == await receivers(stores, customer="c") == {channel}
    assert await receivers(stores, to="new") == set()
    assert await stores.account_channels.repair(record) == 0


async def test_changes(stores: Stores) -> None:
    channel = await create(stores, kind=Kind.WEBHOOK, name="a", customer="c")
    taken = await create(stores, name="taken")
    change = stores.account_channels.change

    async def now() -> Any:
        return await stores.account_channels.read(channel)

    with pytest.raises(NameTaken):
        await change(await now(), name="taken")
    await change(await now(), name="b", customer="")
    await change(await now(), settings=ChannelSettings(queue_bytes=4096))
    await stores.account_channels.change_webhook(
        await now(), lambda _: (Callback("https://example.com/other"), DEFAULT_POLICY)
    )
    await stores.account_channels.put_bindings((await now()).record, b'["other"]')

    found = await now()
    assert (found.record.name, found.record.customer) == ("b", "")
    assert found.settings == ChannelSettings(queue_bytes=4096)
    assert found.callback == Callback("https://example.com/other")
    assert await receivers(stores, to="b") == await receivers(stores, topic="other") == {channel}
    assert await receivers(stores) == await receivers(stores, to="taken") == {taken}
    assert await receivers(stores, to="a") == await receivers(stores, customer="c") == set()
    await change(found, name="")
    assert await receivers(stores, to="b") == set()
    await stores.account_channels.delete(found)
    for attempt in (
        change(found, name="z"),
        change(found, settings=ChannelSettings()),
        stores.account_channels.change_webhook(found, lambda _: (HOOK, DEFAULT_POLICY)),
        stores.account_channels.put_bindings(found.record, ORDERS),
        stores.account_channels.purge(found),
    ):
        with pytest.raises(NoSuchChannel):
            await attempt
    assert await listed(stores, name_prefix="") == [taken]


async def test_pages_by_id_and_by_name(stores: Stores) -> None:
    names = [f"n{number:03}" for number in range(25)]
    made = {name: await create(stores, name=name, customer="c" if name < "n005" else "") for name in names}
    key, _ = await stores.api_key()
    await stores.make_channel(key.id)
    nameless = await create(stores, kind=Kind.PULL)

    async def pages(wanted: Wanted) -> list[str]:
        found, after = list[str](), ""
        while True:
            page, following = await stores.channel_pages.page(stores.account_id, wanted, after=after, count=4)
            assert len(page) <= 4
            found += [channel.record.id for channel in page]
            if following is None:
                return found
            after = following

    assert await pages(Wanted()) == sorted([*made.values(), key.id, nameless])
    assert await pages(Wanted(name_prefix="n01")) == [made[f"n01{digit}"] for digit in range(10)]
    assert await pages(Wanted(name_prefix="x")) == []
    assert await pages(Wanted(kind=Kind.PULL)) == [nameless]
    assert await pages(Wanted(customer="c")) == sorted(made[name] for name in names[:5])
    assert await pages(Wanted(state=Activity.PAUSED)) == []
    await stores.account_channels.pause(nameless)
    assert await pages(Wanted(state=Activity.PAUSED)) == [nameless]
    for wanted in (Wanted(), Wanted(name_prefix="n")):
        with pytest.raises(ValueError):
            await stores.channel_pages.page(stores.account_id, wanted, after="nonsense", count=1)


async def test_a_page_looks_at_a_bounded_number_of_channels(stores: Stores) -> None:
    for start in range(0, 1100, 100):
        await asyncio.gather(*(create(stores, bindings=b"") for _ in range(start, start + 100)))

    found, after = await stores.channel_pages.page(
        stores.account_id, Wanted(customer="unknown"), after="", count=10
    )

    assert found == []
    assert after is not None
    assert await stores.channel_pages.page(
        stores.account_id, Wanted(customer="unknown"), after=after, count=10
    ) == ([], None)
