"""Items that wait, served in turn by the account or address that they belong to."""

from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class RoundRobin(Generic[Item]):
    """A queue for each owner; the next item is that of the owner who was served the longest time ago.

    It keeps nothing of an owner without items.
    """

    def __init__(self) -> None:
        # The next owner first.
        self._by_owner: dict[str, deque[Item]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, owner: str, item: Item) -> None:
        waiting = self._by_owner.get(owner)
        if waiting is None:
            waiting = self._by_owner[owner] = deque()
        waiting.append(item)
        self._count += 1

    def pop(self) -> Item:
        """Takes the next item out. Raises StopIteration when there is none."""
        owner = next(iter(self._by_owner))
        waiting = self._by_owner.pop(owner)
        item = waiting.popleft()
        if waiting:
            self._by_owner[owner] = waiting
        self._count -= 1
        return item
