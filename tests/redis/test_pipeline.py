"""Commands of one turn travel as one pipeline, in order; a wrong command fails alone."""

import asyncio
from collections.abc import Sequence

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from shared import telemetry
from shared.model.errors import StoreUnavailable
from shared.redis.client import connect
from shared.redis.connection import Command, OnReplies
from shared.redis.pipeline import Pipeline
from shared.store import keyspace
from shared.store.commands import HOOKS
from shared.store.queues import BEGINNING, Appended
from shared.store.scripts import load_scripts
from tests.harness.valkey import Valkey
from tests.harness.waiting import wait_until
from tests.store.stores import Backend, Stores, events

A_ROUND_TRIP = ("PING",)


class Pipelines:
    """Counts the pipelines that are sent to Redis."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        send = Pipeline.send

        def count(pipeline: Pipeline, commands: Sequence[Command], on_replies: OnReplies) -> None:
            self.count += 1
            send(pipeline, commands, on_replies)

        monkeypatch.setattr(Pipeline, "send", count)


@pytest.fixture
def pipeline(redis: Redis, backend: Backend) -> Pipeline:
    return Pipeline(redis, scripts=backend.scripts, hooks=HOOKS)


@pytest.fixture
def pipelines(monkeypatch: pytest.MonkeyPatch) -> Pipelines:
    return Pipelines(monkeypatch)


async def a_turn() -> None:
    """Every task that is ready runs once."""
    await asyncio.sleep(0)


async def test_commands_of_one_turn_share_one_pipeline(pipeline: Pipeline, pipelines: Pipelines) -> None:
    replies = await asyncio.gather(*(pipeline.command("ECHO", str(n)) for n in range(100)))

    assert replies == [str(n).encode() for n in range(100)], "each caller has its own reply"
    assert pipelines.count == 1


async def test_a_single_command_does_not_wait_for_others(pipeline: Pipeline, pipelines: Pipelines) -> None:
    for _ in range(3):
        await pipeline.command("PING")

    assert pipelines.count == 3


async def test_commands_are_executed_in_the_order_in_which_they_were_queued(pipeline: Pipeline) -> None:
    await asyncio.gather(*(pipeline.command("RPUSH", "line", n) for n in range(2500)))

    assert await pipeline.command("LRANGE", "line", 0, -1) == [str(n).encode() for n in range(2500)]


async def test_commands_queued_while_a_pipeline_is_under_way_share_the_next(
    pipeline: Pipeline, pipelines: Pipelines, backend: Backend
) -> None:
    first = pipeline.command("BLPOP", "gate", 0)
    await wait_until(lambda: pipelines.count == 1)
    later = [pipeline.command("RPUSH", "line", n) for n in range(10)]
    await a_turn()
    assert pipelines.count == 1

    backend.direct.rpush("gate", "open")
    await asyncio.gather(first, *later)

    assert pipelines.count == 2
    assert backend.direct.lrange("line", 0, -1) == [str(n).encode() for n in range(10)]


async def test_a_command_cancelled_before_its_turn_is_never_sent(
    pipeline: Pipeline, backend: Backend
) -> None:
    cancelled, kept = pipeline.command("SET", "a", "1"), pipeline.command("SET", "b", "1")
    cancelled.cancel()
    await kept

    assert cancelled.cancelled()
    assert (backend.direct.get("a"), backend.direct.get("b")) == (None, b"1")


async def test_a_command_cancelled_behind_a_busy_pipeline_is_never_sent(
    pipeline: Pipeline, pipelines: Pipelines, backend: Backend
) -> None:
    first = pipeline.command("BLPOP", "gate", 0)
    await wait_until(lambda: pipelines.count == 1)
    cancelled = pipeline.command("SET", "a", "1")
    await a_turn()
    cancelled.cancel()

    backend.direct.rpush("gate", "open")
    await first
    await pipeline.command(*A_ROUND_TRIP)

    assert backend.direct.get("a") is None


async def test_a_command_cancelled_under_way_leaves_the_others_intact(
    pipeline: Pipeline, pipelines: Pipelines, backend: Backend
) -> None:
    blocked = pipeline.command("BLPOP", "gate", 0)
    beside = pipeline.command("ECHO", "beside")
    await wait_until(lambda: pipelines.count == 1)
    blocked.cancel()
    await a_turn()

    backend.direct.rpush("gate", "open")

    assert await beside == b"beside"
    assert await pipeline.command("ECHO", "after") == b"after"


async def test_a_server_that_lost_the_scripts_gets_them_again(pipeline: Pipeline, backend: Backend) -> None:
    names = ["{replicas}:heartbeat:a", keyspace.LAST_SEEN]
    await pipeline.script("heartbeat", names, "a", 60_000)

    backend.direct.script_flush()

    backend.direct.delete(*names)
    assert await pipeline.script("heartbeat", names, "a", 60_000) == 1
    assert backend.direct.zscore(keyspace.LAST_SEEN, "a")


async def test_scripts_that_the_server_lost_run_in_order_and_once(stores: Stores, backend: Backend) -> None:
    channel = await stores.channel()
    lease = await stores.claim(channel)

    backend.direct.script_flush()
    outcomes = await asyncio.gather(*(stores.queues.append(channel, events(n)) for n in range(50)))

    assert set(outcomes) == {Appended.QUEUED}
    assert [pending.event_id for pending in await stores.pending(lease)] == [str(n) for n in range(50)]


async def test_a_known_script_is_sent_as_its_hash(
    pipeline: Pipeline, pipelines: Pipelines, backend: Backend
) -> None:
    names = ["{replicas}:heartbeat:a", keyspace.LAST_SEEN]
    await pipeline.script("heartbeat", names, "a", 60_000)
    before = pipelines.count

    await pipeline.script("heartbeat", names, "a", 60_000)

    assert pipelines.count == before + 1
    assert backend.direct.script_exists(backend.scripts["heartbeat"].sha) == [True]


@pytest.mark.parametrize("wrong", [("NONSENSE", "a"), ("HGET", "text", "field"), ("SET", "a")])
async def test_a_wrong_command_raises_its_own_error_to_its_caller_only(
    pipeline: Pipeline, wrong: tuple[str, ...]
) -> None:
    await pipeline.command("SET", "text", "1")

    sent = [("ECHO", "1"), wrong, ("ECHO", "2")]
    before, error, after = await asyncio.gather(
        *(pipeline.command(*arguments) for arguments in sent), return_exceptions=True
    )

    assert (before, after) == (b"1", b"2")
    assert isinstance(error, ResponseError)
    assert not isinstance(error, StoreUnavailable)


async def test_an_unreachable_redis_fails_every_command() -> None:
    async with Redis(unix_socket_path="/nonexistent/valkey.sock") as client:
        pipeline = Pipeline(client, scripts=load_scripts(), hooks=HOOKS)

        errors = await asyncio.gather(
            *(pipeline.command("PING") for _ in range(3)),
            pipeline.script("heartbeat", ["{replicas}:a", "{replicas}:b"], "a", 1, 1),
            return_exceptions=True,
        )

        assert [type(error) for error in errors] == [HOOKS.unavailable] * 4
        with pytest.raises(StoreUnavailable):
            await pipeline.command("PING")


async def test_a_broken_connection_fails_every_command_and_is_then_reopened(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with backend.connect() as redis:
        pipeline = Pipeline(redis, scripts=backend.scripts, hooks=HOOKS)
        pipelines = Pipelines(monkeypatch)
        waiting = [pipeline.command("BLPOP", "gate", 0)]
        waiting.append(pipeline.command("SET", "a", "1"))
        await wait_until(lambda: backend.direct.info("clients")["blocked_clients"] == 1)
        behind = pipeline.command("ECHO", "behind")
        await a_turn()
        assert pipelines.count == 1

        backend.direct.client_kill_filter(_type="normal")

        errors = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(error) for error in errors] == [HOOKS.unavailable] * 2
        with pytest.raises(StoreUnavailable):
            await behind
        assert await pipeline.command("ECHO", "after") == b"after", "over a new connection"


async def test_a_full_redis_refuses_appends_and_nothing_that_frees_memory(valkey: Valkey) -> None:
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
            assert await stores.calls.script("heartbeat", names, "a", 60_000) == 1
            names.append(keyspace.STOPPED)
            assert await stores.calls.script("heartbeat_stop", names, "a") == 1
            assert await stores.leases.release(lease) is True
            assert await stores.delete_channel(channel) is True
            key = await stores.api_keys.find(other)
            assert key is not None
            assert await stores.api_keys.revoke(key) is True


def test_every_script_declares_its_flags_and_has_its_own_hash() -> None:
    scripts = load_scripts()

    assert all(script.source.startswith("#!lua") for script in scripts.values())
    assert len({script.sha for script in scripts.values()}) == len(scripts)
    # A full Redis is no outage: it may refuse only scripts that store more.
    refused = {
        name for name, script in scripts.items() if "allow-oom" not in script.source.partition("\n")[0]
    }
    assert refused == {
        *("queue_append", "channel_create", "idempotency_begin", "routing_set", "routing_add_line"),
        *("session_append", "session_push", "device_types_learn", "receipt_open"),
        *("account_adopt", "account_rename", "routing_enter", "routing_native"),
        *("channel_make", "channel_change", "channel_name_take", "secret_add", "token_key_add"),
        "ticket_make",
        *("certificate_put", "stream_append", "webhook_change", "replay_begin", "replay_place"),
    }


def redis_up() -> int:
    return int(telemetry.is_redis_up())


async def test_the_metric_is_0_while_one_of_several_pipelines_gets_no_reply(
    valkey: Valkey,
) -> None:
    # What other tests have left may still exist.
    telemetry.lost_redis.clear()
    telemetry.awaited_redis.clear()
    async with Redis(unix_socket_path="/nonexistent/valkey.sock") as client, connect(valkey.url) as redis:
        dead = Pipeline(client, scripts={}, hooks=HOOKS)
        living = Pipeline(redis, scripts={}, hooks=HOOKS)
        await living.command("PING")
        assert redis_up() == 1

        with pytest.raises(StoreUnavailable):
            await dead.command("PING")
        await living.command("PING")
        assert redis_up() == 0

        dead._connection = living._connection
        await dead.command("PING")
        assert redis_up() == 1
