"""Tickets: hashed, used soon, good for one reader until the token ends, and bounded for each subject."""

from dataclasses import replace

import pytest

from shared.model.api_keys import Account, new_id
from shared.model.errors import NoSuchAccount, TooManyTickets
from shared.model.grants import Grant
from shared.model.token_keys import new_kid
from shared.store import keyspace, tickets
from shared.store.tickets import MOST_OF_SUBJECT, Tickets
from shared.store.token_names import subject_hash
from tests.harness import leaks
from tests.store.stores import EDGE, HOUR_MS, NOW_MS, OTHER_EDGE, RedisClock, Stores

TOPICS = ["news.a", "news.b"]


@pytest.fixture
async def made_by(stores: Stores) -> Grant:
    await stores.api_keys.create_account(Account(id=stores.account_id, name="a"))
    kid = new_kid(stores.account_id)
    return Grant(
        account_id=stores.account_id,
        kid=kid,
        subject="user-1",
        read=("news.*",),
        publish=(),
        channels=(),
        until_ms=NOW_MS + HOUR_MS,
        issued_ms=NOW_MS - 0.5,
    )


@pytest.fixture
def store(stores: Stores, clock: RedisClock) -> Tickets:
    return Tickets(clock.calls_of(stores))


async def test_a_ticket_stands_for_its_token_and_topics(
    stores: Stores, store: Tickets, made_by: Grant
) -> None:
    given = await store.make(made_by, TOPICS)
    assert leaks.places_of(stores.direct, given[-32:]) == [], "only its hash is stored"

    taken = await store.take(given, reader=f"{EDGE}/1")

    assert taken is not None
    assert taken.previous == ""
    ticket = taken.ticket
    assert (ticket.account_id, ticket.kid, ticket.topics) == (made_by.account_id, made_by.kid, TOPICS)
    assert (ticket.until_ms, ticket.issued_ms) == (made_by.until_ms, made_by.issued_ms)
    assert ticket.subject_hash == subject_hash("user-1")


async def test_the_newest_reader_has_it(store: Tickets, made_by: Grant) -> None:
    given = await store.make(made_by, TOPICS)
    readers = [f"{EDGE}/1", f"{OTHER_EDGE}/1", f"{EDGE}/2"]
    before = [await store.take(given, reader=reader) for reader in readers]
    assert [taken and taken.previous for taken in before] == ["", *readers[:2]]
    assert before[0] is not None
    assert await store.readers(made_by.account_id, [before[0].ticket.hash, "0" * 64]) == [readers[2], ""]
    assert await store.readers(made_by.account_id, []) == []


async def test_it_must_be_used_within_half_a_minute(
    store: Tickets, clock: RedisClock, made_by: Grant
) -> None:
    in_time, late = await store.make(made_by, TOPICS), await store.make(made_by, TOPICS)
    clock.ahead_ms = 29_999
    assert await store.take(in_time, reader="a") is not None
    clock.ahead_ms = 30_000
    assert await store.take(late, reader="a") is None
    clock.ahead_ms = HOUR_MS - 1
    assert await store.take(in_time, reader="b") is not None
    clock.ahead_ms = HOUR_MS
    assert await store.take(in_time, reader="c") is None


async def test_it_ends_with_a_token_that_ends_sooner(
    store: Tickets, clock: RedisClock, made_by: Grant
) -> None:
    given = await store.make(replace(made_by, until_ms=NOW_MS + 5000), TOPICS)
    clock.ahead_ms = 5000
    assert await store.take(given, reader="a") is None


@pytest.mark.parametrize("given", ["", "tkt_", "tkt_" + "0" * 80, "x" * 84, "tkt_" + "0" * 80 + "\n", "é"])
async def test_no_other_text_is_a_ticket(store: Tickets, made_by: Grant, given: str) -> None:
    await store.make(made_by, TOPICS)
    assert await store.take(given, reader="a") is None


async def test_of_one_subject_the_oldest_gives_way(store: Tickets, made_by: Grant) -> None:
    others = await store.make(replace(made_by, subject="user-2"), TOPICS)
    given = [await store.make(made_by, TOPICS) for _ in range(MOST_OF_SUBJECT + 2)]

    taken = [await store.take(each, reader="a") is not None for each in given]

    assert taken == [False, False, *[True] * MOST_OF_SUBJECT]
    assert await store.take(others, reader="a") is not None


async def test_an_account_has_so_many_until_some_are_over(
    stores: Stores, store: Tickets, clock: RedisClock, made_by: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tickets, "MOST_TICKETS", 3)
    kept = await store.make(made_by, TOPICS)
    await store.take(kept, reader="a")
    for number in range(2):
        clock.ahead_ms += 1000
        await store.make(replace(made_by, subject=f"other-{number}"), TOPICS)
    with pytest.raises(TooManyTickets) as full:
        await store.make(replace(made_by, subject="one more"), TOPICS)
    assert full.value.until_ms == NOW_MS + 31_000

    clock.ahead_ms = 31_000
    await store.make(replace(made_by, subject="one more"), TOPICS)

    names = (keyspace.tickets, keyspace.ticket_ends, keyspace.ticket_subjects)
    records, ends, subjects = (name(made_by.account_id) for name in names)
    assert stores.direct.zcard(ends) == 3
    assert stores.direct.hlen(records) == 4, "three tickets, and the reader of one"
    assert stores.direct.hlen(subjects) == 3


async def test_nothing_is_made_without_the_account(stores: Stores, made_by: Grant) -> None:
    with pytest.raises(NoSuchAccount):
        await Tickets(stores.calls).make(replace(made_by, account_id=new_id()), TOPICS)
