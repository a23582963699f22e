"""The metrics of the alerts NotifyNoReaper and NotifyNoDispatcher grow while work is done, and only then."""

from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from tests.conftest import Start
from tests.harness.metrics import metric
from tests.harness.rights import Restricted
from tests.harness.stack import RedisLike, Stack
from tests.harness.waiting import wait_until

ROUNDS = "notify_reaper_rounds_total"
POLLS = "notify_worker_polls_total"


@pytest.fixture
def redis_like() -> RedisLike:
    return Restricted


async def wait_until_grows(count: Callable[[], Awaitable[float]]) -> None:
    before = await count()

    async def has_grown() -> bool:
        return await count() > before

    await wait_until(has_grown, within_s=60)


def change_rights(stack: Stack, user: str, *rules: str) -> None:
    with stack.valkey.client() as direct:
        direct.execute_command("ACL", "SETUSER", user, *rules)


@pytest.mark.long
async def test_rounds_that_fail_are_not_counted_as_done(start: Start, http: aiohttp.ClientSession) -> None:
    stack = start(gateways=0, edges=0, reapers=1, PULL_EXPIRY_S=1)
    url = stack.reapers[0].url

    async def rounds(result: str) -> float:
        return await metric(http, url, ROUNDS, result=result)

    await wait_until_grows(lambda: rounds("done"))

    change_rights(stack, "notify-expiry-reaper", "-zrangebyscore", "(~notify:jobs* ~arq:* +zrangebyscore)")
    await wait_until_grows(lambda: rounds("failed"))
    done = await rounds("done")
    await wait_until_grows(lambda: rounds("failed"))
    assert await rounds("done") == done
    assert 'reaper.round-cut-short why="NoPermissionError: ' in stack.reapers[0].stderr

    change_rights(stack, "notify-expiry-reaper", "+zrangebyscore")
    await wait_until_grows(lambda: rounds("done"))


@pytest.mark.parametrize("kind", ["webhook-dispatcher", "expiry-reaper"])
async def test_a_worker_that_gets_no_jobs_is_not_counted(
    start: Start, http: aiohttp.ClientSession, kind: str
) -> None:
    stack = start(gateways=0, edges=0, reapers=1, dispatchers=1)
    url = {"webhook-dispatcher": stack.dispatchers, "expiry-reaper": stack.reapers}[kind][0].url

    async def polls() -> float:
        return await metric(http, url, POLLS, worker=kind)

    async def is_up() -> bool:
        return await metric(http, url, "notify_redis_up") == 1

    await wait_until_grows(polls)
    assert await is_up()

    user = f"notify-{kind}"
    with stack.valkey.client() as direct:
        rules = next(line for line in direct.acl_list() if line.startswith(f"user {user} "))
    change_rights(stack, user, "clearselectors")

    async def is_down() -> bool:
        return not await is_up()

    await wait_until(is_down, within_s=30)
    before = await polls()
    service = {"webhook-dispatcher": stack.dispatchers, "expiry-reaper": stack.reapers}[kind][0]
    await wait_until(lambda: "worker.ended" in service.stderr, what=lambda: service.tail)
    assert await polls() == before
    assert service.ready, "it was ready before"

    change_rights(stack, user, f"({rules.partition('(')[2]}")
    await wait_until_grows(polls)
    await wait_until(is_up, within_s=30)


async def test_a_full_redis_is_not_down(start: Start, http: aiohttp.ClientSession) -> None:
    """A reaper's worker writes its next job each round, so it ends."""
    stack = start(gateways=0, edges=0, reapers=1)
    [reaper] = stack.reapers

    async def polls() -> float:
        return await metric(http, reaper.url, POLLS, worker="expiry-reaper")

    await wait_until_grows(polls)
    with stack.valkey.client() as direct:
        direct.config_set("maxmemory", 1)
        refused = 'worker.ended service=expiry-reaper why="OutOfMemoryError: '
        await wait_until(lambda: refused in reaper.stderr, within_s=60, what=lambda: reaper.tail)
        assert await metric(http, reaper.url, "notify_redis_up") == 1
        direct.config_set("maxmemory", 0)
    await wait_until_grows(polls)
