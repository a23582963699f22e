"""Our own connection to Redis: introduced as redis-py would, answered in order, never out of step."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.runtime.connections import connect
from shared.store.line import Command, Line
from tests.harness.valkey import Valkey
from tests.harness.waiting import wait_until


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[Redis]:
    path = valkey.url.removeprefix("unix://")
    async with Redis(unix_socket_path=path, socket_timeout=0.5) as client:
        yield client


def line_to(redis: Redis) -> Line:
    line = Line.to(redis)
    assert line is not None
    return line


async def test_each_command_has_its_own_answer_or_error(redis: Redis) -> None:
    commands: list[Command] = [("SET", "a", "1"), ("HGET", "a", "b"), ("GET", b"a"), ("INCR", "a")]
    answers = await line_to(redis).exchange(commands)

    assert (answers[0], answers[2], answers[3]) == (b"OK", b"1", 2)
    assert isinstance(answers[1], ResponseError)


async def test_large_answers_come_whole(redis: Redis) -> None:
    large = b"x" * 3_000_000
    line = line_to(redis)

    assert await line.exchange([("SET", "large", large)]) == [b"OK"]
    assert await line.exchange([("GET", "large"), ("STRLEN", "large")] * 3) == [large, len(large)] * 3


async def test_a_number_and_bytes_are_sent_as_they_are_written(redis: Redis) -> None:
    given = (7, 1.5, b"\x00\xff", "ü")

    answers = await line_to(redis).exchange([("ECHO", one) for one in given])

    assert answers == [b"7", b"1.5", b"\x00\xff", "ü".encode()]


async def test_it_says_who_it_is_and_which_database_it_wants(valkey: Valkey) -> None:
    with valkey.client() as direct:
        direct.acl_setuser("us", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all"])
        path = valkey.url.removeprefix("unix://")
        async with Redis(unix_socket_path=path, username="us", password="secret", db=3) as client:
            line = line_to(client)
            assert await line.exchange([("ACL", "WHOAMI"), ("SET", "a", "1")]) == [b"us", b"OK"]
        assert direct.get("a") is None
        async with Redis(unix_socket_path=path, username="us", password="wrong") as client:
            with pytest.raises(AuthenticationError):
                await line_to(client).exchange([("PING",)])


async def test_a_cancelled_exchange_leaves_no_answers_for_the_next(valkey: Valkey, redis: Redis) -> None:
    line = line_to(redis)
    await line.exchange([("PING",)])
    waiting = asyncio.create_task(line.exchange([("BLPOP", "gate", 0), ("ECHO", "old")]))
    with valkey.client() as direct:
        await wait_until(lambda: direct.info("clients")["blocked_clients"] == 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        direct.rpush("gate", "open")

    assert await line.exchange([("ECHO", "new")]) == [b"new"]


async def test_after_a_time_out_it_connects_again(valkey: Valkey, redis: Redis) -> None:
    line = line_to(redis)
    await line.exchange([("PING",)])
    valkey.freeze()
    with pytest.raises(RedisTimeoutError):
        await line.exchange([("ECHO", "old")])
    valkey.thaw()

    assert await line.exchange([("ECHO", "new")]) == [b"new"]


async def test_a_server_that_goes_is_told_at_once_and_found_again(valkey: Valkey, redis: Redis) -> None:
    line = line_to(redis)
    waiting = asyncio.create_task(line.exchange([("BLPOP", "gate", 0)]))
    with valkey.client() as direct:
        await wait_until(lambda: direct.info("clients")["blocked_clients"] == 1)
    valkey.kill()
    with pytest.raises(RedisConnectionError):
        await waiting
    with pytest.raises(RedisConnectionError):
        await line.exchange([("PING",)])
    valkey.start()
    valkey.wait_ready()

    assert await line.exchange([("PING",)]) == [b"PONG"]


async def test_who_may_only_read_any_more_is_left(valkey: Valkey, redis: Redis) -> None:
    """It was the primary once; another connection may lead to who is that now."""
    line = line_to(redis)
    [before] = await line.exchange([("CLIENT", "ID")])
    with valkey.client() as direct:
        direct.replicaof("127.0.0.1", 1)
        refused = await line.exchange([("SET", "a", "1"), ("ECHO", "answered all the same")])
        direct.replicaof("NO", "ONE")

    assert isinstance(refused[0], ReadOnlyError)
    assert refused[1] == b"answered all the same"
    assert (await line.exchange([("CLIENT", "ID")])) != [before]
    assert await line.exchange([("SET", "a", "1")]) == [b"OK"]


async def test_over_tcp_it_is_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = Valkey(tmp_path_factory.mktemp("tcp"), tcp=True)
    try:
        server.start()
        server.wait_ready()
        async with connect(server.url) as client:
            assert await line_to(client).exchange([("ECHO", "1")]) == [b"1"]
    finally:
        server.close()
