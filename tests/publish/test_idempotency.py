"""A running request renews its mark in Redis; its end keeps the result or frees the key."""

import asyncio
from dataclasses import replace
from typing import Any

import fakeredis
import pytest

from shared.model.errors import DeadlinePassed, KeyIsRunning, QuotaExceeded, StoreUnavailable
from shared.model.idempotency import Deadline, Repeatable
from shared.publish import idempotency
from shared.publish.idempotency import IdempotentRequests
from shared.store import keyspace
from shared.store.commands import commands_to
from shared.store.idempotency import CLOCKS_APART_S, PASSED_MS, RUNNING_S, Idempotency
from tests.harness.waiting import wait_until
from tests.store.stores import Backend, fake_backend

REQUEST = Repeatable("0123456789abcdef0123456789abcdef", "order-17", "a1b2")
FIELD = keyspace.idempotency_field(REQUEST.idempotency_key)
NAME = keyspace.running(REQUEST.api_key_id, FIELD)


@pytest.fixture
def backend() -> Backend:
    return fake_backend(fakeredis.FakeServer())


@pytest.fixture
def requests(backend: Backend) -> IdempotentRequests:
    return IdempotentRequests(Idempotency(commands_to(backend.connect(), scripts=backend.scripts)))


@pytest.fixture
def redis(backend: Backend) -> Any:
    return backend.direct


async def one(_: Deadline) -> bytes:
    return b"[1]"


async def test_long_work_renews_its_mark(
    requests: IdempotentRequests, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "_RENEWAL_S", 0.01)
    nearly_over_ms = 5000

    async def work(_: Deadline) -> bytes:
        redis.pexpire(NAME, nearly_over_ms)
        await wait_until(lambda: redis.pttl(NAME) > nearly_over_ms)
        return b"[1]"

    assert await requests.run(REQUEST, work) == (b"[1]", False)
    assert await requests.run(REQUEST, one) == (b"[1]", True)


def test_the_deadline_survives_several_lost_renewals() -> None:
    assert idempotency._RENEWAL_S * 3 < RUNNING_S - CLOCKS_APART_S


async def test_a_renewal_moves_the_deadline(
    requests: IdempotentRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "_RENEWAL_S", 0.01)

    async def work(deadline: Deadline) -> bytes:
        first_ms = deadline.ms
        await wait_until(lambda: deadline.ms > first_ms)
        return b"[1]"

    assert await requests.run(REQUEST, work) == (b"[1]", False)


async def test_the_deadline_passes_when_the_mark_is_lost(
    requests: IdempotentRequests, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "_RENEWAL_S", 0.01)

    async def work(deadline: Deadline) -> bytes:
        redis.delete(NAME)
        await wait_until(lambda: deadline.ms == PASSED_MS)
        assert not redis.exists(NAME), "another runner may have begun and failed"
        raise DeadlinePassed

    with pytest.raises(DeadlinePassed):
        await requests.run(REQUEST, work)

    assert await requests.run(REQUEST, one) == (b"[1]", False)


@pytest.mark.parametrize("error", [DeadlinePassed, None])
async def test_the_slower_of_two_runs_gets_the_response_of_the_other_one(
    backend: Backend, requests: IdempotentRequests, redis: Any, error: type[Exception] | None
) -> None:
    others = IdempotentRequests(Idempotency(commands_to(backend.connect(), scripts=backend.scripts)))

    async def work(_: Deadline) -> bytes:
        redis.delete(NAME)  # as when its TTL ends
        assert await others.run(REQUEST, one) == (b"[1]", False)
        if error is not None:
            raise error
        return b"[2]"

    assert await requests.run(REQUEST, work) == (b"[1]", True)


async def test_other_errors_stay_errors_if_another_run_has_a_response(
    backend: Backend, requests: IdempotentRequests, redis: Any
) -> None:
    others = IdempotentRequests(Idempotency(commands_to(backend.connect(), scripts=backend.scripts)))

    async def work(_: Deadline) -> bytes:
        redis.delete(NAME)
        await others.run(REQUEST, one)
        raise LookupError

    with pytest.raises(LookupError):
        await requests.run(REQUEST, work)


@pytest.mark.parametrize(("why", "is_free"), [("TimeoutError", False), ("ConnectionError", True)])
async def test_the_key_stays_marked_while_a_write_may_still_come(
    requests: IdempotentRequests, redis: Any, why: str, is_free: bool
) -> None:
    async def fails(_: Deadline) -> bytes:
        raise StoreUnavailable(why=why)

    with pytest.raises(StoreUnavailable):
        await requests.run(REQUEST, fails)

    assert redis.exists(NAME) == (0 if is_free else 1)


async def test_failed_work_frees_the_key_and_stops_the_renewal(
    requests: IdempotentRequests, redis: Any
) -> None:
    async def fails(_: Deadline) -> bytes:
        raise LookupError

    with pytest.raises(LookupError):
        await requests.run(REQUEST, fails)

    assert not redis.exists(NAME)
    await wait_until(
        lambda: not any("IdempotentRequests._renew" in repr(task) for task in asyncio.all_tasks())
    )


async def test_work_is_done_once(requests: IdempotentRequests) -> None:
    go = asyncio.Event()
    times = 0

    async def work(_: Deadline) -> bytes:
        nonlocal times
        times += 1
        await go.wait()
        return b"[1]"

    running = asyncio.create_task(requests.run(REQUEST, work))
    await wait_until(lambda: times)
    with pytest.raises(KeyIsRunning):
        await requests.run(REQUEST, work)
    go.set()

    assert await running == (b"[1]", False)
    assert await requests.run(REQUEST, work) == (b"[1]", True)
    assert times == 1


async def test_cancelled_work_leaves_the_mark_to_expire(requests: IdempotentRequests, redis: Any) -> None:
    """At shutdown it is unknown how much of the work was done: freeing the key could publish twice."""
    begun = asyncio.Event()

    async def work(_: Deadline) -> bytes:
        begun.set()
        await asyncio.Event().wait()
        return b""

    running = asyncio.create_task(requests.run(REQUEST, work))
    await begun.wait()
    running.cancel()
    await asyncio.wait([running])

    assert 0 < redis.pttl(NAME) <= RUNNING_S * 1000


async def test_an_api_key_with_too_many_keys_gets_the_name_of_the_quota(backend: Backend) -> None:
    store = Idempotency(commands_to(backend.connect(), scripts=backend.scripts), most_responses=1)
    requests = IdempotentRequests(store)
    assert await requests.run(REQUEST, one) == (b"[1]", False)

    with pytest.raises(QuotaExceeded) as raised:
        await requests.run(replace(REQUEST, idempotency_key="order-18"), one)

    assert raised.value.quota == "idempotency_keys"
    assert raised.value.retry_after_s is not None
    assert await requests.run(REQUEST, one) == (b"[1]", True)
