"""Who runs a request with an Idempotency-Key, and what is remembered of it for how long."""

import asyncio
from dataclasses import replace

import pytest
from redis.exceptions import OutOfMemoryError

from shared.model.errors import StoreUnavailable
from shared.model.idempotency import Repeatable
from shared.store import keyspace
from shared.store.idempotency import RUNNING_S, Idempotency, RequestState
from tests.store.stores import Backend, Stores

REQUEST = Repeatable("0123456789abcdef0123456789abcdef", "order-17", "a1b2")
NAME = keyspace.idempotency(REQUEST.api_key_id, REQUEST.idempotency_key)
OTHER_BODY = replace(REQUEST, fingerprint="c3d4")
DAY_MS = 24 * 60 * 60 * 1000


@pytest.fixture
def idempotency(stores: Stores) -> Idempotency:
    return Idempotency(stores.calls)


async def found(idempotency: Idempotency, request: Repeatable, runner: str) -> RequestState:
    return (await idempotency.begin(request, runner=runner)).state


async def test_one_runs_and_the_others_wait(idempotency: Idempotency) -> None:
    told = await asyncio.gather(*(found(idempotency, REQUEST, f"r{n}") for n in range(20)))

    assert sorted(told) == [RequestState.BEGUN] + [RequestState.RUNNING] * 19


async def test_what_is_kept_is_the_answer_from_then_on(idempotency: Idempotency) -> None:
    await idempotency.begin(REQUEST, runner="a")
    assert await idempotency.keep(REQUEST, b"\0[1]\xff", runner="a") is True

    for runner in ("a", "b"):
        beginning = await idempotency.begin(REQUEST, runner=runner)
        assert (beginning.state, beginning.response) == (RequestState.ANSWERED, b"\0[1]\xff")


async def test_what_is_freed_can_begin_anew_also_with_another_body(idempotency: Idempotency) -> None:
    await idempotency.begin(REQUEST, runner="a")
    assert await idempotency.free(REQUEST, runner="a") is True

    assert await found(idempotency, OTHER_BODY, "b") is RequestState.BEGUN


async def test_another_body_differs_while_it_runs_and_afterwards(idempotency: Idempotency) -> None:
    await idempotency.begin(REQUEST, runner="a")
    assert await found(idempotency, OTHER_BODY, "b") is RequestState.DIFFERS
    await idempotency.keep(REQUEST, b"[1]", runner="a")

    assert await found(idempotency, OTHER_BODY, "b") is RequestState.DIFFERS


async def test_api_keys_and_idempotency_keys_do_not_meet(idempotency: Idempotency) -> None:
    requests = [REQUEST, replace(REQUEST, api_key_id="f" * 32), replace(REQUEST, idempotency_key="order-18")]

    assert [await found(idempotency, each, "a") for each in requests] == [RequestState.BEGUN] * 3


async def test_the_mark_of_a_running_request_is_short_and_renewed_by_its_runner_only(
    idempotency: Idempotency, stores: Stores
) -> None:
    await idempotency.begin(REQUEST, runner="a")
    assert 0 < stores.direct.pttl(NAME) <= RUNNING_S * 1000

    stores.direct.pexpire(NAME, 1000)
    assert await found(idempotency, REQUEST, "b") is RequestState.RUNNING
    assert stores.direct.pttl(NAME) <= 1000
    assert await found(idempotency, REQUEST, "a") is RequestState.BEGUN
    assert stores.direct.pttl(NAME) > 1000


async def test_an_answer_is_kept_for_a_day_however_often_it_is_asked_for(
    idempotency: Idempotency, stores: Stores
) -> None:
    await idempotency.begin(REQUEST, runner="a")
    await idempotency.keep(REQUEST, b"[1]", runner="a")
    assert DAY_MS - 60_000 < stores.direct.pttl(NAME) <= DAY_MS

    stores.direct.pexpire(NAME, 60_000)
    await idempotency.begin(REQUEST, runner="b")
    assert stores.direct.pttl(NAME) <= 60_000


async def test_a_runner_that_was_given_up_ends_nothing_of_its_successors(
    idempotency: Idempotency, stores: Stores
) -> None:
    await idempotency.begin(REQUEST, runner="slow")
    stores.direct.delete(NAME)  # as its TTL does
    await idempotency.begin(REQUEST, runner="next")

    assert await idempotency.free(REQUEST, runner="slow") is False
    assert await idempotency.keep(REQUEST, b"[1]", runner="slow") is False
    assert await found(idempotency, REQUEST, "slow") is RequestState.RUNNING

    await idempotency.keep(REQUEST, b"[2]", runner="next")
    assert await idempotency.free(REQUEST, runner="slow") is False
    assert await idempotency.keep(REQUEST, b"[1]", runner="slow") is False
    assert (await idempotency.begin(REQUEST, runner="c")).response == b"[2]"


async def test_an_answer_is_kept_also_when_the_mark_is_gone(idempotency: Idempotency, stores: Stores) -> None:
    await idempotency.begin(REQUEST, runner="slow")
    stores.direct.delete(NAME)

    assert await idempotency.keep(REQUEST, b"[1]", runner="slow") is True

    assert await found(idempotency, REQUEST, "b") is RequestState.ANSWERED
    assert await found(idempotency, OTHER_BODY, "b") is RequestState.DIFFERS


async def test_freeing_twice_does_no_harm(idempotency: Idempotency, stores: Stores) -> None:
    await idempotency.begin(REQUEST, runner="a")

    assert [await idempotency.free(REQUEST, runner="a") for _ in range(2)] == [True, True]
    assert not stores.direct.exists(NAME)


async def test_a_full_redis_begins_nothing_and_lets_everything_end(real_backend: Backend) -> None:
    direct = real_backend.direct
    async with real_backend.connect() as redis:
        idempotency = Idempotency(Stores(redis, real_backend).calls)
        other = replace(REQUEST, idempotency_key="order-18")
        for request in (REQUEST, other):
            await idempotency.begin(request, runner="a")
        before = direct.config_get("maxmemory")["maxmemory"]
        direct.config_set("maxmemory", 1)
        try:
            with pytest.raises(OutOfMemoryError):
                direct.set("more", "1")
            with pytest.raises(StoreUnavailable):
                await idempotency.begin(replace(REQUEST, idempotency_key="order-19"), runner="b")
            assert await idempotency.keep(REQUEST, b"[1]", runner="a") is True
            assert await idempotency.free(other, runner="a") is True
        finally:
            direct.config_set("maxmemory", before)
        assert await found(idempotency, REQUEST, "b") is RequestState.ANSWERED
