"""The reaper as a process: what it costs while nothing is due, killed in a round, and beside another one."""

import threading
import time
from typing import Any

import aiohttp
import pytest

from shared.model.api_keys import new_id
from shared.store import keyspace
from tests.conftest import Measured, Start
from tests.faults.test_expiry import gone
from tests.harness.api import Api
from tests.harness.blackhole import Blackhole
from tests.harness.waiting import wait_until

DAY_MS = 24 * 3600 * 1000


def now_ms(direct: Any) -> int:
    seconds, microseconds = direct.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


def commands_run(direct: Any) -> int:
    """All that this Redis has executed, with what scripts call."""
    return int(sum(each["calls"] for each in direct.info("commandstats").values()))


def plant_channels(direct: Any, *, count: int, of_100k: bool, pull: int = 0) -> list[str]:
    """Channels of a live edge, as a gateway and an edge leave them; the last `pull` of them are long polls.

    Their due times are spread as those of 100,000 idle channels are, of which the first `count` come up.
    """
    now, instance = now_ms(direct), "edge-9/b00t0000"
    direct.set(keyspace.heartbeat(instance), "1", px=600_000)
    direct.zadd(keyspace.LAST_SEEN, {instance: now})
    ids = [new_id() for _ in range(count)]
    account = new_id()
    for n, channel in enumerate(ids):
        is_pull = n >= count - pull
        period_ms = 600_000 if is_pull else DAY_MS
        share = 10_000 if is_pull else 90_000 if pull else 100_000
        place = n - (count - pull) if is_pull else n
        direct.hset(keyspace.api_key(channel), mapping={"account_id": account})
        kind = "pull" if is_pull else "websocket"
        record = {"kind": kind, "generation": "1", "created_at_ms": now, "owner": f"{instance}/{n + 1}"}
        direct.hset(keyspace.channel(channel), mapping=record)
        due_ms = now + (place * period_ms / share if of_100k else DAY_MS)
        direct.zadd(keyspace.due(channel), {channel: due_ms})
    # The reconciliation has its own rate, and a test of its own.
    lifetimes = {"expiry:websocket": DAY_MS, "expiry:pull": 600_000, "expiry:webhook": 0, "lifetime": DAY_MS}
    direct.hset(keyspace.REAPER_NOTES, mapping={"walk_began_ms": now, **lifetimes})
    return ids


@pytest.mark.long
@pytest.mark.parametrize(
    ("pull", "mix"), [(0, "idle WebSocket channels"), (600, "channels, a tenth of them polled all the time")]
)
async def test_a_hundred_thousand_idle_channels_cost_less_than_50_commands_a_second(
    start: Start, record_property: Measured, pull: int, mix: str
) -> None:
    """With the default settings. Only those are there that become due meanwhile, and some that do not."""
    stack = start(gateways=0, edges=0, reapers=0)
    with stack.valkey.client() as direct:
        channels = plant_channels(direct, count=300 + pull, of_100k=True, pull=pull)
        reapers = [stack.new_reaper(f"reaper-{n}") for n in range(2)]
        try:
            for reaper in reapers:
                reaper.start()
            for reaper in reapers:
                reaper.wait_ready()
            await wait_until(lambda: direct.hget(keyspace.REAPER_ROUND, "ended_ms"))
            before, began_s = commands_run(direct), time.monotonic()
            due_ms = scores(direct)
            await wait_until(lambda: time.monotonic() - began_s > 16, within_s=60)
            a_second = (commands_run(direct) - before) / (time.monotonic() - began_s)
            visited = sum(scores(direct)[each] != due_ms[each] for each in channels)
        finally:
            for reaper in reapers:
                reaper.close()

    record_property(f"Redis commands a second for 100,000 {mix}, two reapers", round(a_second, 1))
    assert visited >= 10, "channels came up and were visited"
    assert a_second < 50


def scores(direct: Any) -> dict[str, float]:
    return {
        member.decode(): score
        for name in keyspace.DUE
        for member, score in direct.zrange(name, 0, -1, withscores=True)
    }


def make_due(direct: Any, channels: list[str]) -> None:
    """In few steps: a round visits 2,000 a second, and must not keep up with them on a busy machine."""
    due: dict[str, dict[str, int]] = {}
    for channel in channels:
        due.setdefault(keyspace.due(channel), {})[channel] = 0
    for key, members in due.items():
        direct.zadd(key, members)


