"""Which of many `Fields` patterns match an event, by walking a tree instead of asking each.

Patterns that ask for the same fields of the same topic share a tree: a level for each field, where an exact
value is one look-up, and a prefix one look-up for each length of prefix in use.
"""

from collections.abc import Mapping

from shared.model.bindings import Fields


class _Node:
    __slots__ = ("exact", "owners", "prefixes")

    def __init__(self) -> None:
        self.exact: dict[str, _Node] = {}
        self.prefixes: dict[int, dict[str, _Node]] = {}
        self.owners: set[str] = set()

    def below(self, pattern: str) -> "_Node":
        """The node for a pattern, made if it is not there."""
        if not pattern.endswith("*"):
            return self.exact.setdefault(pattern, _Node())
        prefix = pattern[:-1]
        return self.prefixes.setdefault(len(prefix), {}).setdefault(prefix, _Node())


class Index:
    """Owners by their patterns."""

    def __init__(self) -> None:
        self._trees: dict[tuple[str, tuple[str, ...]], _Node] = {}

    def add(self, pattern: Fields, owner: str) -> None:
        names = tuple(name for name, _ in pattern.wanted)
        level = [self._trees.setdefault((pattern.topic, names), _Node())]
        for _, alternatives in pattern.wanted:
            level = [node.below(alternative) for node in level for alternative in alternatives]
        for node in level:
            node.owners.add(owner)

    def owners(self, topic: str, fields: Mapping[str, str]) -> set[str]:
        """The owners of all patterns that match."""
        found: set[str] = set()
        for (wanted_topic, names), root in self._trees.items():
            if wanted_topic == topic:
                _walk(root, [fields.get(name, "") for name in names], 0, found)
        return found


def _walk(node: _Node, values: list[str], depth: int, found: set[str]) -> None:
    if depth == len(values):
        found |= node.owners
        return
    value = values[depth]
    exact = node.exact.get(value)
    if exact is not None:
        _walk(exact, values, depth + 1, found)
    for length, table in node.prefixes.items():
        prefixed = table.get(value[:length]) if len(value) >= length else None
        if prefixed is not None:
            _walk(prefixed, values, depth + 1, found)
