"""An index of `DataFields`: which of many match an event's data.

Each pattern is stored under one of its fields, the one that fewest others share, and is tried only when the
data has a matching value there. A value without a star is one look-up; one with a star is found by its prefix
before the star. What needs a field to exist, or to be missing, is no value: a pattern that has nothing else
is tried with every event.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from shared.model.bindings import Between, DataFields, Equals, Exists, Prefix, Wanted
from shared.model.data_values import DataValues, flatten, glob_matches, texts_in

# A guess at the number of values of a field: a pattern for any value is tried that much more often.
_ANY_VALUE = 100


@dataclass(slots=True, eq=False)
class _Entry:
    """A pattern with its counted owners, and the path and values that it is stored under, if any."""

    pattern: DataFields
    path: str
    values: tuple[str, ...]
    owners: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Node:
    """A node of the tree of paths. Entries by exact value, and by each length of prefix before a star."""

    children: dict[str, "_Node"] = field(default_factory=dict)
    exact: dict[str, set[_Entry]] = field(default_factory=dict)
    starred: dict[int, dict[str, dict[str, set[_Entry]]]] = field(default_factory=dict)

    @property
    def in_use(self) -> bool:
        return bool(self.exact or self.starred)

    def count_near(self, value: str) -> int:
        """How many entries an event is compared with that has this value here."""
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
    same_value = entries.get(value, set())
    same_value.discard(entry)
    if not same_value:
        entries.pop(value, None)


class DataIndex:
    """Owners by their `DataFields`."""

    def __init__(self) -> None:
        self._entries: dict[DataFields, _Entry] = {}
        self._root = _Node()
        self._always: set[_Entry] = set()

    @property
    def empty(self) -> bool:
        return not (self._entries or self._root.children)

    def add(self, pattern: DataFields, owner: str) -> None:
        entry = self._entries.get(pattern)
        if entry is None:
            entry = self._entries[pattern] = self._insert(pattern)
        entry.owners[owner] = entry.owners.get(owner, 0) + 1

    def remove(self, pattern: DataFields, owner: str) -> None:
        """Reverses one `add` of the same pattern and owner."""
        entry = self._entries.get(pattern)
        if entry is None or owner not in entry.owners:
            return
        entry.owners[owner] -= 1
        if not entry.owners[owner]:
            del entry.owners[owner]
        if not entry.owners:
            del self._entries[pattern]
            self._remove(entry)

    def owners(self, value: Any) -> set[str]:
        """The owners of all patterns that match this parsed data."""
        found: set[str] = set()
        data = DataValues(value)
        for entry in self._always | self._candidates(value):
            if entry.pattern.matches(data):
                found.update(entry.owners)
        return found

    def _insert(self, pattern: DataFields) -> _Entry:
        stored = [(path, _stored(values)) for path, values in pattern.wanted if not _needs_no_value(values)]
        if not stored:
            entry = _Entry(pattern, "", ())
            self._always.add(entry)
            return entry
        entry = _Entry(pattern, *min(stored, key=lambda each: self._cost(*each)))
        node = self._root
        for word in entry.path.split("."):
            node = node.children.setdefault(word, _Node())
        for value in entry.values:
            node.put(value, entry)
        return entry

    def _remove(self, entry: _Entry) -> None:
        if not entry.values:
            self._always.discard(entry)
            return
        *parents, node = self._nodes(entry.path)
        for value in entry.values:
            node.drop(value, entry)
        for word in reversed(entry.path.split(".")):
            if node.in_use or node.children:
                break
            node = parents.pop()
            del node.children[word]

    def _cost(self, path: str, values: tuple[str, ...]) -> tuple[int, bool, bool]:
        """The cost of storing a pattern under this field. A leading star is tried with every value."""
        nodes = self._nodes(path)
        near = sum(nodes[-1].count_near(value) for value in values) if len(nodes) > path.count(".") + 1 else 0
        any_value = any(value.startswith("*") for value in values)
        return near * (_ANY_VALUE if any_value else 1), any_value, any("*" in value for value in values)

    def _nodes(self, path: str) -> list[_Node]:
        """The existing nodes from the root along the path."""
        nodes = [self._root]
        for word in path.split("."):
            child = nodes[-1].children.get(word)
            if child is None:
                break
            nodes.append(child)
        return nodes

    def _candidates(self, value: Any) -> set[_Entry]:
        """The entries for which the data has a matching value under the path that they are stored under."""
        found: set[_Entry] = set()
        level = [(self._root, [value])]
        while level:
            following: dict[_Node, list[Any]] = {}
            for node, values in level:
                if node.in_use:
                    found.update(self._matching(node, texts_in(values)))
                for item in flatten(values) if node.children else ():
                    # An intersection walks the smaller side, so neither large data nor many patterns are
                    # slow.
                    for word in node.children.keys() & item.keys() if isinstance(item, dict) else ():
                        following.setdefault(node.children[word], []).append(item[word])
            level = list(following.items())
        return found

    def _matching(self, node: _Node, texts: frozenset[str]) -> Iterator[_Entry]:
        for value in node.exact.keys() & texts:
            yield from node.exact[value]
        for length, by_prefix in node.starred.items():
            for text in texts:
                for value, entries in by_prefix.get(text[:length], {}).items():
                    if glob_matches(value, text):
                        yield from entries


def _needs_no_value(values: tuple[Wanted, ...]) -> bool:
    """May a field match without a value: null, an object, or missing?"""
    return any(isinstance(value, Exists) for value in values)


def _stored(values: tuple[Wanted, ...]) -> tuple[str, ...]:
    """Patterns with stars that every matching text matches. Others may match too: candidates are tried."""
    found = []
    for value in values:
        match value:
            case str():
                found.append(value)
            case Equals(text):
                found.append(text)
            case Prefix(text):
                found.append(text + "*")
            case Between():
                found.append("*")
            case Exists():
                raise AssertionError("such a field is not stored")
    return tuple(dict.fromkeys(found))