@pytest.mark.long
async def test_a_killed_reaper_delays_expiry_by_seconds(start: Start, http: aiohttp.ClientSession) -> None:
    """It dies in the middle of a round. Another one goes on when the round's lock has run out."""
    stack = start(edges=0, reapers=1, WEBSOCKET_EXPIRY_S=1)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    with stack.valkey.client() as direct:
        make_due(direct, plant_channels(direct, count=6000, of_100k=False))

        def is_in_a_round() -> bool:
            until_ms = int(direct.hget(keyspace.REAPER_ROUND, "until_ms") or 0)
            left = sum(score <= 0 for score in scores(direct).values())
            # Half a second of work at least: the reaper must not end its round before it is killed.
            return until_ms > now_ms(direct) and left > 1000

        await wait_until(is_in_a_round)
        stack.reapers[0].kill()
        assert int(direct.hget(keyspace.REAPER_ROUND, "until_ms")) > 0, "its round never ended"
    key = await api.api_key()
    await api.register(key)
    other = stack.new_reaper("other")
    try:
        other.start()
        began_s = time.monotonic()
        await wait_until(gone(api, key), within_s=60)
        assert time.monotonic() - began_s < 40
    finally:
        other.close()


@pytest.mark.long
async def test_rounds_of_two_reapers_never_overlap(start: Start) -> None:
    """Each round takes longer than the interval of a second. Redis shows each beginning and each end."""
    stack = start(gateways=0, edges=0, WEBSOCKET_EXPIRY_S=100)
    reapers = [stack.new_reaper(f"reaper-{n}") for n in range(2)]
    steps: list[str] = []

    def watch(monitor: Any) -> None:
        for each in monitor.listen():
            if each["client_type"] == "lua" and each["command"].startswith(f"HSET {keyspace.REAPER_ROUND} "):
                steps.append(each["command"].split()[2])
            if each["command"] == "ECHO enough":
                return

    with stack.valkey.client() as direct, direct.monitor() as monitor:
        channels = plant_channels(direct, count=3000, of_100k=False)
        make_due(direct, channels)
        watching = threading.Thread(target=watch, args=[monitor])
        watching.start()
        try:
            for reaper in reapers:
                reaper.start()

            def has_run_rounds() -> bool:
                if min(scores(direct).values()) > 0:
                    make_due(direct, channels)
                return steps.count("ended_ms") >= 5

            await wait_until(has_run_rounds, within_s=90)
        finally:
            for reaper in reapers:
                reaper.close()
            direct.echo("enough")
            watching.join()

    # Renewals of the lock write `until_ms`.
    in_order = [step for step in steps if step != "until_ms"]
    assert in_order[:10] == ["token", "ended_ms"] * 5


async def test_sessions_of_a_killed_edge_go_within_seconds(
    start: Start, http: aiohttp.ClientSession, record_property: Measured
) -> None:
    stack = start(edges=1, reapers=1, HEARTBEAT_S=0.5, HEARTBEAT_TTL_S=2)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    clients = []
    for _ in range(20):
        client = await Blackhole.open(http, stack.edges[0].url + "/socket")
        await client.ask("ping", token=key.secret)
        await client.subscribe("call.CHANNEL_CREATE.*")
        clients.append(client)
    with stack.valkey.client() as direct:
        assert len(direct.keys("*:session")) == 20
        # Not by the reconciliation.
        await wait_until(lambda: direct.hget(keyspace.REAPER_NOTES, "walk_runs") == b"0")
        stack.edges[0].kill()
        await wait_until(lambda: not direct.keys("*heartbeat*"))
        lost_s = time.monotonic()

        await wait_until(lambda: not direct.keys("*:session"), within_s=60)

        took_s = time.monotonic() - lost_s
        record_property("from a lost heartbeat until its sessions are gone, s", round(took_s, 1))
        assert took_s < 30
        assert direct.keys("*:held-sessions") == direct.keys("*:sessions") == []
    assert await api.publish(key, {"topic": "call.CHANNEL_CREATE.1", "data": {}}) == [0]
    for client in clients:
        await client.close()
