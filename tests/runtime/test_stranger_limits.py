"""The rates of strangers: exact for one address, of a fixed size for any number, no customer's loss."""

import random
import sys

import pytest

from shared.runtime.http.responses import Problem
from shared.runtime.settings import Settings
from shared.runtime.stranger_limits import KnownCredentials, RateTable, StrangerLimits

HERE, ELSEWHERE = "192.0.2.1", "192.0.2.2"


class Door:
    """A service that looks credentials up, with a clock of the test's own."""

    def __init__(self, **settings: object) -> None:
        self.now_s = 1000.0
        self.reads = 0
        self.valid = {"valid"}
        self.limits = StrangerLimits(Settings.model_validate(settings), now_s=lambda: self.now_s)

    async def try_(self, given: str, address: str = HERE) -> bool:
        async def find() -> str | None:
            self.reads += 1
            return given if given in self.valid else None

        return await self.limits.look_up(given, address, find) is not None

    async def fail(self, count: int, address: str = HERE) -> int:
        """Tries `count` wrong credentials; how many were refused without a read."""
        refused = 0
        for number in range(count):
            try:
                assert not await self.try_(f"wrong-{number}", address)
            except Problem:
                refused += 1
        return refused


async def test_failures_have_a_rate_after_a_burst() -> None:
    door = Door()
    assert await door.fail(150) == 50
    door.now_s += 2.05
    assert await door.fail(50) == 30

    assert door.reads == 120
    with pytest.raises(Problem) as refused:
        await door.try_("wrong")
    assert refused.value.status_code == 429
    assert refused.value.headers == {"retry-after": "1"}


async def test_an_address_recovers_however_often_it_was_refused() -> None:
    door = Door()
    await door.fail(10_000)
    door.now_s += 10
    assert await door.fail(100) == 0


async def test_other_addresses_and_valid_credentials_are_not_affected() -> None:
    door = Door()
    assert await door.try_("valid")
    await door.fail(1000)

    assert await door.try_("valid")
    assert await door.fail(10, ELSEWHERE) == 0
    door.valid.add("new")
    with pytest.raises(Problem):
        await door.try_("new")
    assert await door.try_("new", ELSEWHERE)
    assert await door.try_("new")


async def test_valid_credentials_use_up_nothing() -> None:
    door = Door()
    door.valid |= {f"valid-{number}" for number in range(5000)}
    for number in range(5000):
        assert await door.try_(f"valid-{number}")


async def test_a_credential_that_ended_is_not_known_any_more() -> None:
    door = Door(failed_authentication_burst_per_address=1)
    assert await door.try_("valid")
    door.valid.clear()
    assert not await door.try_("valid")
    with pytest.raises(Problem):
        await door.try_("valid")


async def test_a_request_without_a_credential_is_not_counted() -> None:
    door = Door()
    for _ in range(1000):
        assert not await door.try_("")


async def test_when_many_addresses_fail_together_each_has_one_failure() -> None:
    """Over the rate of all addresses, which otherwise would be 100 reads for each."""
    door = Door()
    assert await door.try_("valid")
    refused = [await door.fail(20, f"10.0.{number // 256}.{number % 256}") for number in range(2000)]

    print(f"2,000 addresses failed 40,000 times at once: {door.reads} reads")
    assert refused[:45] == [0] * 45
    assert refused[100:].count(19) >= 1880, "a few share both slots with others"
    door.now_s += 9.9
    with pytest.raises(Problem):
        await door.try_("wrong", "10.0.7.207")
    door.now_s += 0.2
    assert await door.fail(1, "10.0.7.207") == 0
    # An address without failures is served as before.
    door.valid.add("new")
    assert await door.try_("new", "203.0.113.9")


async def test_handshakes_without_a_credential_have_a_rate_after_a_burst() -> None:
    door = Door()

    def enter(count: int, address: str) -> int:
        entered = 0
        for _ in range(count):
            try:
                door.limits.take_handshake(address)
            except Problem:
                continue
            entered += 1
        return entered

    assert (enter(600, HERE), enter(600, ELSEWHERE)) == (500, 500)
    door.now_s += 2.01
    assert enter(600, HERE) == 100


def test_customers_who_authenticate_after_their_handshakes_use_up_nothing() -> None:
    door = Door()
    for _ in range(5000):
        door.limits.take_handshake(HERE)
        door.limits.give_back_handshake(HERE)

    for _ in range(500):
        door.limits.take_handshake(HERE)
    with pytest.raises(Problem):
        door.limits.take_handshake(HERE)


def test_a_hundred_thousand_addresses_leave_the_table_as_large_as_it_was() -> None:
    table = RateTable(per_s=10, burst=100)
    before = sys.getsizeof(table._until_s)
    now_s = 0.0
    for number in range(100_000):
        # As many failures as a process can handle.
        now_s += 1 / 5000
        table.charge(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", now_s=now_s)

    assert sys.getsizeof(table._until_s) == before < 2**21
    waiting = [table.wait_s(f"192.0.{number // 256}.{number % 256}", now_s=now_s) for number in range(10_000)]
    assert not any(waiting)


@pytest.mark.parametrize("seed", range(5))
def test_attackers_at_full_speed_stop_no_other_address(seed: int) -> None:
    """Each of 400 addresses fails as fast as it may: nearly all the rate of one process."""
    table, by_chance, now_s = RateTable(per_s=10, burst=100), random.Random(seed), 0.0
    for _ in range(200_000):
        now_s += 1 / 5000
        attacker = f"10.0.{by_chance.randrange(2)}.{by_chance.randrange(200)}"
        if not table.wait_s(attacker, now_s=now_s):
            table.charge(attacker, now_s=now_s)

    stopped = sum(table.wait_s(f"192.0.2.{number}", now_s=now_s) > 0 for number in range(256))
    assert stopped == 0


def test_known_credentials_take_a_fixed_size() -> None:
    known = KnownCredentials()
    before = sys.getsizeof(known._marks)
    for number in range(200_000):
        known.add(f"credential-{number}")

    assert sys.getsizeof(known._marks) == before < 2**20
    assert "credential-199999" in known
    assert not any(f"other-{number}" in known for number in range(10_000))


@pytest.mark.parametrize(
    ("client", "forwarded", "counted_as"),
    [
        ("192.0.2.7", "", "192.0.2.7"),
        ("::ffff:192.0.2.7", "", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "", "fe80::/64"),
        ("192.0.2.7", "203.0.113.1", "192.0.2.7"),
        ("10.0.0.1", "203.0.113.1", "203.0.113.1"),
        ("10.0.0.1", "198.51.100.1, 2001:db8:9:9::1", "2001:db8:9:9::/64"),
        ("", "", ""),
    ],
)
def test_addresses_are_counted_by_what_one_client_can_have(
    client: str, forwarded: str, counted_as: str
) -> None:
    limits = StrangerLimits(Settings.model_validate({"trusted_proxies": "10.0.0.0/8"}))
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    assert limits.address_of({"type": "http", "client": (client, 1), "headers": headers}) == counted_as
