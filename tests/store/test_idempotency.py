"""Requests with an Idempotency-Key: one runner, and its response for a day."""

import asyncio
from dataclasses import replace

import pytest
from redis.exceptions import OutOfMemoryError

from shared.model.errors import StoreUnavailable
from shared.model.idempotency import Deadline, Repeatable
from shared.store import keyspace
from shared.store.idempotency import (
    CLOCKS_APART_S,
    PASSED_MS,
    RUNNING_S,
    EndResult,
    Idempotency,
    RequestState,
)
from tests.store.stores import Backend, Stores

REQUEST = Repeatable("0123456789abcdef0123456789abcdef", "order-17", "a1b2")
FIELD = keyspace.idempotency_field(REQUEST.idempotency_key)
NAME = keyspace.running(REQUEST.api_key_id, FIELD)
OTHER_BODY = replace(REQUEST, fingerprint="c3d4")
PREFIX = keyspace.idempotency_prefix(REQUEST.api_key_id)
HOUR_S = 60 * 60


@pytest.fixture
def idempotency(stores: Stores) -> Idempotency:
    return Idempotency(stores.calls)


async def state_of(idempotency: Idempotency, request: Repeatable, runner: str) -> RequestState:
    return (await idempotency.begin(request, runner=runner)).state


async def keep(idempotency: Idempotency, request: Repeatable) -> None:
    await idempotency.begin(request, runner="a")
    assert (await idempotency.keep(request, b"[1]", runner="a")).is_done


async def test_one_of_concurrent_requests_begins(idempotency: Idempotency) -> None:
    states = await asyncio.gather(*(state_of(idempotency, REQUEST, f"r{n}") for n in range(20)))

    assert sorted(states) == [RequestState.BEGUN] + [RequestState.RUNNING] * 19


async def test_kept_response_is_returned_to_repetitions(idempotency: Idempotency) -> None:
    await idempotency.begin(REQUEST, runner="a")
    assert (await idempotency.keep(REQUEST, b"\0[1]\xff", runner="a")).is_done

    for runner in ("a", "b"):
        result = await idempotency.begin(REQUEST, runner=runner)
        assert (result.state, result.response) == (RequestState.ANSWERED, b"\0[1]\xff")


async def test_freed_key_can_begin_with_another_body(idempotency: Idempotency) -> None:
    await idempotency.begin(REQUEST, runner="a")
    assert (await idempotency.free(REQUEST, runner="a")).is_done

    assert await state_of(idempotency, OTHER_BODY, "b") is RequestState.BEGUN


async def test_another_body_is_refused_during_and_after_the_request(idempotency: Idempotency) -> None:
    await idempotency.begin(REQUEST, runner="a")
    assert await state_of(idempotency, OTHER_BODY, "b") is RequestState.DIFFERS
    await idempotency.keep(REQUEST, b"[1]", runner="a")

    assert await state_of(idempotency, OTHER_BODY, "b") is RequestState.DIFFERS


async def test_requests_differ_by_api_key_and_by_idempotency_key(idempotency: Idempotency) -> None:
    requests = [REQUEST, replace(REQUEST, api_key_id="f" * 32), replace(REQUEST, idempotency_key="order-18")]

    assert [await state_of(idempotency, each, "a") for each in requests] == [RequestState.BEGUN] * 3


def end_of_the_mark(stores: Stores) -> int:
    return int(stores.direct.execute_command("PEXPIRETIME", NAME))


async def test_the_deadline_is_before_the_end_of_the_mark(idempotency: Idempotency, stores: Stores) -> None:
    deadline = (await idempotency.begin(REQUEST, runner="a")).deadline
    assert 0 < stores.direct.pttl(NAME) <= RUNNING_S * 1000
    assert deadline.ms == end_of_the_mark(stores) - CLOCKS_APART_S * 1000

    stores.direct.pexpire(NAME, 1000)
    assert await idempotency.renew(REQUEST, deadline, runner="a")

    assert stores.direct.pttl(NAME) > 1000
    assert deadline.ms == end_of_the_mark(stores) - CLOCKS_APART_S * 1000


async def test_only_the_runner_renews_the_mark(idempotency: Idempotency, stores: Stores) -> None:
    await idempotency.begin(REQUEST, runner="a")
    stores.direct.pexpire(NAME, 1000)
    deadline = Deadline(1)

    for request, runner in ((REQUEST, "b"), (OTHER_BODY, "a")):
        assert not await idempotency.renew(request, deadline, runner=runner)

    assert deadline.ms == PASSED_MS
    assert stores.direct.pttl(NAME) <= 1000
    for runner in ("a", "b"):
        assert await state_of(idempotency, REQUEST, runner) is RequestState.RUNNING


@pytest.mark.parametrize("meanwhile", ["nothing", "running", "answered", "failed"])
async def test_a_mark_that_has_ended_is_not_renewed(
    idempotency: Idempotency, stores: Stores, meanwhile: str
) -> None:
    """Also if no runner has the request now: another run may have appended a part of it."""
    deadline = (await idempotency.begin(REQUEST, runner="slow")).deadline
    stores.direct.delete(NAME)  # as when its TTL ends
    if meanwhile != "nothing":
        await idempotency.begin(REQUEST, runner="next")
    if meanwhile == "answered":
        await idempotency.keep(REQUEST, b"[1]", runner="next")
    if meanwhile == "failed":
        await idempotency.free(REQUEST, runner="next")
    before = stores.direct.get(NAME)

    assert not await idempotency.renew(REQUEST, deadline, runner="slow")

    assert deadline.ms == PASSED_MS
    assert stores.direct.get(NAME) == before


