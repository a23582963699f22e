"""A hundred thousand channels in one account: made, listed, matched and deleted, and what each takes."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from shared.model.account_channels import NewChannel
from shared.model.api_keys import Account, new_id
from shared.model.channels import Kind
from shared.model.events import Event
from shared.publish.publisher import Publisher
from shared.publish.request import Posted
from shared.publish.stores import PublishStores
from shared.store import account_deletion, keyspace
from shared.store.channel_pages import Wanted
from shared.wire.events import Form
from tests.conftest import Measured
from tests.harness import leaks
from tests.model.work import count_lines
from tests.store.routing import table_of
from tests.store.stores import Stores

MANY, FEW = 100_000, 10
AT_ONCE = 500
# How much more work an event may be among many channels than among few.
LIMIT = 1.5
ONE = {
    "by its binding": {"topic": "orders.7.paid"},
    "by its customer": {"customer": "customer-7"},
    "by its name": {"to": "channel-0000007"},
}


async def make(stores: Stores, account: str, count: int) -> list[str]:
    """So many channels with a name and a binding each, a tenth of which share a customer."""
    made = list[str]()
    for start in range(0, count, AT_ONCE):
        new = [
            NewChannel(
                id=new_id(),
                account_id=account,
                kind=Kind.PULL,
                name=f"channel-{number:07}",
                customer=f"customer-{number}",
                bindings=b'["orders.%d.*"]' % number,
            )
            for number in range(start, min(count, start + AT_ONCE))
        ]
        await asyncio.gather(*map(stores.account_channels.create, new))
        made += [each.id for each in new]
    return made


def event(**more: str) -> Event:
    return Event(id="e", **{"topic": "orders.7.paid", "data": b"{}", **more})  # type: ignore[arg-type]


async def work_of(stores: Stores, account: str) -> dict[str, int]:
    """The lines of Python that matching an event which one channel wants takes, each way."""
    table = await table_of(stores.routing, account)
    work = {}
    for how, said in ONE.items():
        found, lines = count_lines(lambda: table.channels_for(event(**said)))  # noqa: B023
        assert len(found) == 1, how
        work[how] = lines
    return work


async def pages_of(stores: Stores, account: str, wanted: Wanted) -> list[str]:
    found, after = list[str](), ""
    while True:
        page, following = await stores.channel_pages.page(account, wanted, after=after, count=1000)
        found += [channel.record.id for channel in page]
        if following is None:
            return found
        after = following


async def delete(stores: Stores, account: str) -> None:
    await stores.account_deletion.begin(account, cascade=True)
    await stores.account_deletion.finish(account)


async def accounts(stores: Stores, *names: str) -> Sequence[str]:
    made = [new_id() for _ in names]
    for account, name in zip(made, names, strict=True):
        await stores.api_keys.create_account(Account(id=account, name=name))
    return made


async def test_the_work_of_matching_hardly_grows(stores: Stores) -> None:
    few, many = await accounts(stores, "few", "many")
    await make(stores, few, FEW)
    await make(stores, many, 1000)

    before, after = await work_of(stores, few), await work_of(stores, many)

    assert {how: after[how] for how in ONE if after[how] > LIMIT * before[how]} == {}


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_hundred_thousand_channels(
    stores: Stores, record_property: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rests are four times what a step took: minutes on a busy machine, in which nothing is shown.
    monkeypatch.setattr(account_deletion, "_REST", 0)
    few, many = await accounts(stores, "few", "many")
    await make(stores, few, FEW)
    used = stores.direct.info("memory")["used_memory"]
    started_s = time.monotonic()
    made = await make(stores, many, MANY)
    record_property("channels made a second", round(MANY / (time.monotonic() - started_s)))
    grown = stores.direct.info("memory")["used_memory"] - used
    record_property("bytes of Redis for a channel with name, customer and binding", round(grown / MANY))

    assert await pages_of(stores, many, Wanted()) == sorted(made)
    assert await pages_of(stores, many, Wanted(name_prefix="channel-00999")) == made[99_900:]
    before, after = await work_of(stores, few), await work_of(stores, many)
    record_property("lines of matching among 10 and among 100,000", (before, after))
    assert {how: after[how] for how in ONE if after[how] > LIMIT * before[how]} == {}

    publisher = Publisher(PublishStores(stores.routing, stores.queues, stores.sessions, stores.receipts))
    events = [event(**said)._replace(id=how) for how, said in ONE.items()]
    assert await publisher.publish(Posted(many, events, b"", Form.JSON, None)) == [1, 1, 1]
    assert len(stores.entries(made[7])) == 3

    started_s = time.monotonic()
    await delete(stores, many)
    record_property(
        "channels deleted a second, without rests",
        round(MANY / (time.monotonic() - started_s)),
    )
    assert await names_left(stores, many) == []


async def names_left(stores: Stores, account: str) -> list[bytes]:
    """Names of the account, but for its record of an hour."""
    record = keyspace.account(account).encode()
    return [name for name in stores.direct.scan_iter(match=f"{{{account}}}:*") if name != record]


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.long)])
async def test_a_deleted_account_leaves_nothing_of_its_channels(stores: Stores, count: int) -> None:
    [account] = await accounts(stores, "doomed")
    made = await make(stores, account, count)
    for channel in made[::10]:
        await stores.queued(channel, 1)

    await delete(stores, account)

    assert leaks.bytes_left(stores.direct) == {}
