"""Places: the bound in all and for an account, and turns between accounts."""

import asyncio

import pytest

from shared.outbound.places import Asked, FairPlaces


def given(asked: dict[str, Asked]) -> list[str]:
    return [name for name, future in asked.items() if future.done()]


def asking(places: FairPlaces, *names: str) -> dict[str, Asked]:
    """Asks for `a1`, `a2`, `b1`: the account is the letter."""
    return {name: places.ask(name[0]) for name in names}


async def test_an_account_has_no_more_than_its_share() -> None:
    places = FairPlaces(4, per_account=2)

    asked = asking(places, "a1", "a2", "a3", "b1")
    assert given(asked) == ["a1", "a2", "b1"], "a place is free, and not for a"

    places.give_back("a")
    assert given(asked) == ["a1", "a2", "a3", "b1"]


async def test_waiting_accounts_take_turns() -> None:
    places = FairPlaces(1, per_account=1)
    asked = asking(places, "x", "a1", "a2", "a3", "b1", "c1", "c2")
    order = []
    for holder in "xabcaca":
        before = given(asked)
        places.give_back(holder)
        order += [name for name in given(asked) if name not in before]

    assert order == ["a1", "b1", "c1", "a2", "c2", "a3"]


async def test_a_late_account_waits_for_one_turn_of_the_others_and_not_for_all_they_ask() -> None:
    places = FairPlaces(2, per_account=2)
    asked = asking(places, *(f"a{number}" for number in range(1000)))
    late = places.ask("b")

    places.give_back("a")
    places.give_back("a")

    assert late.done()
    assert len(given(asked)) == 3


async def test_a_cancelled_wait_leaves_the_queue() -> None:
    places = FairPlaces(1, per_account=1)
    places.take_now("a")
    waits = [asyncio.create_task(places.take(account)) for account in "abc"]
    await asyncio.sleep(0)
    waits[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits[1]
    assert places.waiting("b") == 0

    places.give_back("a")
    await waits[2]
    places.give_back("c")
    await waits[0]


async def test_a_place_given_to_a_cancelled_wait_goes_to_the_next() -> None:
    places = FairPlaces(1, per_account=1)
    places.take_now("a")
    first, second = (asyncio.create_task(places.take(account)) for account in "bc")
    await asyncio.sleep(0)

    places.give_back("a")
    first.cancel()

    with pytest.raises(asyncio.CancelledError):
        await first
    await second


async def test_nothing_is_kept_of_accounts_that_have_gone() -> None:
    places = FairPlaces(3, per_account=2)
    for account in map(str, range(100)):
        asked = [places.ask(account) for _ in range(4)]
        for future in asked:
            places.give_up(account, future)

    assert (places._taken, places._waiting, len(places._turns), places._free) == ({}, {}, 0, 3)