@pytest.mark.parametrize("end", ["keep", "free"])
async def test_a_stale_runner_gets_the_response_of_the_other_one(
    idempotency: Idempotency, stores: Stores, end: str
) -> None:
    async def ended(request: Repeatable) -> EndResult:
        if end == "keep":
            return await idempotency.keep(request, b"[1]", runner="slow")
        return await idempotency.free(request, runner="slow")

    await idempotency.begin(REQUEST, runner="slow")
    stores.direct.delete(NAME)
    await idempotency.begin(REQUEST, runner="next")
    assert await ended(REQUEST) == EndResult(is_done=False)
    await idempotency.keep(REQUEST, b"[2]", runner="next")

    assert await ended(REQUEST) == EndResult(is_done=False, response=b"[2]")
    assert await ended(OTHER_BODY) == EndResult(is_done=False), "that is the response of another request"


async def test_response_is_kept_for_a_day(idempotency: Idempotency, stores: Stores) -> None:
    await keep(idempotency, REQUEST)
    [name] = stores.direct.keys(PREFIX + "*")
    assert 30 * HOUR_S < stores.direct.ttl(name) <= 36 * HOUR_S

    prefix, _, period = name.rpartition(b":")
    for age, state in ((4, RequestState.ANSWERED), (5, RequestState.BEGUN)):
        [name] = stores.direct.keys(PREFIX + "*")
        stores.direct.rename(name, b"%b:%d" % (prefix, int(period) - age))
        assert await state_of(idempotency, REQUEST, "b") is state


async def test_old_responses_go_when_those_of_a_new_period_begin(
    idempotency: Idempotency, stores: Stores
) -> None:
    await keep(idempotency, REQUEST)
    [name] = stores.direct.keys(PREFIX + "*")
    prefix, _, period = name.rpartition(b":")
    stores.direct.rename(name, b"%b:%d" % (prefix, int(period) - 5))

    await keep(idempotency, replace(REQUEST, idempotency_key="order-18"))
    await keep(idempotency, replace(REQUEST, idempotency_key="order-19"))

    assert stores.direct.keys(PREFIX + "*") == [name]
    assert stores.direct.hlen(name) == 2


async def test_a_response_takes_less_than_100_bytes(idempotency: Idempotency, stores: Stores) -> None:
    for number in range(1000):
        await keep(idempotency, replace(REQUEST, idempotency_key=str(number) * 60, fingerprint="f" * 64))

    [name] = stores.direct.keys(PREFIX + "*")
    assert stores.direct.memory_usage(name, samples=0) < 100 * 1000


async def test_an_api_key_has_a_bounded_number_of_responses(stores: Stores) -> None:
    idempotency = Idempotency(stores.calls, most_responses=3)
    requests = [replace(REQUEST, idempotency_key=str(number)) for number in range(4)]
    for request in requests[:3]:
        await keep(idempotency, request)

    refused = await idempotency.begin(requests[3], runner="a")
    assert refused.state is RequestState.FULL
    assert 0 < refused.retry_after_s <= 6 * HOUR_S
    assert await state_of(idempotency, requests[0], "b") is RequestState.ANSWERED
    assert await state_of(idempotency, replace(requests[3], api_key_id="f" * 32), "b") is RequestState.BEGUN


async def test_stale_runner_cannot_end_a_newer_request(idempotency: Idempotency, stores: Stores) -> None:
    await idempotency.begin(REQUEST, runner="slow")
    stores.direct.delete(NAME)  # as when its TTL ends
    await idempotency.begin(REQUEST, runner="next")

    assert not (await idempotency.free(REQUEST, runner="slow")).is_done
    assert not (await idempotency.keep(REQUEST, b"[1]", runner="slow")).is_done
    assert await state_of(idempotency, REQUEST, "slow") is RequestState.RUNNING

    await idempotency.keep(REQUEST, b"[2]", runner="next")
    assert not (await idempotency.free(REQUEST, runner="slow")).is_done
    assert not (await idempotency.keep(REQUEST, b"[1]", runner="slow")).is_done
    assert (await idempotency.begin(REQUEST, runner="c")).response == b"[2]"


async def test_response_is_kept_after_the_mark_expired(idempotency: Idempotency, stores: Stores) -> None:
    await idempotency.begin(REQUEST, runner="slow")
    stores.direct.delete(NAME)

    assert (await idempotency.keep(REQUEST, b"[1]", runner="slow")).is_done

    assert await state_of(idempotency, REQUEST, "b") is RequestState.ANSWERED
    assert await state_of(idempotency, OTHER_BODY, "b") is RequestState.DIFFERS


async def test_freeing_is_idempotent(idempotency: Idempotency, stores: Stores) -> None:
    await idempotency.begin(REQUEST, runner="a")

    assert [(await idempotency.free(REQUEST, runner="a")).is_done for _ in range(2)] == [True, True]
    assert not stores.direct.exists(NAME)


async def test_full_redis_refuses_new_requests_and_ends_running_ones(backend: Backend) -> None:
    direct = backend.direct
    async with backend.connect() as redis:
        idempotency = Idempotency(Stores(redis, backend).calls)
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
            assert (await idempotency.keep(REQUEST, b"[1]", runner="a")).is_done
            assert (await idempotency.free(other, runner="a")).is_done
        finally:
            direct.config_set("maxmemory", before)
        assert await state_of(idempotency, REQUEST, "b") is RequestState.ANSWERED
