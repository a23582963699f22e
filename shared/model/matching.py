"""An index of patterns: which of many match an event, without trying each.

Topics share a trie, one level per word. `Fields` with the same topic and field names share a tree, one level
per field: an exact value is one look-up, prefixes are one look-up per prefix length in use. `DataFields` have
an index of their own. The cost of a look-up grows with the matches, hardly with the other patterns.

Publishers send the same topics again and again, so what a topic alone has found is remembered until the index
changes.
"""

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from shared.model.bindings import DataFields, Fields, Pattern, Topic, TopicWhere
from shared.model.data_matching import DataIndex
from shared.model.events import OF_DEVICES
from shared.model.topics import ANY, DOT, ONE, SYSTEM

# Of all indexes of the process, about 500 bytes each.
_MOST_REMEMBERED = 4096
_MOST_OWNERS = 16
_remembered: dict[tuple[int, str], frozenset[str]] = {}
# Each state of each index has a number of its own, but 0 is the one of all that are empty.
_editions = count(1)


@dataclass(slots=True, eq=False)
class _Node:
    """A node of a trie or tree. Owners are counted: one owner may have several patterns that end here."""

    exact: dict[str, "_Node"] = field(default_factory=dict)
    prefixes: dict[int, dict[str, "_Node"]] = field(default_factory=dict)
    owners: dict[str, int] = field(default_factory=dict)
    where: DataIndex | None = None
    """Owners whose patterns end here and have conditions."""

    @property
    def empty(self) -> bool:
        return not (self.exact or self.prefixes or self.owners or self.where)


class Index:
    """Owners by their patterns. `parse` makes values of an event's data, for patterns with conditions."""

    def __init__(self, parse: Callable[[bytes], Any]) -> None:
        self._parse = parse
        self._topics = _Node()
        self._trees: dict[str, dict[tuple[str, ...], _Node]] = {}
        self._data = DataIndex()
        self._edition = 0

    @property
    def is_empty(self) -> bool:
        return self._topics.empty and not self._trees and self._data.empty

    @property
    def has_data_patterns(self) -> bool:
        """Whether a look-up needs the event's parsed data."""
        return not self._data.empty

    def add(self, pattern: Pattern, owner: str) -> None:
        self._update(pattern, owner, by=1)

    def remove(self, pattern: Pattern, owner: str) -> None:
        """Reverses one `add` of the same pattern and owner; removes empty nodes."""
        self._update(pattern, owner, by=-1)

    def _update(self, pattern: Pattern, owner: str, *, by: int) -> None:
        self._change(pattern, owner, by=by)
        self._edition = 0 if self.is_empty else next(_editions)

    def _change(self, pattern: Pattern, owner: str, *, by: int) -> None:
        match pattern:
            case Topic():
                _change(self._topics, _levels_of(pattern.pattern), owner, by=by)
            case TopicWhere():
                _change(self._topics, _levels_of(pattern.pattern), owner, by=by, where=pattern.where)
            case Fields():
                trees = self._trees.setdefault(pattern.topic, {})
                names = tuple(name for name, _ in pattern.wanted)
                root = trees.setdefault(names, _Node())
                levels: _Levels = tuple(tuple(map(_step, patterns)) for _, patterns in pattern.wanted)
                _change(root, levels, owner, by=by)
                if root.empty:
                    del trees[names]
                if not trees:
                    del self._trees[pattern.topic]
            case DataFields():
                (self._data.add if by > 0 else self._data.remove)(pattern, owner)

    def owners_by_data(self, value: Any) -> set[str]:
        """The owners of all `DataFields` that match this parsed data."""
        return self._data.owners(value)

    def owners(self, topic: str, fields: Mapping[str, str], data: bytes = b"") -> Set[str]:
        """The owners of all other patterns that match. Parses the event's data only if one has conditions."""
        remembered = _remembered.get((self._edition, topic))
        if remembered is not None:
            return remembered
        found: set[str] = set()
        where = []
        is_of_devices = topic.startswith(OF_DEVICES)
        if not is_of_devices:
            for node in self._topic_nodes(topic.split(DOT)):
                found.update(node.owners)
                if node.where is not None:
                    where.append(node.where)
            if where:
                value = self._parse(data)
                found.update(*(each.owners(value) for each in where))
        trees = self._trees.get(topic)
        if trees is not None:
            for names, root in trees.items():
                values = [fields.get(name, "") for name in names]
                for node in _field_nodes(root, values):
                    found.update(node.owners)
        elif not (where or is_of_devices) and len(found) <= _MOST_OWNERS:
            self._remember(topic, found)
        return found

    def _remember(self, topic: str, found: set[str]) -> None:
        if len(_remembered) >= _MOST_REMEMBERED:
            _remembered.clear()
        _remembered[self._edition, topic] = frozenset(found)

    def _topic_nodes(self, words: list[str]) -> Iterable[_Node]:
        """All nodes that match the words. Each step keeps a node once: many `#` do not multiply the work."""
        # Each node with whether a `#` led to it, which may match further words.
        nodes: dict[_Node, bool] = {}
        if words[0] == SYSTEM:
            # Wildcards never match our own topics in place of the first word.
            first = self._topics.exact.get(SYSTEM)
            if first is None:
                return ()
            _enter(first, nodes, by_any=False)
            words = words[1:]
        else:
            _enter(self._topics, nodes, by_any=False)
        for word in words:
            following: dict[_Node, bool] = {}
            for node, by_any in nodes.items():
                if by_any:
                    _enter(node, following, by_any=True)
                for step in (word, ONE):
                    child = node.exact.get(step)
                    # `#` in a topic is a word like any other, which no pattern names.
                    if child is not None and step != ANY:
                        if ANY in child.exact:
                            _enter(child, following, by_any=False)
                        else:
                            following.setdefault(child, False)
            nodes = following
        return nodes


