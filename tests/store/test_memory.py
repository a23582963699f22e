"""How full Redis is: read from each primary, absent without the right to INFO."""

import logging
from typing import Any

import pytest

from shared.redis.client import connect
from shared.store.commands import commands_to
from shared.store.memory import RedisMemory
from tests.harness.valkey import Valkey, running_valkey


async def test_it_reads_what_is_in_use_and_the_limit() -> None:
    with running_valkey(maxmemory="64mb") as valkey:
        async with connect(valkey.url) as redis:
            memory = RedisMemory(commands_to(redis))
            before, limit = (await memory.used_and_limit())[""]
            await redis.set("some", "x" * 3_000_000)
            after, _ = (await memory.used_and_limit())[""]

    assert limit == 64 * 1024 * 1024
    assert 0 < before < after - 2_900_000


async def test_without_the_right_it_is_unknown_and_logged_once(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with valkey.client() as direct:
        direct.execute_command("ACL", "SETUSER", "default", "-info")
    async with connect(valkey.url) as redis:
        memory = RedisMemory(commands_to(redis))
        found = [await memory.used_and_limit() for _ in range(3)]

    assert found == [{}, {}, {}]
    lines: list[Any] = [record for record in caplog.records if record.message == "redis.memory-unknown"]
    assert len(lines) == 1
    assert "INFO" in lines[0].facts["why"].upper()
