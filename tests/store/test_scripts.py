"""Scripts: what their heads promise, and which commands the hot ones run."""

import re
from collections import Counter
from typing import Any

import pytest

from shared.model.callbacks import Callback
from shared.store.queues import BEGINNING, QueueLimits
from shared.store.scripts import load_scripts
from tests.store.stores import EDGE, AppendingQueues, Stores, at_time, events, ids

OWNER = f"{EDGE}/1"


class Commands:
    """Counts the commands that Redis runs, those of scripts too."""

    def __init__(self, direct: Any) -> None:
        self._direct = direct

    def begin(self) -> None:
        self._direct.config_resetstat()

    def all(self) -> Counter[str]:
        """The commands since `begin`, without the calls of the scripts themselves."""
        stats = self._direct.info("commandstats")
        counts = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}
        own = ("evalsha", "info", "config|resetstat")
        return Counter({name: calls for name, calls in counts.items() if name not in own})


@pytest.fixture
def commands(stores: Stores) -> Commands:
    return Commands(stores.direct)


async def warmed_up(stores: Stores, channel: str) -> None:
    """Loads the scripts, and gives the queue a first entry."""
    lease = await stores.claim(channel, OWNER)
    [entry] = await stores.queued(channel, 1)
    await stores.pending(lease)
    await stores.queues.ack_until(lease, until=entry)


async def test_append_of_one_event_runs_four_commands(stores: Stores, commands: Commands) -> None:
    channel = await stores.channel()
    await warmed_up(stores, channel)

    commands.begin()
    await stores.queues.append(channel, events(1))
    assert commands.all() == {"hmget": 1, "xadd": 1, "hset": 1, "publish": 1}

    commands.begin()
    await stores.queues.append(channel, events(2, 3, 4))
    assert commands.all() == {"hmget": 1, "xadd": 3, "hset": 1, "publish": 1}


async def test_append_to_an_unowned_channel_publishes_nothing(stores: Stores, commands: Commands) -> None:
    channel = await stores.channel()
    await stores.queued(channel, 1)

    commands.begin()
    await stores.queues.append(channel, events(1))

    assert commands.all() == {"hmget": 1, "xadd": 1, "hset": 1}


async def test_append_to_an_owned_webhook_runs_four_commands(stores: Stores, commands: Commands) -> None:
    key, _ = await stores.api_key()
    callback = Callback("https://example.com/hook", {})
    await stores.channels.put_webhook(stores.account_id, key.id, callback, serialization=b"")
    await stores.leases.claim_unheld(key.id, owner=OWNER)
    await stores.queued(key.id, 1)
    await stores.wakeups.flush()

    commands.begin()
    await stores.queues.append(key.id, events(1))

    assert commands.all() == {"hmget": 1, "xadd": 1, "hset": 1, "publish": 1}


async def test_append_without_a_channel_runs_one_command(stores: Stores, commands: Commands) -> None:
    key, _ = await stores.api_key()
    await stores.queues.append(key.id, events(1))

    commands.begin()
    await stores.queues.append(key.id, events(1))

    assert commands.all() == {"hmget": 1}


async def test_ack_runs_two_commands(stores: Stores, commands: Commands) -> None:
    channel = await stores.channel()
    await warmed_up(stores, channel)
    lease = await stores.claim(channel, OWNER)
    [entry] = await stores.queued(channel, 1)

    commands.begin()
    assert await stores.queues.ack_until(lease, until=entry) == 1

    assert commands.all() == {"hmget": 1, "xtrim": 1}


async def test_read_runs_three_commands_and_one_at_the_tail(stores: Stores, commands: Commands) -> None:
    channel = await stores.channel()
    await warmed_up(stores, channel)
    lease = await stores.claim(channel, OWNER)
    [entry] = await stores.queued(channel, 1)

    commands.begin()
    assert ids(await stores.pending(lease)) == ["0"]
    assert commands.all() == {"hmget": 1, "time": 1, "xrange": 1}

    commands.begin()
    assert await stores.pending(lease, after=entry) == []
    assert commands.all() == {"hmget": 1}


async def test_queue_is_read_again_only_when_the_bound_is_passed(stores: Stores, commands: Commands) -> None:
    """Acks leave the bound as it is, so it passes the limit once for as many bytes as the limit allows."""
    channel = await stores.channel()
    await warmed_up(stores, channel)
    lease = await stores.claim(channel, OWNER)
    queues = AppendingQueues(stores.calls, limits=QueueLimits(size_bytes=10 * 328))

    commands.begin()
    for number in range(100):
        await queues.append(channel, events(number, size_bytes=100))
        await queues.ack_until(lease, until=stores.entries(channel)[-1])

    # The test itself reads the entries once for each ack.
    assert commands.all()["xrange"] - 100 in range(8, 13)
    assert commands.all()["xlen"] == 0, "nothing was dropped"


async def test_idle_queue_is_not_read_for_what_is_too_old(stores: Stores, commands: Commands) -> None:
    channel = await stores.channel()
    await warmed_up(stores, channel)
    lease = await stores.claim(channel, OWNER)
    later = AppendingQueues(at_time(stores, 10**14))
    await later.read(lease, after=BEGINNING, count=10, size_bytes=1000)
    tail = stores.tail(channel)

    commands.begin()
    await later.read(lease, after=tail, count=10, size_bytes=1000)

    assert commands.all() == {"hmget": 1}


def test_every_script_says_what_it_touches_at_most() -> None:
    sources = {name: script.source for name, script in load_scripts().items()}

    without = [name for name in sources if not re.search(r"^-- Touches at most: .+\.$", sources[name], re.M)]

    assert without == []