def _field_nodes(root: _Node, values: list[str]) -> list[_Node]:
    """All nodes that match the values, level by level."""
    nodes = [root]
    for value in values:
        following: list[_Node] = []
        for node in nodes:
            exact = node.exact.get(value)
            if exact is not None:
                following.append(exact)
            for length, table in node.prefixes.items():
                prefixed = table.get(value[:length]) if len(value) >= length else None
                if prefixed is not None:
                    following.append(prefixed)
        nodes = following
    return nodes


def _enter(node: _Node, nodes: dict[_Node, bool], *, by_any: bool) -> None:
    """Adds the node, and those after every `#` that follows it and matches no word."""
    if node in nodes:
        return
    nodes[node] = by_any
    after_any = node.exact.get(ANY)
    if after_any is not None:
        _enter(after_any, nodes, by_any=True)


_Levels = tuple[tuple[tuple[str, int | None], ...], ...]
"""For each level the steps to the next: an exact word or value, or a prefix and its length."""


def _step(pattern: str) -> tuple[str, int | None]:
    return (pattern[:-1], len(pattern) - 1) if pattern.endswith("*") else (pattern, None)


def _levels_of(pattern: str) -> _Levels:
    return tuple(((word, None),) for word in pattern.split(DOT))


def _change(
    node: _Node, levels: _Levels, owner: str, *, by: int, depth: int = 0, where: DataFields | None = None
) -> None:
    """Changes the owner's count at every node that the levels lead to; adds and removes nodes as needed."""
    if depth == len(levels):
        if where is not None:
            _change_where(node, where, owner, by=by)
            return
        count = node.owners.get(owner, 0) + by
        if count > 0:
            node.owners[owner] = count
        else:
            node.owners.pop(owner, None)
        return
    for text, length in levels[depth]:
        table = node.exact if length is None else node.prefixes.get(length, {})
        child = table.get(text)
        if child is None:
            if by < 0:
                continue
            child = _Node()
            if length is not None:
                table = node.prefixes.setdefault(length, {})
            table[text] = child
        _change(child, levels, owner, by=by, depth=depth + 1, where=where)
        if child.empty:
            del table[text]
            if length is not None and not table:
                del node.prefixes[length]


def _change_where(node: _Node, where: DataFields, owner: str, *, by: int) -> None:
    node.where = node.where or DataIndex()
    (node.where.add if by > 0 else node.where.remove)(where, owner)
    if node.where.empty:
        node.where = None
