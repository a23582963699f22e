"""Places that accounts share: a bounded number, so many for one account at most, and the next in turns."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

Asked = asyncio.Future[None]


@dataclass(slots=True)
class _Account:
    """What an account has, and what it waits for, first come first. Forgotten once it has neither."""

    taken: int = 0
    waiting: OrderedDict[Asked, None] = field(default_factory=OrderedDict)


class FairPlaces:
    """`limit` places, at most `per_account` of them for one account.

    While places are scarce, the waiting accounts get them in turns, so an account that asks for many waits
    behind itself. Every operation takes the same time, however many wait.
    """

    def __init__(self, limit: int, *, per_account: int) -> None:
        self._free = limit
        self._per_account = per_account
        self._accounts: dict[str, _Account] = {}
        # The accounts that wait and have fewer than `per_account`, in their order of turns.
        self._turns: OrderedDict[str, None] = OrderedDict()

    def take_now(self, account: str) -> bool:
        """Takes a place if one is free for the account."""
        if not self._free or self.has_share(account):
            return False
        mine = self._accounts.get(account)
        if mine is None:
            self._accounts[account] = mine = _Account()
        mine.taken += 1
        self._free -= 1
        return True

    def ask(self, account: str) -> Asked:
        """Asks for a place: it is taken once the future is done. End it with `give_back` or `give_up`."""
        asked = asyncio.get_running_loop().create_future()
        if self.take_now(account):
            asked.set_result(None)
            return asked
        mine = self._accounts.setdefault(account, _Account())
        mine.waiting[asked] = None
        if mine.taken < self._per_account:
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
        mine = self._accounts[account]
        mine.taken -= 1
        self._free += 1
        if mine.waiting:
            self._turns.setdefault(account)
        else:
            self._forget(account, mine)
        self._hand_out()

    def give_up(self, account: str, asked: Asked) -> None:
        """Ends what `ask` began, whether the place is taken or not."""
        mine = self._accounts[account]
        if asked not in mine.waiting:
            self.give_back(account)
            return
        del mine.waiting[asked]
        asked.cancel()
        self._forget(account, mine)

    def waiting(self, account: str) -> int:
        """How many of the account's wait."""
        mine = self._accounts.get(account)
        return 0 if mine is None else len(mine.waiting)

    def has_share(self, account: str) -> bool:
        """The account has all that it may have."""
        mine = self._accounts.get(account)
        return mine is not None and mine.taken >= self._per_account

    def _hand_out(self) -> None:
        while self._free and self._turns:
            account, _ = self._turns.popitem(last=False)
            mine = self._accounts[account]
            asked, _ = mine.waiting.popitem(last=False)
            mine.taken += 1
            self._free -= 1
            if not asked.done():
                asked.set_result(None)
            if mine.waiting and mine.taken < self._per_account:
                self._turns[account] = None

    def _forget(self, account: str, mine: _Account) -> None:
        if not mine.waiting:
            self._turns.pop(account, None)
            if not mine.taken:
                del self._accounts[account]
