"""How often strangers may connect and may fail to authenticate, per address, in memory that never grows.

Each rate is a table of fixed size: a time in each slot, and no record per address. Two slots, chosen by a
keyed hash, stand for an address, which is over its rate when both say so. Nothing is evicted from such a
table, so no address escapes it that way. Nor can it be filled: a process handles some thousand requests a
second, and they keep few of the slots over a rate.

Only failures count, so a valid credential never uses up its address. An address that is over its rate is
refused before Redis is asked, except with a credential that was valid here before: a customer stays served
beside a stranger behind the same NAT.
"""

import math
import os
import time
from array import array
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import TypeVar

from starlette.types import Scope

from shared import telemetry
from shared.runtime.http.client_address import block_of, client_address
from shared.runtime.http.responses import Problem
from shared.runtime.settings import Settings

Found = TypeVar("Found")

# A row takes 512 KiB.
_SLOTS = 2**16
_ROUNDING_S = 1e-6
# While too many addresses fail together.
_SUSPENDED_S = 10.0


class RateTable:
    """So many events a second per address, after a burst: the time when the events so far would be over."""

    def __init__(self, *, per_s: float, burst: int) -> None:
        self._key = os.urandom(16)
        self._interval_s = 1 / per_s
        self._burst_s = burst / per_s
        self._until_s = array("d", bytes(2 * _SLOTS * 8))

    def wait_s(self, address: str, *, now_s: float) -> float:
        """How long the address has to wait for its next event; 0 for not at all."""
        first, second = self._slots(address)
        until_s = min(self._until_s[first], self._until_s[second])
        wait_s = until_s + self._interval_s - self._burst_s - now_s
        return wait_s if wait_s > _ROUNDING_S else 0.0

    def charge(self, address: str, *, now_s: float) -> None:
        """One event has happened."""
        first, second = self._slots(address)
        until_s = min(self._until_s[first], self._until_s[second])
        # Events that come beyond the burst must not make the wait longer.
        self._raise(first, second, min(max(until_s, now_s) + self._interval_s, now_s + self._burst_s))

    def give_back(self, address: str, *, now_s: float) -> None:
        """One event does not count after all."""
        for slot in self._slots(address):
            self._until_s[slot] = max(now_s, self._until_s[slot] - self._interval_s)

    def suspend(self, address: str, *, for_s: float, now_s: float) -> None:
        """The next event may come after this time."""
        self._raise(*self._slots(address), now_s + self._burst_s - self._interval_s + for_s)

    def _raise(self, first: int, second: int, until_s: float) -> None:
        self._until_s[first] = max(self._until_s[first], until_s)
        self._until_s[second] = max(self._until_s[second], until_s)

    def _slots(self, address: str) -> tuple[int, int]:
        digest = int.from_bytes(blake2b(address.encode(), digest_size=4, key=self._key).digest())
        return digest % _SLOTS, _SLOTS + digest // _SLOTS


class KnownCredentials:
    """Which credentials were valid here before: a keyed hash in a slot each, which another may replace."""

    def __init__(self) -> None:
        self._key = os.urandom(16)
        self._marks = array("Q", bytes(_SLOTS * 8))

    def __contains__(self, given: str) -> bool:
        mark = self._mark(given)
        return self._marks[mark % _SLOTS] == mark

    def add(self, given: str) -> None:
        mark = self._mark(given)
        self._marks[mark % _SLOTS] = mark

    def discard(self, given: str) -> None:
        if given in self:
            self._marks[self._mark(given) % _SLOTS] = 0

    def _mark(self, given: str) -> int:
        # With the key a stranger cannot find a text with the mark of a valid credential.
        mark = blake2b(given.encode(errors="replace"), digest_size=8, key=self._key).digest()
        return int.from_bytes(mark) or 1


class StrangerLimits:
    """The limits of one service. An address is an IPv4 address or an IPv6 /64, behind trusted proxies."""

    def __init__(self, settings: Settings, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._trusted = settings.trusted_proxies
        self._now_s = now_s
        self._known = KnownCredentials()
        self._handshakes = RateTable(
            per_s=settings.handshake_rate_per_address, burst=settings.handshake_burst_per_address
        )
        self._failures = RateTable(
            per_s=settings.failed_authentication_rate_per_address,
            burst=settings.failed_authentication_burst_per_address,
        )
        # Of all addresses together: when the failures so far would be over, at the rate of them all.
        self._failure_s = 1 / settings.failed_authentication_rate
        self._failures_until_s = 0.0

    def client_address(self, scope: Scope) -> str:
        """The client's address, as trusted proxies report it; "" when it is unknown."""
        return client_address(scope, trusted=self._trusted)

    def address_of(self, scope: Scope) -> str:
        """The address by which a request or handshake is counted; "" when it is unknown."""
        return block_of(self.client_address(scope))

    def take_handshake(self, address: str) -> None:
        """Counts a handshake without a credential. Raises Problem (429) when it is one too many."""
        now_s = self._now_s()
        if wait_s := self._handshakes.wait_s(address, now_s=now_s):
            message = "too many handshakes without a credential from this address"
            raise _too_many("handshakes", wait_s, message)
        self._handshakes.charge(address, now_s=now_s)

    def give_back_handshake(self, address: str) -> None:
        """The socket has authenticated: it was a customer's."""
        self._handshakes.give_back(address, now_s=self._now_s())

    async def look_up(
        self, given: str, address: str, find: Callable[[], Awaitable[Found | None]]
    ) -> Found | None:
        """What `find` returns for the credential `given`, which it reads in Redis; None if it is not valid.

        Raises Problem (429) instead when the address has failed too often, and whatever `find` raises.
        """
        if not given:
            # No credential, no read.
            return await find()
        if given not in self._known and (wait_s := self._failures.wait_s(address, now_s=self._now_s())):
            raise _too_many("authentications", wait_s, "too many failed authentications from this address")
        found = await find()
        if found is None:
            self._known.discard(given)
            self._fail(address)
        else:
            self._known.add(given)
        return found

    def _fail(self, address: str) -> None:
        now_s = self._now_s()
        self._failures_until_s = max(self._failures_until_s, now_s) + self._failure_s
        if self._failures_until_s - now_s <= 1:
            self._failures.charge(address, now_s=now_s)
        else:
            # Many addresses together: each has one failure, and those without failures are served.
            self._failures_until_s = now_s + 1
            self._failures.suspend(address, for_s=_SUSPENDED_S, now_s=now_s)


def _too_many(what: str, wait_s: float, message: str) -> Problem:
    telemetry.refusals.add(1, {"reason": what})
    return Problem(429, f"{message}; retry later", headers={"retry-after": str(math.ceil(wait_s))})
