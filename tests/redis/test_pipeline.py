"""Pipeline of one turn share a pipeline in order; what fails says whose fault it was."""

import asyncio
from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

import pytest
from opentelemetry.metrics import CallbackOptions
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from shared import telemetry
from shared.model.errors import StoreUnavailable
from shared.redis.client import connect
from shared.redis.connection import Call, Then
from shared.redis.pipeline import Pipeline
from shared.store import keyspace
from shared.store.commands import HOOKS
from shared.store.queues import BEGINNING, Appended
from shared.store.scripts import load_scripts
from tests.harness.valkey import Valkey
from tests.harness.waiting import wait_until
from tests.store.stores import NOW_MS, Backend, Stores, events

A_ROUND_TRIP = ("PING",)


class Pipelines:
    """Counts what is sent to Redis, and passes it on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        begin = Pipeline.begin

        def counted(calls: Pipeline, sent: Sequence[Call], then: Then) -> None:
            self.count += 1
            begin(calls, sent, then)

        monkeypatch.setattr(Pipeline, "begin", counted)


@pytest.fixture
def calls(redis: Redis, backend: Backend) -> Pipeline:
    return Pipeline(redis, scripts=backend.scripts, hooks=HOOKS)


@pytest.fixture
def pipelines(monkeypatch: pytest.MonkeyPatch) -> Pipelines:
    return Pipelines(monkeypatch)


async def a_turn() -> None:
    """Everything that is ready to run runs once."""
    await asyncio.sleep(0)


async def test_calls_of_one_turn_share_one_pipeline(calls: Pipeline, pipelines: Pipelines) -> None:
    answers = await asyncio.gather(*(calls.command("ECHO", str(n)) for n in range(100)))

    assert answers == [str(n).encode() for n in range(100)], "each caller has its own answer"
    assert pipelines.count == 1


async def test_calls_one_after_the_other_do_not_wait_for_company(
    calls: Pipeline, pipelines: Pipelines
) -> None:
    for _ in range(3):
        await calls.command("PING")

    assert pipelines.count == 3


async def test_calls_are_carried_out_in_the_order_in_which_they_were_made(calls: Pipeline) -> None:
    await asyncio.gather(*(calls.command("RPUSH", "line", n) for n in range(2500)))

    assert await calls.command("LRANGE", "line", 0, -1) == [str(n).encode() for n in range(2500)]


async def test_what_comes_while_a_pipeline_is_under_way_goes_with_the_next(
    calls: Pipeline, pipelines: Pipelines, backend: Backend
) -> None:
    first = calls.command("BLPOP", "gate", 0)
    await wait_until(lambda: pipelines.count == 1)
    later = [calls.command("RPUSH", "line", n) for n in range(10)]
    await a_turn()
    assert pipelines.count == 1

    backend.direct.rpush("gate", "open")
    await asyncio.gather(first, *later)

    assert pipelines.count == 2
    assert backend.direct.lrange("line", 0, -1) == [str(n).encode() for n in range(10)]


async def test_a_call_that_was_cancelled_before_its_turn_never_happens(
    calls: Pipeline, backend: Backend
) -> None:
    cancelled, kept = calls.command("SET", "a", "1"), calls.command("SET", "b", "1")
    cancelled.cancel()
    await kept

    assert cancelled.cancelled()
    assert (backend.direct.get("a"), backend.direct.get("b")) == (None, b"1")


async def test_a_call_that_was_cancelled_behind_a_busy_pipeline_never_happens(
    calls: Pipeline, pipelines: Pipelines, backend: Backend
) -> None:
    first = calls.command("BLPOP", "gate", 0)
    await wait_until(lambda: pipelines.count == 1)
    cancelled = calls.command("SET", "a", "1")
    await a_turn()
    cancelled.cancel()

    backend.direct.rpush("gate", "open")
    await first
    await calls.command(*A_ROUND_TRIP)

    assert backend.direct.get("a") is None


async def test_a_call_that_was_cancelled_under_way_hurts_nobody_else(
    calls: Pipeline, pipelines: Pipelines, backend: Backend
) -> None:
    blocked = calls.command("BLPOP", "gate", 0)
    beside = calls.command("ECHO", "beside")
    await wait_until(lambda: pipelines.count == 1)
    blocked.cancel()
    await a_turn()

    backend.direct.rpush("gate", "open")

    assert await beside == b"beside"
    assert await calls.command("ECHO", "after") == b"after"


async def test_a_server_that_forgot_the_scripts_is_told_them(calls: Pipeline, backend: Backend) -> None:
    names = ["{replicas}:heartbeat:a", keyspace.LAST_SEEN]
    await calls.script("heartbeat", names, "a", 60_000, NOW_MS)

    backend.direct.script_flush()

    assert await calls.script("heartbeat", names, "a", 60_000, NOW_MS + 1) == 1
    assert backend.direct.zscore(keyspace.LAST_SEEN, "a") == NOW_MS + 1


async def test_forgotten_scripts_keep_their_order_and_happen_once(stores: Stores, backend: Backend) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)

    backend.direct.script_flush()
    outcomes = await asyncio.gather(*(stores.queues.append(channel, events(n)) for n in range(50)))

    assert set(outcomes) == {Appended.QUEUED}
    assert [pending.event_id for pending in await stores.pending(lease)] == [str(n) for n in range(50)]


async def test_a_script_that_is_known_travels_as_its_hash(
    calls: Pipeline, pipelines: Pipelines, backend: Backend
) -> None:
    names = ["{replicas}:heartbeat:a", keyspace.LAST_SEEN]
    await calls.script("heartbeat", names, "a", 60_000, NOW_MS)
    before = pipelines.count

    await calls.script("heartbeat", names, "a", 60_000, NOW_MS)

    assert pipelines.count == before + 1
    assert backend.direct.script_exists(backend.scripts["heartbeat"].sha) == [True]


@pytest.mark.parametrize("mistake", [("NONSENSE", "a"), ("HGET", "text", "field"), ("SET", "a")])
async def test_a_mistake_of_ours_is_raised_as_such_and_to_its_maker_only(
    calls: Pipeline, mistake: tuple[str, ...]
) -> None:
    await calls.command("SET", "text", "1")

    asked = [("ECHO", "1"), mistake, ("ECHO", "2")]
    answers: list[Any] = await asyncio.gather(
        *(calls.command(*arguments) for arguments in asked), return_exceptions=True
    )

    before, wrong, after = answers
    assert (before, after) == (b"1", b"2")
    assert isinstance(wrong, ResponseError)
    assert not isinstance(wrong, StoreUnavailable)


async def test_a_redis_that_cannot_be_reached_fails_all_who_wait() -> None:
    async with Redis(unix_socket_path="/nonexistent/valkey.sock") as nobody:
        calls = Pipeline(nobody, scripts=load_scripts(), hooks=HOOKS)

        faults = await asyncio.gather(
            *(calls.command("PING") for _ in range(3)),
            calls.script("heartbeat", ["{replicas}:a", "{replicas}:b"], "a", 1, 1),
            return_exceptions=True,
        )

        assert [type(fault) for fault in faults] == [HOOKS.unavailable] * 4
        with pytest.raises(StoreUnavailable):
            await calls.command("PING")


async def test_a_connection_that_breaks_under_way_fails_all_who_wait_and_then_heals(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with backend.connect() as redis:
        calls = Pipeline(redis, scripts=backend.scripts, hooks=HOOKS)
        pipelines = Pipelines(monkeypatch)
        waiting = [calls.command("BLPOP", "gate", 0)]
        waiting.append(calls.command("SET", "a", "1"))
        await wait_until(lambda: backend.direct.info("clients")["blocked_clients"] == 1)
        behind = calls.command("ECHO", "behind")
        await a_turn()
        assert pipelines.count == 1

        backend.direct.client_kill_filter(_type="normal")

        faults = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(fault) for fault in faults] == [HOOKS.unavailable] * 2
        with pytest.raises(StoreUnavailable):
            await behind
        assert await calls.command("ECHO", "after") == b"after", "the next goes over a new connection"


async def test_a_full_redis_refuses_the_append_and_nothing_that_makes_room(valkey: Valkey) -> None:
    with valkey.client() as direct:
        async with Redis(unix_socket_path=str(valkey.url).removeprefix("unix://")) as redis:
            backend = Backend(connect=lambda: redis, direct=direct, scripts=load_scripts())
            stores = Stores(redis, backend)
            channel, other = await stores.channel(), await stores.channel()
            entries = await stores.queued(channel, 3)
            direct.config_set("maxmemory", 1)

            with pytest.raises(StoreUnavailable):
                await stores.queues.append(channel, events(3))
            with pytest.raises(StoreUnavailable):
                await stores.calls.command("SET", "a", "1")
            lease = await stores.claim(channel)
            assert len(await stores.pending(lease, BEGINNING)) == 3
            assert await stores.queues.ack_until(lease, until=entries[1]) == 2
            assert await stores.queues.refuse(lease, frame_limit_bytes=1024, until="1-0", single_entry="")
            names = [keyspace.heartbeat("a"), keyspace.LAST_SEEN]
            assert await stores.calls.script("heartbeat", names, "a", 60_000, NOW_MS) == 1
            assert await stores.calls.script("heartbeat_stop", names, "a") == 1
            assert await stores.leases.release(lease, now_ms=NOW_MS) is True
            assert await stores.delete_channel(channel) is True
            key = await stores.api_keys.find(other)
            assert key is not None
            assert await stores.api_keys.revoke(key) is True


def test_every_script_tells_what_it_may_do_and_has_a_hash_of_its_own() -> None:
    scripts = load_scripts()

    assert all(script.source.startswith("#!lua") for script in scripts.values())
    assert len({script.sha for script in scripts.values()}) == len(scripts)
    # Redis full is no outage: only what puts more into it may be refused.
    refused = {
        name for name, script in scripts.items() if "allow-oom" not in script.source.partition("\n")[0]
    }
    assert refused == {
        *("queue_append", "channel_create", "idempotency_begin", "routing_set", "routing_add_line"),
        *("session_append", "session_push"),
    }


def says_up() -> int:
    [seen] = telemetry._redis_up(CallbackOptions())
    return int(seen.value)


async def test_one_of_several_that_does_not_answer_is_told_until_it_does(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pipeline of other tests may be around.
    monkeypatch.setattr(telemetry._Redis, "lost", WeakSet())
    async with Redis(unix_socket_path="/nonexistent/valkey.sock") as nobody, connect(valkey.url) as redis:
        dead = Pipeline(nobody, scripts={}, hooks=HOOKS)
        living = Pipeline(redis, scripts={}, hooks=HOOKS)
        await living.command("PING")
        assert says_up() == 1

        with pytest.raises(StoreUnavailable):
            await dead.command("PING")
        await living.command("PING")
        assert says_up() == 0

        dead._way = living._way
        await dead.command("PING")
        assert says_up() == 1
