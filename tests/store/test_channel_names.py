"""Names of native channels: each belongs to one channel, whatever ends in the middle."""

import pytest

from shared.model.account_channels import ChannelRecord
from shared.model.api_keys import new_id
from shared.model.errors import NameTaken
from shared.store import keyspace
from shared.store.name_index import entry_of
from tests.store.native import a_channel, create, listed, names_left, receivers
from tests.store.stores import Stores


async def test_a_name_is_not_freed_while_its_channel_has_it(stores: Stores) -> None:
    """A slow gateway frees a former name, which the channel has got back meanwhile."""
    channel = await create(stores, name="n")

    await stores.account_channels.names.drop_former(stores.account_id, "n", channel)

    with pytest.raises(NameTaken):
        await create(stores, name="n")


async def test_a_name_that_was_taken_away_is_not_kept(stores: Stores) -> None:
    """Its channel was being made, and was slow: the second attempt finds the name taken."""
    slow = a_channel(stores, name="n")
    await stores.account_channels.names.take(stores.account_id, "n", slow.id, on_stale=never)
    quick = await create(stores, name="n")

    with pytest.raises(NameTaken):
        await stores.account_channels.create(slow)

    assert await listed(stores) == [quick]
    assert names_left(stores, slow.id) == names_left(stores)


async def test_a_name_that_comes_to_its_channel_meanwhile_is_not_taken_away(stores: Stores) -> None:
    """A renaming was cut short, and is made again while another channel wants the name."""
    holder, other = await create(stores, name="before"), await create(stores)
    stores.direct.zadd(keyspace.names_of_channels(stores.account_id), {entry_of("n", holder): 0})

    async def on_stale(stale: str) -> None:
        found = await stores.account_channels.read(stale)
        assert found is not None
        await stores.account_channels.change(found, name="n")

    with pytest.raises(NameTaken) as refused:
        await stores.account_channels.names.take(stores.account_id, "n", other, on_stale=on_stale)

    assert refused.value.by == holder
    assert await receivers(stores, to="n") == {holder}


async def test_the_table_takes_no_channel_whose_name_was_taken_away(stores: Stores) -> None:
    record = ChannelRecord(new_id(), stores.account_id, is_native=True, name="n")

    assert not await stores.routing.enter(record, generation="g", version="v", bindings=b"")

    assert await stores.routing.native(stores.account_id, record.id) is None


async def never(stale: str) -> None:
    raise AssertionError(f"{stale} was to lose its name")
