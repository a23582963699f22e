"""Our own connection to Redis: introduced as redis-py would, answered in order, never out of step."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.redis.client import connect
from shared.redis.connection import Call, Command, Line, connection_to
from tests.harness.valkey import Valkey
from tests.harness.waiting import wait_until


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[Redis]:
    path = valkey.url.removeprefix("unix://")
    async with Redis(unix_socket_path=path, socket_timeout=0.5) as client:
        yield client


def line_to(redis: Redis) -> Line:
    line = connection_to(redis)
    assert isinstance(line, Line)
    return line


def begun(line: Line, *commands: Command) -> asyncio.Queue[list[Any] | Exception]:
    """Sends them; whatever is told of them is put there."""
    told: asyncio.Queue[list[Any] | Exception] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    line.begin([Call(c, loop.create_future()) for c in commands], told.put_nowait)
    return told


async def exchange(line: Line, *commands: Command) -> list[Any]:
    """The answers; raises what went wrong."""
    answers = await begun(line, *commands).get()
    if isinstance(answers, Exception):
        raise answers
    return answers


async def test_each_command_has_its_own_answer_or_error(redis: Redis) -> None:
    commands: list[Command] = [("SET", "a", "1"), ("HGET", "a", "b"), ("GET", b"a"), ("INCR", "a")]
    answers = await exchange(line_to(redis), *commands)

    assert (answers[0], answers[2], answers[3]) == (b"OK", b"1", 2)
    assert isinstance(answers[1], ResponseError)


async def test_large_answers_come_whole(redis: Redis) -> None:
    large = b"x" * 3_000_000
    line = line_to(redis)

    assert await exchange(line, ("SET", "large", large)) == [b"OK"]
    assert await exchange(line, *[("GET", "large"), ("STRLEN", "large")] * 3) == [large, len(large)] * 3


async def test_a_number_and_bytes_are_sent_as_they_are_written(redis: Redis) -> None:
    given = (7, 1.5, b"\x00\xff", "ü")

    answers = await exchange(line_to(redis), *[("ECHO", one) for one in given])

    assert answers == [b"7", b"1.5", b"\x00\xff", "ü".encode()]


async def test_it_says_who_it_is_and_which_database_it_wants(valkey: Valkey) -> None:
    with valkey.client() as direct:
        direct.acl_setuser("us", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all"])
        path = valkey.url.removeprefix("unix://")
        async with Redis(unix_socket_path=path, username="us", password="secret", db=3) as client:
            line = line_to(client)
            assert await exchange(line, ("ACL", "WHOAMI"), ("SET", "a", "1")) == [b"us", b"OK"]
        assert direct.get("a") is None
        async with Redis(unix_socket_path=path, username="us", password="wrong") as client:
            with pytest.raises(AuthenticationError):
                await exchange(line_to(client), ("PING",))


async def test_a_time_out_is_told_once_and_leaves_no_answers_for_the_next(
    valkey: Valkey, redis: Redis
) -> None:
    line = line_to(redis)
    await exchange(line, ("PING",))
    valkey.freeze()
    told = begun(line, ("ECHO", "old"), ("CLIENT", "ID"))
    assert isinstance(await told.get(), RedisTimeoutError)
    valkey.thaw()

    assert await exchange(line, ("ECHO", "new")) == [b"new"]
    assert told.empty()


async def test_whoever_is_told_an_answer_may_send_the_next_lot_at_once(redis: Redis) -> None:
    """As `Pipeline` does; the first lot opens the connection."""
    line = line_to(redis)
    told: asyncio.Queue[Any] = asyncio.Queue()
    calls = [Call(("PING",), asyncio.get_running_loop().create_future())]

    line.begin(calls, lambda first: line.begin(calls, lambda second: told.put_nowait((first, second))))

    assert await told.get() == ([b"PONG"], [b"PONG"])


async def test_after_a_time_out_it_connects_again(valkey: Valkey, redis: Redis) -> None:
    line = line_to(redis)
    await exchange(line, ("PING",))
    valkey.freeze()
    with pytest.raises(RedisTimeoutError):
        await exchange(line, ("ECHO", "old"))
    valkey.thaw()

    assert await exchange(line, ("ECHO", "new")) == [b"new"]


async def test_a_server_that_goes_is_told_at_once_and_found_again(valkey: Valkey, redis: Redis) -> None:
    line = line_to(redis)
    waiting = asyncio.create_task(exchange(line, ("BLPOP", "gate", 0)))
    with valkey.client() as direct:
        await wait_until(lambda: direct.info("clients")["blocked_clients"] == 1)
    valkey.kill()
    with pytest.raises(RedisConnectionError):
        await waiting
    with pytest.raises(RedisConnectionError):
        await exchange(line, ("PING",))
    valkey.start()
    valkey.wait_ready()

    assert await exchange(line, ("PING",)) == [b"PONG"]


async def test_who_may_only_read_any_more_is_left(valkey: Valkey, redis: Redis) -> None:
    """It was the primary once; another connection may lead to who is that now."""
    line = line_to(redis)
    [before] = await exchange(line, ("CLIENT", "ID"))
    with valkey.client() as direct:
        direct.replicaof("127.0.0.1", 1)
        refused = await exchange(line, ("SET", "a", "1"), ("ECHO", "answered all the same"))
        direct.replicaof("NO", "ONE")

    assert isinstance(refused[0], ReadOnlyError)
    assert refused[1] == b"answered all the same"
    assert (await exchange(line, ("CLIENT", "ID"))) != [before]
    assert await exchange(line, ("SET", "a", "1")) == [b"OK"]


async def test_over_tcp_it_is_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = Valkey(tmp_path_factory.mktemp("tcp"), tcp=True)
    try:
        server.start()
        server.wait_ready()
        async with connect(server.url) as client:
            assert await exchange(line_to(client), ("ECHO", "1")) == [b"1"]
    finally:
        server.close()


async def test_a_server_that_hangs_up_on_whoever_comes_is_told_at_once() -> None:
    path = Path(tempfile.mkdtemp(prefix="notify-")) / "s"
    server = await asyncio.start_unix_server(lambda _, writer: writer.close(), path)
    async with server, Redis(unix_socket_path=str(path), socket_timeout=None) as redis:
        line = line_to(redis)
        for _ in range(20):
            with pytest.raises(RedisConnectionError):
                await exchange(line, ("PING",))
    shutil.rmtree(path.parent)
