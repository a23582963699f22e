"""Which of many patterns match an event, by walking an index instead of asking each.

Topics share a trie, a level for each word. `Fields` that ask for the same fields of the same topic share a
tree: a level for each field, where an exact value is one look-up, and a prefix one for each length of prefix
in use. `DataFields` have an index of their own. A look-up costs what it finds, hardly what else is there.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from shared.model import topics
from shared.model.bindings import DataFields, Fields, Pattern, Topic
from shared.model.data_matching import DataIndex
from shared.model.events import is_of_a_device


class _Node:
    """A place in a trie or tree. An owner is counted: it may have said the same in several ways."""

    __slots__ = ("exact", "owners", "prefixes")

    def __init__(self) -> None:
        self.exact: dict[str, _Node] = {}
        self.prefixes: dict[int, dict[str, _Node]] = {}
        self.owners: dict[str, int] = {}

    @property
    def empty(self) -> bool:
        return not (self.exact or self.prefixes or self.owners)


class Index:
    """Owners by their patterns. `nodes_visited` counts what all look-ups so far have cost."""

    def __init__(self) -> None:
        self._topics = _Node()
        self._trees: dict[str, dict[tuple[str, ...], _Node]] = {}
        self._data = DataIndex()
        self._visited = 0

    @property
    def nodes_visited(self) -> int:
        return self._visited + self._data.visited

    @property
    def empty(self) -> bool:
        return self._topics.empty and not self._trees and self._data.empty

    @property
    def asks_for_data(self) -> bool:
        """Does any pattern ask for what only the parsed data tells?"""
        return not self._data.empty

    def add(self, pattern: Pattern, owner: str) -> None:
        match pattern:
            case Topic():
                _change(self._topics, _topic_levels(pattern), owner, by=1)
            case Fields():
                trees = self._trees.setdefault(pattern.topic, {})
                root = trees.setdefault(_names(pattern), _Node())
                _change(root, _field_levels(pattern), owner, by=1)
            case DataFields():
                self._data.add(pattern, owner)

    def remove(self, pattern: Pattern, owner: str) -> None:
        """Takes back one `add` of the same pattern and owner; what nobody asks for any more goes."""
        match pattern:
            case Topic():
                _change(self._topics, _topic_levels(pattern), owner, by=-1)
            case Fields():
                trees = self._trees.get(pattern.topic, {})
                names = _names(pattern)
                if names not in trees:
                    return
                _change(trees[names], _field_levels(pattern), owner, by=-1)
                if trees[names].empty:
                    del trees[names]
                if not trees:
                    del self._trees[pattern.topic]
            case DataFields():
                self._data.remove(pattern, owner)

    def owners_by_data(self, value: Any) -> set[str]:
        """The owners of all `DataFields` that match data that was parsed to this value, each once."""
        return self._data.owners(value)

    def owners(self, topic: str, fields: Mapping[str, str]) -> set[str]:
        """The owners of all other patterns that match, each once."""
        found: set[str] = set()
        if not is_of_a_device(topic):
            for node in self._topic_nodes(topics.words(topic)):
                found.update(node.owners)
        for names, root in self._trees.get(topic, {}).items():
            values = [fields.get(name, "") for name in names]
            for node in self._field_nodes(root, values, 0):
                found.update(node.owners)
        return found

    def _topic_nodes(self, words: list[str]) -> Iterable[_Node]:
        """All places where the words may end. Each step holds a place once, so many `#` cost no more."""
        # `here` holds places by whether a `#` led there, which may take up further words.
        here: dict[_Node, bool] = {}
        _arrive(self._topics, here, by_any=False)
        self._visited += len(here)
        for word in words:
            after: dict[_Node, bool] = {}
            for node, by_any in here.items():
                if by_any:
                    _arrive(node, after, by_any=True)
                for step in {word, topics.ONE} - {topics.ANY}:
                    below = node.exact.get(step)
                    if below is not None:
                        _arrive(below, after, by_any=False)
            here = after
            self._visited += len(here)
        return here

    def _field_nodes(self, node: _Node, values: list[str], depth: int) -> Iterator[_Node]:
        self._visited += 1
        if depth == len(values):
            yield node
            return
        value = values[depth]
        exact = node.exact.get(value)
        if exact is not None:
            yield from self._field_nodes(exact, values, depth + 1)
        for length, table in node.prefixes.items():
            prefixed = table.get(value[:length]) if len(value) >= length else None
            if prefixed is not None:
                yield from self._field_nodes(prefixed, values, depth + 1)


def _arrive(node: _Node, places: dict[_Node, bool], *, by_any: bool) -> None:
    """Notes a place, and those behind every `#` that may follow it and take up nothing."""
    if node in places:
        return
    places[node] = by_any
    beyond = node.exact.get(topics.ANY)
    if beyond is not None:
        _arrive(beyond, places, by_any=True)


def _names(pattern: Fields) -> tuple[str, ...]:
    return tuple(name for name, _ in pattern.wanted)


_Levels = tuple[tuple[tuple[str, int | None], ...], ...]
"""For each level the steps that lead on: a word or value, or a prefix and its length."""


def _topic_levels(pattern: Topic) -> _Levels:
    return tuple(((word, None),) for word in topics.words(pattern.pattern))


def _field_levels(pattern: Fields) -> _Levels:
    return tuple(tuple(_step(alternative) for alternative in patterns) for _, patterns in pattern.wanted)


def _step(pattern: str) -> tuple[str, int | None]:
    return (pattern[:-1], len(pattern) - 1) if pattern.endswith("*") else (pattern, None)


def _change(node: _Node, levels: _Levels, owner: str, *, by: int, depth: int = 0) -> None:
    """Counts the owner at every place the levels lead to: makes what is missing, takes away what is empty."""
    if depth == len(levels):
        count = node.owners.get(owner, 0) + by
        if count > 0:
            node.owners[owner] = count
        else:
            node.owners.pop(owner, None)
        return
    for text, length in levels[depth]:
        table = node.exact if length is None else node.prefixes.get(length, {})
        below = table.get(text)
        if below is None:
            if by < 0:
                continue
            below = _Node()
            if length is not None:
                table = node.prefixes.setdefault(length, {})
            table[text] = below
        _change(below, levels, owner, by=by, depth=depth + 1)
        if below.empty:
            del table[text]
            if length is not None and not table:
                del node.prefixes[length]
