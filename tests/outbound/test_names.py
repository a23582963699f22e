"""Lookups: one at a time for a name, bounded for an account; silent name servers delay no other account."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from shared.outbound import names as module
from shared.outbound.names import Names
from tests.harness.waiting import wait_until


class NameServer:
    """Responds with one address, never for a name that ends in `.silent`, with an error for `.gone`."""

    def __init__(self) -> None:
        self.lookups: list[str] = []
        self.silent = asyncio.Event()
        self.broken = False

    async def __call__(self, host: str) -> list[str]:
        self.lookups.append(host)
        if host.endswith(".silent"):
            await self.silent.wait()
        if self.broken or host.endswith(".gone"):
            raise OSError("no such name")
        return ["127.0.0.1"]


@pytest.fixture
def server() -> NameServer:
    return NameServer()


@pytest.fixture
async def names(server: NameServer) -> AsyncIterator[Names]:
    looking_up = Names(server, fresh_s=100)
    yield looking_up
    await looking_up.close()


async def test_a_fresh_name_is_not_looked_up_again(names: Names, server: NameServer) -> None:
    first = await names.resolve("a.example", account="a")

    assert await names.resolve("a.example", account="b") is first
    assert names.refresh(first, account="a") is first
    assert first.addresses == ("127.0.0.1",)
    assert server.lookups == ["a.example"]


async def test_lookups_of_one_name_at_the_same_time_are_one(names: Names, server: NameServer) -> None:
    both = [asyncio.create_task(names.resolve("a.silent", account=account)) for account in "ab"]
    await wait_until(lambda: server.lookups)
    server.silent.set()

    assert [(await each).addresses for each in both] == [("127.0.0.1",)] * 2
    assert server.lookups == ["a.silent"]


async def test_silent_names_of_an_account_delay_no_other(
    names: Names, server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for a name that waits behind them in the account's own turn."""
    hosts = [f"{number}.silent" for number in range(300)]
    waiting = [
        asyncio.create_task(names.resolve(host, account="many")) for host in [*hosts, "shared.example"]
    ]
    await wait_until(lambda: len(server.lookups) == module._QUICK_PER_ACCOUNT)

    assert (await names.resolve("shared.example", account="other")).addresses
    assert (await names.resolve("own.example", account="other")).addresses
    assert len(server.lookups) == module._QUICK_PER_ACCOUNT + 2, "the account has only its share"

    server.silent.set()
    assert all([(await each).addresses for each in waiting])


async def test_names_that_failed_leave_the_lookups_of_the_others_free(
    names: Names, server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOKUP_LIMIT_S", 0.01)
    hosts = [f"{number}.silent" for number in range(module._QUICK_PER_ACCOUNT)]
    for host in hosts:
        assert (await names.resolve(host, account="a")).error
    server.silent.set()
    await wait_until(lambda: not names._running)
    monkeypatch.setattr(module, "_LOOKUP_LIMIT_S", 10.0)
    names._fresh_s = 0
    for host in hosts:
        names._keep(module.Resolved(host, error="it failed"))
    server.silent.clear()

    again = [asyncio.create_task(names.resolve(host, account="a")) for host in hosts]
    await wait_until(lambda: len(names._running) == module._SLOW_PER_ACCOUNT)
    assert (await names.resolve("good.example", account="a")).addresses
    server.silent.set()
    await asyncio.wait(again)


async def test_a_lookup_that_has_not_begun_says_nothing_about_its_name(
    names: Names, server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account's own silent names hold its lookups: another account must not meet that failure."""
    monkeypatch.setattr(module, "_LOOKUP_LIMIT_S", 0.05)
    hosts = [f"{number}.silent" for number in range(module._QUICK_PER_ACCOUNT)]
    hanging = [asyncio.create_task(names.resolve(host, account="a")) for host in hosts]
    await wait_until(lambda: len(server.lookups) == len(hosts))

    assert (await names.resolve("shared.example", account="a")).error
    # A busy machine may take long for a lookup.
    monkeypatch.setattr(module, "_LOOKUP_LIMIT_S", 10.0)
    assert (await names.resolve("shared.example", account="b")).addresses
    await asyncio.wait(hanging)


async def test_a_failure_is_kept_for_a_moment(
    names: Names, server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await names.resolve("a.gone", account="a")).error == "no such name"
    assert (await names.resolve("a.gone", account="b")).error == "no such name"
    assert len(server.lookups) == 1

    monkeypatch.setattr(module, "_FAILURE_S", 0.0)
    assert (await names.resolve("a.gone", account="a")).error
    assert len(server.lookups) == 2


async def test_addresses_outlive_their_time_while_they_are_looked_up_again(
    names: Names, server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await names.resolve("a.example", account="a")
    monkeypatch.setattr(module, "_USABLE", 1_000_000)
    names._fresh_s = 0.001
    server.broken = True
    await wait_until(lambda: not names._is_fresh(first))

    assert (await names.resolve("a.example", account="a")).addresses == first.addresses
    await wait_until(lambda: len(server.lookups) == 2 and not names._refreshing)
    assert (await names.resolve("a.example", account="a")).addresses == first.addresses, (
        "in spite of a failure"
    )


async def test_the_results_kept_are_bounded(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NAMES", 10)
    for number in range(50):
        await names.resolve(f"{number}.example", account="a")

    assert len(names._known) == 10
    assert (names._quick._taken, names._running) == ({}, {})
