"""Which of many `DataFields` match an event's data, at the cost of those that come near it.

Each pattern stands under one of its fields, the one that fewest others share, and is asked only when the data
has a value there that it wants. A value without a star is one look-up, one with a star is found by what
stands before the star.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from shared.model.bindings import DataFields, glob_matches, texts_at, texts_in, unfolded

_EVERYTHING = DataFields(())
# How many values a field may well have: who asks for any of them is met so many times as often.
_ANY_VALUE = 100


class _Entry:
    """A pattern with its owners, each counted, and where it stands: the field and the values wanted there."""

    __slots__ = ("owners", "path", "pattern", "values")

    def __init__(self, pattern: DataFields, path: str, values: tuple[str, ...]) -> None:
        self.pattern = pattern
        self.path = path
        self.values = values
        self.owners: dict[str, int] = {}


class _Place:
    """A place in the tree of paths, and the entries that stand there: by value, and by what is before a star,
    of each length in use."""

    __slots__ = ("below", "exact", "starred")

    def __init__(self) -> None:
        self.below: dict[str, _Place] = {}
        self.exact: dict[str, set[_Entry]] = {}
        self.starred: dict[int, dict[str, dict[str, set[_Entry]]]] = {}

    @property
    def in_use(self) -> bool:
        return bool(self.exact or self.starred)

    def crowd(self, value: str) -> int:
        """How much an event would meet here that has what this value wants."""
        if "*" not in value:
            return len(self.exact.get(value, ()))
        prefix = value.partition("*")[0]
        sharing = self.starred.get(len(prefix), {}).get(prefix, {})
        return len(sharing) + len(sharing.get(value, ()))

    def put(self, value: str, entry: _Entry) -> None:
        if "*" not in value:
            self.exact.setdefault(value, set()).add(entry)
            return
        prefix = value.partition("*")[0]
        sharing = self.starred.setdefault(len(prefix), {}).setdefault(prefix, {})
        sharing.setdefault(value, set()).add(entry)

    def drop(self, value: str, entry: _Entry) -> None:
        if "*" not in value:
            _discard(self.exact, value, entry)
            return
        prefix = value.partition("*")[0]
        by_prefix = self.starred.get(len(prefix), {})
        sharing = by_prefix.get(prefix, {})
        _discard(sharing, value, entry)
        if not sharing:
            by_prefix.pop(prefix, None)
        if not by_prefix:
            self.starred.pop(len(prefix), None)


def _discard(entries: dict[str, set[_Entry]], value: str, entry: _Entry) -> None:
    here = entries.get(value, set())
    here.discard(entry)
    if not here:
        entries.pop(value, None)


class DataIndex:
    """Owners by what they want of data. `visited` counts what all look-ups so far have cost."""

    def __init__(self) -> None:
        self._entries: dict[DataFields, _Entry] = {}
        self._root = _Place()
        self.visited = 0

    @property
    def empty(self) -> bool:
        return not (self._entries or self._root.below)

    def add(self, pattern: DataFields, owner: str) -> None:
        entry = self._entries.get(pattern)
        if entry is None:
            entry = self._entries[pattern] = self._stand(pattern)
        entry.owners[owner] = entry.owners.get(owner, 0) + 1

    def remove(self, pattern: DataFields, owner: str) -> None:
        """Takes back one `add` of the same pattern and owner."""
        entry = self._entries.get(pattern)
        if entry is None or owner not in entry.owners:
            return
        entry.owners[owner] -= 1
        if not entry.owners[owner]:
            del entry.owners[owner]
        if not entry.owners:
            del self._entries[pattern]
            self._leave(entry)

    def owners(self, value: Any) -> set[str]:
        """The owners of all patterns that match data that was parsed to this value, each once."""
        found: set[str] = set()
        if _EVERYTHING in self._entries:
            found.update(self._entries[_EVERYTHING].owners)
        texts = cache(lambda path: texts_at(value, path))
        for entry in self._near(value):
            self.visited += 1
            if entry.pattern.agrees(texts):
                found.update(entry.owners)
        return found

    def _stand(self, pattern: DataFields) -> _Entry:
        if not pattern.wanted:
            return _Entry(pattern, "", ())
        entry = _Entry(pattern, *min(pattern.wanted, key=lambda field: self._burden(*field)))
        place = self._root
        for word in entry.path.split("."):
            place = place.below.setdefault(word, _Place())
        for value in entry.values:
            place.put(value, entry)
        return entry

    def _leave(self, entry: _Entry) -> None:
        if not entry.values:
            return
        *above, place = self._way(entry.path)
        for value in entry.values:
            place.drop(value, entry)
        for word in reversed(entry.path.split(".")):
            if place.in_use or place.below:
                break
            place = above.pop()
            del place.below[word]

    def _burden(self, path: str, values: tuple[str, ...]) -> tuple[int, bool, bool]:
        """What standing under a field would cost. Any value at all leads to what begins with a star."""
        way = self._way(path)
        crowd = sum(way[-1].crowd(value) for value in values) if len(way) > path.count(".") + 1 else 0
        any_value = any(value.startswith("*") for value in values)
        return crowd * (_ANY_VALUE if any_value else 1), any_value, any("*" in value for value in values)

    def _way(self, path: str) -> list[_Place]:
        """The places from the root to the path's, as far as there are any."""
        way = [self._root]
        for word in path.split("."):
            below = way[-1].below.get(word)
            if below is None:
                break
            way.append(below)
        return way

    def _near(self, value: Any) -> set[_Entry]:
        """The entries that the data has a value for, where they stand."""
        near: set[_Entry] = set()
        here = [(self._root, [value])]
        while here:
            after: dict[_Place, list[Any]] = {}
            for place, values in here:
                self.visited += 1
                if place.in_use:
                    near.update(self._wanting(place, texts_in(values)))
                for item in unfolded(values) if place.below else ():
                    # The shorter of the two is walked: neither much data nor many patterns costs by itself.
                    for word in place.below.keys() & item.keys() if isinstance(item, dict) else ():
                        after.setdefault(place.below[word], []).append(item[word])
            here = list(after.items())
        return near

    def _wanting(self, place: _Place, texts: frozenset[str]) -> Iterator[_Entry]:
        for value in place.exact.keys() & texts:
            yield from place.exact[value]
        for length, by_prefix in place.starred.items():
            for text in texts:
                for value, entries in by_prefix.get(text[:length], {}).items():
                    self.visited += 1
                    if glob_matches(value, text):
                        yield from entries
