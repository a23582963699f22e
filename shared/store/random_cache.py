"""A cache that makes room at random, so that its size is no cliff.

When ten accounts in turn share a cache that has room for nine, one that drops the least recently used finds
none of them. One that drops at random finds four of five, and costs less: nothing is moved when it is read.
"""

import random
from collections.abc import Hashable, ItemsView
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class RandomCache(Generic[K, V]):
    """Values of a total size up to `limit`, in any unit; but always the one that was put last."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: dict[K, V] = {}
        self._sizes: dict[K, int] = {}
        self._places: dict[K, int] = {}
        self._keys: list[K] = []
        self.size = 0
        self.get = self._values.get

    def __len__(self) -> int:
        return len(self._keys)

    def items(self) -> ItemsView[K, V]:
        return self._values.items()

    def put(self, key: K, value: V, *, size: int = 1) -> None:
        """Adds or replaces a value, and drops others until there is room for it."""
        if key in self._places:
            self.size -= self._sizes[key]
        else:
            self._places[key] = len(self._keys)
            self._keys.append(key)
        self._values[key], self._sizes[key] = value, size
        self.size += size
        while self.size > self._limit and len(self._keys) > 1:
            # Any but this one: it moves to the end first.
            self._move_to_end(key)
            self.drop(self._keys[random.randrange(len(self._keys) - 1)])

    def drop(self, key: K) -> None:
        """Removes the value, if it is there."""
        if key not in self._places:
            return
        self._move_to_end(key)
        self._keys.pop()
        del self._places[key], self._values[key]
        self.size -= self._sizes.pop(key)

    def _move_to_end(self, key: K) -> None:
        place, last = self._places[key], self._keys[-1]
        self._keys[place], self._keys[-1] = last, key
        self._places[last], self._places[key] = place, len(self._keys) - 1
