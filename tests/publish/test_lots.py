"""Wide publishes go in lots: the accounts take turns, and each channel keeps its order."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from shared.model.api_keys import new_id
from shared.model.errors import StoreUnavailable
from shared.publish.lots import LOT_COST, Line, Lots, Sendable
from shared.store.queues import APPEND_LOT
from tests.publish.publishing import (
    WIDE,
    Gateway,
    appends,
    bind,
    bound_channel,
    event,
    listen,
    posted,
    queued,
    turns,
)
from tests.store.stores import Stores


@dataclass(eq=False)
class OneLine:
    """An account's line."""

    sent_cost: int = 0
    unsent: deque[Sendable] = field(default_factory=deque)
    takes_turns: bool = False


class Sent:
    """Takes the place of a round: lots of given costs, whose replies the test sends."""

    def __init__(self, line: Line, name: str, *costs: int, log: list[str]) -> None:
        self.line, self.name, self.cost = line, name, sum(costs)
        self.lot_cost, self.is_sent, self.error = 0, False, None
        self._costs, self._log = list(costs), log
        self._on_lot: Callable[[Sendable], None]
        self.on_end: Callable[[Any], None] = lambda _: log.append(f"{name} ended")

    error: Exception | None

    def send_lot(self, on_lot: Callable[[Sendable], None]) -> None:
        self.lot_cost, self._on_lot = self._costs.pop(0), on_lot
        self.is_sent = not self._costs
        self._log.append(self.name)

    def reply(self, error: Exception | None = None) -> None:
        self.error, self.is_sent = error, self.is_sent or error is not None
        self._on_lot(self)

    def fail(self, error: Exception) -> None:
        self._log.append(f"{self.name} failed")


class Accounts:
    """Sends for accounts by name."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.lots = Lots()
        self._lines: dict[str, OneLine] = {}

    def send(self, name: str, *costs: int) -> Sent:
        """`name` begins with the account's letter."""
        sent = Sent(self._lines.setdefault(name[0], OneLine()), name, *costs, log=self.log)
        self.lots.send(sent)
        return sent

    def logged(self) -> list[str]:
        log = self.log.copy()
        self.log.clear()
        return log


LOT = LOT_COST + 1


def test_accounts_take_turns() -> None:
    accounts = Accounts()
    large = {name: accounts.send(name, LOT, LOT, LOT) for name in "abc"}
    assert accounts.logged() == ["a", "b"], "no more is on its way"

    order = []
    for name in "abcabcab":
        large[name].reply()
        order += accounts.logged()

    assert order == ["c", "a", "b", "c", "a", "b", "a ended", "c", "b ended"]


def test_first_small_publish_of_an_account_never_waits() -> None:
    accounts = Accounts()
    for name in "abc":
        accounts.send(name, LOT, LOT)
    accounts.logged()

    accounts.send("d1", 4)
    accounts.send("d2", 4)

    assert accounts.logged() == ["d1"], "the second one takes turns with the large ones"


def test_small_publish_does_not_pass_a_large_one_of_its_account() -> None:
    accounts = Accounts()
    for name in "bc":
        accounts.send(name, LOT, LOT)

    accounts.send("a1", LOT, LOT)
    accounts.send("a2", 4)

    assert accounts.logged() == ["b", "c"]


def test_publishes_of_one_account_keep_their_order() -> None:
    accounts = Accounts()
    large = accounts.send("a1", LOT, LOT)
    accounts.send("a2", 4)
    accounts.send("a3", 4)
    assert accounts.logged() == ["a1"]

    large.reply()
    assert accounts.logged() == ["a1"], "all of the large one goes first"
    large.reply()
    assert accounts.logged() == ["a1 ended", "a2", "a3"]


def test_small_publishes_of_one_account_go_together_up_to_a_lot() -> None:
    accounts = Accounts()
    small = [accounts.send(f"a{n}", 64) for n in range(6)]
    assert accounts.logged() == ["a0", "a1", "a2", "a3"]

    small[0].reply()

    assert accounts.logged() == ["a0 ended", "a4"]


def test_lost_redis_fails_what_waits_in_the_account_and_holds_up_no_other() -> None:
    accounts = Accounts()
    first = accounts.send("a1", LOT, LOT)
    accounts.send("a2", 4)
    for name in "bcde":
        accounts.send(name, LOT, LOT)
    assert accounts.logged() == ["a1", "b"]

    first.reply(StoreUnavailable(why="lost"))

    assert accounts.logged() == ["a2 failed", "a1 ended", "c", "d", "e"], "one timeout for all, not one each"


def test_unexpected_error_ends_only_that_publish() -> None:
    accounts = Accounts()
    first = accounts.send("a1", LOT, LOT)
    accounts.send("a2", 4)

    first.reply(RuntimeError("a bug"))

    assert accounts.logged() == ["a1", "a1 ended", "a2"]


# With a publisher


@pytest.fixture
async def neighbour(gateway: Gateway, stores: Stores) -> str:
    """Another account with a binding."""
    wide, stores.account_id = stores.account_id, new_id()
    await bound_channel(stores)
    neighbour, stores.account_id = stores.account_id, wide
    await gateway.publish(event(0), account_id=neighbour)
    gateway.count_pipelines()
    return neighbour


async def test_wide_publish_is_sent_in_lots(gateway: Gateway, channels: list[str], stores: Stores) -> None:
    assert await gateway.publish(event(1)) == [WIDE]

    per_pipeline = appends(gateway)
    assert sum(per_pipeline) == WIDE
    assert max(per_pipeline) <= LOT_COST // 4 + 1
    assert {tuple(queued(stores, channel)) for channel in channels} == {("0", "1")}
    assert await gateway.is_idle()


