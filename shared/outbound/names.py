"""Addresses of host names: looked up once at a time, cached, and with a bound for each account.

A name server that does not respond holds a lookup for many seconds. So the accounts share the lookups fairly.
Names that failed or were slow last time have lookups of their own: they cannot occupy those of the others.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from shared.outbound.places import FairPlaces

Lookup = Callable[[str], Awaitable[list[str]]]

# Each lookup is a thread while it lasts.
_QUICK_LOOKUPS, _QUICK_PER_ACCOUNT = 192, 8
_SLOW_LOOKUPS, _SLOW_PER_ACCOUNT = 64, 4
_SLOW_S = 1.0
# How long a caller waits for a lookup, which may last longer.
_LOOKUP_LIMIT_S = 10.0
# A failure is not repeated for a moment: many webhooks may name the same host.
_FAILURE_S = 1.0
# Addresses that are too old to be fresh may still be used, in this multiple of the time, during a new lookup.
_USABLE = 6
_NAMES = 10_000


@dataclass(frozen=True, slots=True)
class Resolved:
    """The addresses of a name, unvetted, or why there are none. `took_s`: how long the lookup took.

    `at_s`: when that was so; `checked_s`: when the last lookup ended, which may have failed.
    """

    host: str
    addresses: tuple[str, ...] = ()
    error: str = ""
    took_s: float = 0.0
    at_s: float = field(default_factory=time.monotonic)
    checked_s: float = field(default_factory=time.monotonic)

    @property
    def is_slow(self) -> bool:
        return bool(self.error) or self.took_s > _SLOW_S


class Names:
    """Looks names up for accounts. Keeps the last 10,000 results.

    `fresh_s`: how long an address is used before the next lookup.
    """

    def __init__(self, lookup: Lookup, *, fresh_s: float) -> None:
        self._lookup = lookup
        self._fresh_s = fresh_s
        self._known: OrderedDict[str, Resolved] = OrderedDict()
        self._running: dict[str, asyncio.Task[None]] = {}
        # By account too: a lookup may wait for the other lookups of its account.
        self._refreshing: dict[tuple[str, str], asyncio.Task[Resolved]] = {}
        self._quick = FairPlaces(_QUICK_LOOKUPS, per_account=_QUICK_PER_ACCOUNT)
        self._slow = FairPlaces(_SLOW_LOOKUPS, per_account=_SLOW_PER_ACCOUNT)

    async def resolve(self, host: str, *, account: str) -> Resolved:
        """The addresses of `host`, or the error. Waits for a lookup for 10 s at most."""
        known = self._known.get(host)
        if known is not None and self._is_usable(known):
            return self.refresh(known, account=account)
        if known is not None and self._is_fresh(known):
            return known
        try:
            async with asyncio.timeout(_LOOKUP_LIMIT_S):
                return await self._look_up(host, account, is_slow=known is not None and known.is_slow)
        except TimeoutError:
            missed = Resolved(host, error="the name server does not respond", took_s=_LOOKUP_LIMIT_S)
            # Keep nothing of a name whose lookup has not begun: its account has too many others.
            if host in self._running:
                self._keep(missed)
            return missed

    def refresh(self, resolved: Resolved, *, account: str) -> Resolved:
        """The newest addresses, without waiting; begins a lookup if the last one was too long ago."""
        host = resolved.host
        newest = self._known.get(host, resolved)
        is_due = time.monotonic() - newest.checked_s >= self._fresh_s
        if is_due and host not in self._running and (account, host) not in self._refreshing:
            task = asyncio.create_task(self._look_up(host, account, is_slow=newest.is_slow))
            self._refreshing[account, host] = task
            task.add_done_callback(lambda _: self._refreshing.pop((account, host), None))
        return resolved if newest.error else newest

    async def close(self) -> None:
        """Ends all lookups; threads that wait for a name server end by themselves."""
        tasks = {*self._running.values(), *self._refreshing.values()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _is_fresh(self, known: Resolved) -> bool:
        fresh_s = min(_FAILURE_S, self._fresh_s) if known.error else self._fresh_s
        return time.monotonic() - known.checked_s < fresh_s

    def _is_usable(self, known: Resolved) -> bool:
        return not known.error and time.monotonic() - known.at_s < _USABLE * self._fresh_s

    async def _look_up(self, host: str, account: str, *, is_slow: bool) -> Resolved:
        running = self._running.get(host)
        if running is None:
            # A lookup that waits for a place is its account's alone: another account's may begin before.
            places = self._slow if is_slow else self._quick
            await places.take(account)
            known, running = self._known.get(host), self._running.get(host)
            if running is None and known is not None and self._is_fresh(known):
                places.give_back(account)
                return known
            if running is None:
                self._running[host] = running = asyncio.create_task(self._run(host, account, places))
            else:
                places.give_back(account)
        await asyncio.wait([running])
        return self._known.get(host) or Resolved(host, error="the lookup was cut short")

    async def _run(self, host: str, account: str, places: FairPlaces) -> None:
        """The lookup itself. It holds its place for as long as it holds its thread."""
        began_s = time.monotonic()
        error, addresses = "", list[str]()
        try:
            addresses = await self._lookup(host)
            error = "" if addresses else "no address"
        except Exception as exc:
            error = str(exc) or type(exc).__name__
        finally:
            places.give_back(account)
            del self._running[host]
        self._keep(Resolved(host, tuple(addresses), error, time.monotonic() - began_s))

    def _keep(self, resolved: Resolved) -> None:
        known = self._known.get(resolved.host)
        if resolved.error and known is not None and self._is_usable(known):
            # The name server is away: what it said last still counts.
            resolved = replace(known, checked_s=resolved.checked_s)
        self._known[resolved.host] = resolved
        self._known.move_to_end(resolved.host)
        if len(self._known) > _NAMES:
            self._known.popitem(last=False)
