"""Repairs publishes that have met a changed routing table, or none in memory.

The tables are read, the events are matched again, and what is missing is appended, until nothing has changed
meanwhile. A repair is a barrier: later publishes of the account wait, so that no channel gets them out of the
order in which they are sent. (Publishes that overlap have no order: a large one is matched in turns, and a
later one may pass it.)
"""

import asyncio
from collections.abc import Callable

from shared.model.errors import StoreUnavailable
from shared.publish.matching import Matched, check_quota, devices_of, match_in_turns
from shared.publish.round import PublishStores, Round
from shared.publish.state import Account, Publish

# Each further round needs another change of the tables meanwhile.
_ROUNDS = 10


class BindingsKeepChanging(StoreUnavailable):
    """A publish met a change in every round."""

    def __init__(self) -> None:
        super().__init__(why="the account's bindings keep changing")


async def matched_slowly(stores: PublishStores, publish: Publish) -> Matched | None:
    """Matches many events, or what needs stored device types, by current tables; None if they are behind.

    Reads their versions first: nothing is appended of a publish that is refused. Raises Invalid, TooLarge,
    StoreUnavailable.
    """
    table, every = stores.routing.tables.cached(publish.account.id)
    versions = stores.routing.tables.versions(publish.account.id)
    await versions.wait()
    if table is None or every is None or versions.of_tables != (table.version, every.version):
        return None
    return await _matched(stores, publish)


async def _matched(stores: PublishStores, publish: Publish) -> Matched | None:
    table, every = stores.routing.tables.cached(publish.account.id)
    if table is None or every is None:
        return None
    types: dict[str, str] = {}
    if devices := devices_of(publish.posted.events, table):
        types = await stores.routing.device_types(publish.account.id, devices)
    matched = await match_in_turns(publish.posted, table, every, now_ms=publish.now_ms, stored_types=types)
    check_quota(matched)
    return matched


async def repair(
    stores: PublishStores, account: Account, *, on_end: Callable[[Publish, Matched | Exception], None]
) -> None:
    """Publishes what is stale, in the order of arrival."""
    while account.stale:
        if account.in_flight:
            # They came before what waits, and may turn out to be stale too.
            account.idle = asyncio.get_running_loop().create_future()
            await account.idle
        stale, account.stale = sorted(account.stale, key=lambda publish: publish.number), []
        for publish in stale:
            result: Matched | Exception
            try:
                result = await _publish_until_current(stores, publish)
            except Exception as error:
                result = error
            on_end(publish, result)


async def _publish_until_current(stores: PublishStores, publish: Publish) -> Matched:
    account_id = publish.account.id
    for _ in range(_ROUNDS):
        await stores.routing.tables.read(account_id)
        matched = await _matched(stores, publish)
        if matched is None:
            # Another account's publish reads the table of all accounts now.
            continue
        ended: asyncio.Future[Round] = asyncio.get_running_loop().create_future()
        Round(stores, publish, matched, ended.set_result)
        sent = await ended
        refused = sent.record()
        sent.confirm(dict(refused))
        # A channel may be behind the table: a writer may have died between the two.
        behind = [
            channel
            for channel, version in refused
            if await stores.routing.confirm_bindings(account_id, channel, seen=version)
        ]
        if not behind and sent.is_current():
            return matched
    raise BindingsKeepChanging