async def test_neighbour_waits_for_one_lot(gateway: Gateway, channels: list[str], neighbour: str) -> None:
    wide = [asyncio.create_task(gateway.publish(event(n))) for n in range(1, 5)]
    await turns(1)
    gateway.count_pipelines()

    assert await gateway.publish(event(9), account_id=neighbour) == [1]

    assert sum(appends(gateway)) <= 2 * (LOT_COST // 4 + 2), "of four times 150"
    assert await asyncio.gather(*wide) == [[WIDE]] * 4


async def test_publishes_behind_a_wide_one_stay_behind_it(
    gateway: Gateway, channels: list[str], stores: Stores
) -> None:
    publishing = [asyncio.create_task(gateway.publish(event(n))) for n in range(1, 4)]
    publishing += [asyncio.create_task(gateway.publish(event(4, to=channels[-1])))]
    await asyncio.gather(*publishing)

    assert {tuple(queued(stores, channel)) for channel in channels[:-1]} == {("0", "1", "2", "3")}
    assert queued(stores, channels[-1]) == ["0", "1", "2", "3", "4"]


async def test_wide_publish_is_repaired_where_bindings_change_meanwhile(
    gateway: Gateway, channels: list[str], stores: Stores
) -> None:
    """The last channel drops its binding, and another one comes, when the first lot is on its way."""
    added = await stores.channel()
    publishing = asyncio.create_task(gateway.publish(event(1)))
    while not sum(appends(gateway)):
        await turns(1)
    assert not queued(stores, channels[-1])[1:], "a later lot"
    await bind(stores, channels[-1], "other")
    await bind(stores, added, "orders")

    counts = await publishing

    ids = [queued(stores, channel) for channel in channels]
    assert ids[:-1] == [["0", "1"]] * (WIDE - 1)
    assert counts == [sum("1" in each for each in [*ids, queued(stores, added)])]


MANY = 2 * APPEND_LOT + 20


async def test_many_events_for_one_channel_go_in_several_appends(gateway: Gateway, stores: Stores) -> None:
    channel = await bound_channel(stores)
    await gateway.publish(event(0))
    gateway.count_pipelines()

    assert await gateway.publish(*map(event, range(1, MANY + 1))) == [1] * MANY

    assert sum(appends(gateway)) == 3
    assert queued(stores, channel) == [str(n) for n in range(MANY + 1)]


async def test_channel_that_changes_between_two_appends_gets_the_rest_that_it_wants(
    gateway: Gateway, stores: Stores
) -> None:
    """It took the first events; of the others it gets what it wants then, in order and once."""
    channel = await bound_channel(stores)
    await gateway.publish(event(0))
    gateway.count_pipelines()
    topics = ["orders", "other"]
    events = [event(n, topics[n % 2 if n > APPEND_LOT else 0]) for n in range(1, 30 * APPEND_LOT)]
    publishing = asyncio.create_task(gateway.publish(*events))
    while not sum(appends(gateway)):
        await turns(1)
    await bind(stores, channel, "other")
    counts = await publishing

    ids = [int(each) for each in queued(stores, channel)][1:]
    assert ids == sorted(set(ids)), "in order and once"
    assert counts == [int(n in set(ids)) for n in range(1, len(events) + 1)]
    taken = [n for n in ids if events[n - 1].topic == "orders"]
    assert taken[:APPEND_LOT] == list(range(1, APPEND_LOT + 1))
    others = [n for n in range(taken[-1] + 1, len(events) + 1) if events[n - 1].topic == "other"]
    assert others, "it changed while the publish was under way"
    assert [n for n in ids if n > taken[-1]] == others, "all that it wants behind what it took"


async def test_session_gets_many_events_in_lots(gateway: Gateway, stores: Stores) -> None:
    session = await listen(stores, "orders")
    await gateway.publish(event(0))

    counts = await gateway.publish(*map(event, range(1, MANY + 1)))

    assert counts == [1] * MANY
    assert queued(stores, session) == [str(n) for n in range(MANY + 1)]


async def test_error_in_a_later_lot_ends_the_publish_and_what_waits(
    gateway: Gateway, channels: list[str], stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, calls = gateway.stores.queues.begin_append, 0

    def breaks(*arguments: object, **more: object) -> object:
        nonlocal calls
        calls += 1
        if calls == WIDE - 10:
            raise RuntimeError("a bug")
        return begin(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(gateway.stores.queues, "begin_append", breaks)
    wide = asyncio.create_task(gateway.publish(event(1)))
    await turns(1)
    behind = asyncio.create_task(gateway.publish(event(2, to=channels[0])))

    with pytest.raises(RuntimeError, match="a bug"):
        await wide
    assert await behind == [1]
    assert await gateway.is_idle()


async def test_thousand_publishes_that_waited_for_a_repair_leave_turns_to_others(
    gateway: Gateway, stores: Stores
) -> None:
    channel = await bound_channel(stores)
    done: list[object] = []
    for number in range(1000):
        gateway.publisher.begin(posted(stores.account_id, event(number)), done.append)
    turns_of_others = 0
    while len(done) < 1000:
        await asyncio.sleep(0)
        turns_of_others += 1

    assert turns_of_others > 1000 // 50
    assert queued(stores, channel) == [str(n) for n in range(1000)]
