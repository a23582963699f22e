"""Repairs publishes that have met a changed routing table, or none in memory.

The tables are read, the events are matched again, and what is missing is appended, until nothing has changed
meanwhile. A repair is a barrier: later publishes of the account wait, so that no channel gets them out of the
order in which they are sent. (Publishes that overlap have no order: a large one is matched in turns, and a
later one may pass it.)
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeAlias

from shared.model.errors import StoreUnavailable
from shared.publish.lots import Lots
from shared.publish.matching import Matched, devices_of, match_in_turns
from shared.publish.round import Round
from shared.publish.state import Account, Publish
from shared.publish.stores import PublishStores

OnRepaired: TypeAlias = Callable[[Publish, Matched | Exception], None]
"""Gets what the events of a publish matched at last, or its error."""

# Each further round needs another change of the tables meanwhile.
_ROUNDS = 10
# Publishes that are matched in one turn of the event loop.
_TOGETHER = 50
_DEVICES_A_READ = 500


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
    devices = devices_of(publish.posted.events, table)
    for start in range(0, len(devices), _DEVICES_A_READ):
        some: Sequence[str] = devices[start : start + _DEVICES_A_READ]
        types |= await stores.routing.device_types(publish.account.id, some)
    return await match_in_turns(publish.posted, table, every, now_ms=publish.now_ms, stored_types=types)


async def repair(stores: PublishStores, lots: Lots, account: Account, *, on_end: OnRepaired) -> None:
    """Publishes what is stale, in the order of arrival."""
    while account.stale:
        if account.in_flight:
            # They came before what waits, and may turn out to be stale too.
            account.idle = asyncio.get_running_loop().create_future()
            await account.idle
        stale, account.stale = sorted(account.stale, key=lambda publish: publish.number), []
        while stale:
            try:
                await stores.routing.tables.read(account.id)
                stale = await _publish_some(stores, lots, stale, on_end)
            except Exception as error:
                for publish in stale:
                    on_end(publish, error)
                stale = []


async def _publish_some(
    stores: PublishStores, lots: Lots, stale: list[Publish], on_end: OnRepaired
) -> list[Publish]:
    """One round for each of the first publishes, together; returns what is left, in order.

    One to a channel that may not have the table's version of its bindings has a round to itself: the channel
    may refuse its append and take the next one.
    """
    rounds: list[asyncio.Future[Round]] = []
    waiting = list(stale)
    while waiting and len(rounds) < _TOGETHER:
        publish, is_alone = waiting[0], False
        ended: asyncio.Future[Round] = asyncio.get_running_loop().create_future()
        try:
            if matched := await _matched(stores, publish):
                is_alone = not matched.table.unconfirmed.isdisjoint(matched.channels)
            if rounds and (is_alone or matched is None):
                break
            if matched is not None:
                await _pay_copies(stores, publish, matched.copies)
            publish.rounds += 1
            if publish.rounds > _ROUNDS:
                raise BindingsKeepChanging
            if matched is None:
                # Another account's publish reads the table of all accounts now.
                break
            lots.send(Round(stores, publish, matched, ended.set_result))
        except Exception as error:
            on_end(waiting.pop(0), error)
            continue
        rounds.append(ended)
        waiting.pop(0)
        if is_alone:
            break
    again = []
    for sent in await asyncio.gather(*rounds):
        try:
            is_complete = await _is_complete(stores, sent)
        except Exception as error:
            on_end(sent.publish, error)
        else:
            if is_complete:
                on_end(sent.publish, sent.matched)
            else:
                again.append(sent.publish)
    return [*again, *waiting]


async def _pay_copies(stores: PublishStores, publish: Publish, copies: int) -> None:
    """Raises QuotaExceeded before anything is appended. Later there is no way back, but a debt."""
    unpaid = copies - publish.paid_copies
    if stores.rates is None or unpaid <= 0:
        return
    if publish.taken.channels or publish.taken.sessions:
        stores.rates.charge_copies(publish.account.id, unpaid)
    else:
        await stores.rates.spend_copies(publish.account.id, unpaid)
    publish.paid_copies = copies


async def _is_complete(stores: PublishStores, sent: Round) -> bool:
    """Whether nothing has changed meanwhile; gives a channel that is behind the table its version."""
    refused = sent.record()
    sent.confirm(dict(refused))
    # A writer may have died between the table and the channel.
    behind = [
        channel
        for channel, version in refused
        if await stores.routing.confirm_bindings(sent.publish.account.id, channel, seen=version)
    ]
    return not behind and sent.is_current()
