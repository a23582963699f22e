"""How many sockets and polls an account may hold, over all edges.

Each edge tells Redis its number of each account, once a second while it changes, and learns what the others
hold. Between two reports edges do not know of each other's new connections: so an account may exceed its
quota by what it opens within a second.
"""

import asyncio
import contextlib
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import islice

from services.socket_edge.held import HeldConnection
from shared.model.errors import StoreUnavailable
from shared.model.quotas import Quota
from shared.store.quotas import AccountQuotas

REPORT_S = 1.0
# Redis forgets an edge's number after an hour.
AGAIN_S = 1200.0
_LOT = 200


class _Account:
    """What this edge holds of an account, and what the others held at the last report."""

    __slots__ = ("held", "opening", "others", "quota", "reported", "reported_s", "reporting")

    def __init__(self) -> None:
        self.held = self.opening = 0
        self.reported = 0
        self.reported_s = -AGAIN_S
        self.others = 0
        self.quota = 0
        self.reporting: asyncio.Task[None] | None = None


class SocketQuota:
    """Counts the connections of one edge, account by account. It forgets an account with its last one."""

    def __init__(
        self, quotas: AccountQuotas, *, instance: str, now_s: Callable[[], float] | None = None
    ) -> None:
        self._quotas = quotas
        self._instance = instance
        self._now_s = now_s or (lambda: asyncio.get_running_loop().time())
        # Those reported longest ago first.
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._changed: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    async def admit(self, account_id: str) -> None:
        """Counts a connection of the account that is being opened, until `leave`.

        Raises QuotaExceeded, StoreUnavailable.
        """
        if not await self._has_place(account_id):
            raise self._quotas.exceeded(account_id, Quota.SOCKETS, retry_after_s=REPORT_S)
        self._account(account_id).held += 1

    async def _has_place(self, account_id: str) -> bool:
        account = self._account(account_id)
        # So that it is not forgotten meanwhile.
        account.opening += 1
        try:
            if self._now_s() - account.reported_s >= REPORT_S:
                await self._report(account_id, account)
            return account.held + account.others < account.quota
        finally:
            account.opening -= 1
            self._changed[account_id] = None

    @contextlib.asynccontextmanager
    async def place(self, account_id: str) -> AsyncIterator[None]:
        """`admit`, for a connection that does not count if the block raises."""
        await self.admit(account_id)
        try:
            yield
        except BaseException:
            self.leave(account_id)
            raise

    @contextlib.asynccontextmanager
    async def place_on_channel(
        self, account_id: str, is_connected: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[None]:
        """The same on a channel. If its present connection is to be replaced, there is always a place.

        A client whose connection broke gets in again before its edge has noticed.
        """
        if await self._has_place(account_id) or await is_connected():
            self._account(account_id).held += 1
        else:
            await self.admit(account_id)
        try:
            yield
        except BaseException:
            self.leave(account_id)
            raise

    def leave(self, account_id: str) -> None:
        """The connection has ended."""
        self._accounts[account_id].held -= 1
        self._changed[account_id] = None

    def release(self, connection: HeldConnection) -> None:
        """The edge no longer holds the connection."""
        if (account_id := connection.counted_for) is not None:
            connection.counted_for = None
            self.leave(account_id)

    async def run(self) -> None:
        """Reports what has changed, once a second."""
        while True:
            await asyncio.sleep(REPORT_S)
            with contextlib.suppress(StoreUnavailable):
                await self.report_changes()

    async def report_changes(self) -> None:
        """Reports what has changed, and what was reported too long ago. Raises StoreUnavailable."""
        now_s = self._now_s()
        due = [each for each in self._changed if now_s - self._accounts[each].reported_s >= REPORT_S]
        # The longest ago are the first.
        for account_id, account in self._accounts.items():
            if now_s - account.reported_s < AGAIN_S:
                break
            if account_id not in self._changed:
                due.append(account_id)
        left = iter(due)
        while lot := list(islice(left, _LOT)):
            await asyncio.gather(*(self._report(each, self._accounts[each]) for each in lot))

    def report_all_again(self) -> None:
        """Redis may have lost reports, or has those of an older copy: the next report has every account."""
        for account in self._accounts.values():
            account.reported_s = -math.inf

    def _account(self, account_id: str) -> _Account:
        account = self._accounts.get(account_id)
        if account is None:
            account = self._accounts[account_id] = _Account()
            self._accounts.move_to_end(account_id, last=False)
        return account

    async def _report(self, account_id: str, account: _Account) -> None:
        """One report at a time: who comes meanwhile waits for it."""
        if account.reporting is None:
            account.reporting = asyncio.create_task(self._report_now(account_id, account))
        await asyncio.shield(account.reporting)

    async def _report_now(self, account_id: str, account: _Account) -> None:
        try:
            held = account.held
            known = await self._quotas.report_sockets(account_id, self._instance, count=held)
            others = dict(known.others)
            if others and held + sum(others.values()) >= known.quota:
                # The sockets of an edge that was killed must not count.
                living = await self._quotas.living(others)
                if dead := others.keys() - living:
                    await self._quotas.forget_sockets(account_id, dead)
                others = {name: others[name] for name in living}
            account.others, account.quota = sum(others.values()), known.quota
            account.reported, account.reported_s = held, self._now_s()
        finally:
            account.reporting = None
        if self._accounts.get(account_id) is not account:
            return
        if account.held == account.reported and not account.opening:
            self._changed.pop(account_id, None)
        if account.held or account.reported or account.opening:
            self._accounts.move_to_end(account_id)
        else:
            del self._accounts[account_id]
