"""Our own connection to Redis: it authenticates as redis-py would, and replies never get out of step."""

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
from shared.redis.connection import Arguments, Command, RedisConnection
from shared.redis.pipeline import connection_to
from tests.harness.valkey import Valkey
from tests.harness.waiting import wait_until


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[Redis]:
    path = valkey.url.removeprefix("unix://")
    async with Redis(unix_socket_path=path, socket_timeout=0.5) as client:
        yield client


def connection_for(redis: Redis) -> RedisConnection:
    connection = connection_to(redis)
    assert isinstance(connection, RedisConnection)
    return connection


def send(connection: RedisConnection, *commands: Arguments) -> asyncio.Queue[list[Any] | Exception]:
    """Sends the commands; their replies, or the exception, come through the queue."""
    received: asyncio.Queue[list[Any] | Exception] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    connection.send([Command(c, loop.create_future()) for c in commands], received.put_nowait)
    return received


async def exchange(connection: RedisConnection, *commands: Arguments) -> list[Any]:
    """The replies; raises the exception."""
    replies = await send(connection, *commands).get()
    if isinstance(replies, Exception):
        raise replies
    return replies


async def test_each_command_has_its_own_reply_or_error(redis: Redis) -> None:
    commands: list[Arguments] = [("SET", "a", "1"), ("HGET", "a", "b"), ("GET", b"a"), ("INCR", "a")]
    replies = await exchange(connection_for(redis), *commands)

    assert (replies[0], replies[2], replies[3]) == (b"OK", b"1", 2)
    assert isinstance(replies[1], ResponseError)


async def test_large_replies_arrive_whole(redis: Redis) -> None:
    large = b"x" * 3_000_000
    connection = connection_for(redis)

    assert await exchange(connection, ("SET", "large", large)) == [b"OK"]
    assert await exchange(connection, *[("GET", "large"), ("STRLEN", "large")] * 3) == [large, len(large)] * 3


async def test_numbers_and_bytes_are_sent_as_they_are_written(redis: Redis) -> None:
    given = (7, 1.5, b"\x00\xff", "ü")

    replies = await exchange(connection_for(redis), *[("ECHO", one) for one in given])

    assert replies == [b"7", b"1.5", b"\x00\xff", "ü".encode()]


async def test_it_authenticates_and_selects_the_database(valkey: Valkey) -> None:
    with valkey.client() as direct:
        direct.acl_setuser("us", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all"])
        path = valkey.url.removeprefix("unix://")
        async with Redis(unix_socket_path=path, username="us", password="secret", db=3) as client:
            connection = connection_for(client)
            assert await exchange(connection, ("ACL", "WHOAMI"), ("SET", "a", "1")) == [b"us", b"OK"]
        assert direct.get("a") is None
        async with Redis(unix_socket_path=path, username="us", password="wrong") as client:
            with pytest.raises(AuthenticationError):
                await exchange(connection_for(client), ("PING",))


async def test_a_timeout_is_reported_once_and_leaves_no_replies_for_the_next(
    valkey: Valkey, redis: Redis
) -> None:
    connection = connection_for(redis)
    await exchange(connection, ("PING",))
    valkey.freeze()
    received = send(connection, ("ECHO", "old"), ("CLIENT", "ID"))
    assert isinstance(await received.get(), RedisTimeoutError)
    valkey.thaw()

    assert await exchange(connection, ("ECHO", "new")) == [b"new"]
    assert received.empty()


async def test_a_reply_handler_may_send_the_next_commands_at_once(redis: Redis) -> None:
    """As `Pipeline` does; the first commands open the connection."""
    connection = connection_for(redis)
    received: asyncio.Queue[Any] = asyncio.Queue()
    ping = [Command(("PING",), asyncio.get_running_loop().create_future())]

    connection.send(
        ping, lambda first: connection.send(ping, lambda second: received.put_nowait((first, second)))
    )

    assert await received.get() == ([b"PONG"], [b"PONG"])


async def test_it_reconnects_after_a_timeout(valkey: Valkey, redis: Redis) -> None:
    connection = connection_for(redis)
    await exchange(connection, ("PING",))
    valkey.freeze()
    with pytest.raises(RedisTimeoutError):
        await exchange(connection, ("ECHO", "old"))
    valkey.thaw()

    assert await exchange(connection, ("ECHO", "new")) == [b"new"]


async def test_the_loss_of_a_server_is_reported_at_once_and_it_is_found_again(
    valkey: Valkey, redis: Redis
) -> None:
    connection = connection_for(redis)
    waiting = asyncio.create_task(exchange(connection, ("BLPOP", "gate", 0)))
    with valkey.client() as direct:
        await wait_until(lambda: direct.info("clients")["blocked_clients"] == 1)
    valkey.kill()
    with pytest.raises(RedisConnectionError):
        await waiting
    with pytest.raises(RedisConnectionError):
        await exchange(connection, ("PING",))
    valkey.start()
    valkey.wait_ready()

    assert await exchange(connection, ("PING",)) == [b"PONG"]


async def test_it_leaves_a_demoted_server(valkey: Valkey, redis: Redis) -> None:
    """It was the primary once; another connection may lead to the new one."""
    connection = connection_for(redis)
    [before] = await exchange(connection, ("CLIENT", "ID"))
    with valkey.client() as direct:
        direct.replicaof("127.0.0.1", 1)
        refused = await exchange(connection, ("SET", "a", "1"), ("ECHO", "replied all the same"))
        direct.replicaof("NO", "ONE")

    assert isinstance(refused[0], ReadOnlyError)
    assert refused[1] == b"replied all the same"
    assert (await exchange(connection, ("CLIENT", "ID"))) != [before]
    assert await exchange(connection, ("SET", "a", "1")) == [b"OK"]


async def test_tcp(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = Valkey(tmp_path_factory.mktemp("tcp"), tcp=True)
    try:
        server.start()
        server.wait_ready()
        async with connect(server.url) as client:
            assert await exchange(connection_for(client), ("ECHO", "1")) == [b"1"]
    finally:
        server.close()


async def test_a_server_that_closes_every_connection_is_reported_at_once() -> None:
    path = Path(tempfile.mkdtemp(prefix="notify-")) / "s"
    server = await asyncio.start_unix_server(lambda _, writer: writer.close(), path)
    async with server, Redis(unix_socket_path=str(path), socket_timeout=None) as redis:
        connection = connection_for(redis)
        for _ in range(20):
            with pytest.raises(RedisConnectionError):
                await exchange(connection, ("PING",))
    shutil.rmtree(path.parent)
