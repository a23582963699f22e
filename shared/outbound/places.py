"""Places that accounts share: a bounded number, so many for one account at most, and the next in turns."""

import asyncio
from collections import OrderedDict

Asked = asyncio.Future[None]


class FairPlaces:
    """`limit` places, at most `per_account` of them for one account.

    While places are scarce, the waiting accounts get them in turns, so an account that asks for many waits
    behind itself. Every operation takes the same time, however many wait.
    """

    def __init__(self, limit: int, *, per_account: int) -> None:
        self._free = limit
        self._per_account = per_account
        self._taken: dict[str, int] = {}
        # Those of each account, first come first.
        self._waiting: dict[str, OrderedDict[Asked, None]] = {}
        # The accounts that wait and have fewer than `per_account`, in their order of turns.
        self._turns: OrderedDict[str, None] = OrderedDict()

    def take_now(self, account: str) -> bool:
        """Takes a place if one is free for the account."""
        taken = self._taken.get(account, 0)
        if not self._free or taken >= self._per_account:
            return False
        self._taken[account] = taken + 1
        self._free -= 1
        return True

    def ask(self, account: str) -> Asked:
        """Asks for a place: it is taken once the future is done. End it with `give_back` or `give_up`."""
        asked = asyncio.get_running_loop().create_future()
        if self.take_now(account):
            asked.set_result(None)
            return asked
        self._waiting.setdefault(account, OrderedDict())[asked] = None
        if not self.has_share(account):
            self._turns.setdefault(account)
        return asked

    async def take(self, account: str) -> None:
        """Waits for a place and takes it."""
        asked = self.ask(account)
        try:
            await asked
        except asyncio.CancelledError:
            self.give_up(account, asked)
            raise

    def give_back(self, account: str) -> None:
        """Gives a place back, to the next that waits."""
        self._free += 1
        taken = self._taken.pop(account) - 1
        if taken:
            self._taken[account] = taken
        if not self._waiting:
            return
        if account in self._waiting:
            self._turns.setdefault(account)
        self._hand_out()

    def give_up(self, account: str, asked: Asked) -> None:
        """Ends what `ask` began, whether the place is taken or not."""
        waiting = self._waiting.get(account)
        if waiting is None or asked not in waiting:
            self.give_back(account)
            return
        del waiting[asked]
        asked.cancel()
        if not waiting:
            del self._waiting[account]
            self._turns.pop(account, None)

    def waiting(self, account: str) -> int:
        """How many of the account's wait."""
        return len(self._waiting.get(account, ()))

    def has_share(self, account: str) -> bool:
        """The account has all that it may have."""
        return self._taken.get(account, 0) >= self._per_account

    def _hand_out(self) -> None:
        while self._free and self._turns:
            account, _ = self._turns.popitem(last=False)
            waiting = self._waiting[account]
            asked, _ = waiting.popitem(last=False)
            self._taken[account] = self._taken.get(account, 0) + 1
            self._free -= 1
            if not asked.done():
                asked.set_result(None)
            if not waiting:
                del self._waiting[account]
            elif not self.has_share(account):
                self._turns[account] = None
