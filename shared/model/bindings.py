"""A binding is a pattern held by an API key.

`Fields` asks for values in an event: all named fields must match, each by one of its patterns;
a trailing `*` in a pattern matches any rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fields:
    """AND over fields, OR inside a field. `wanted` is ((field, patterns), ...)."""

    topic: str
    wanted: tuple[tuple[str, tuple[str, ...]], ...]

    def matches(self, topic: str, fields: Mapping[str, str]) -> bool:
        if topic != self.topic:
            return False
        return all(_any_matches(patterns, fields.get(name, "")) for name, patterns in self.wanted)


def _any_matches(patterns: tuple[str, ...], value: str) -> bool:
    return any(
        value.startswith(pattern[:-1]) if pattern.endswith("*") else value == pattern for pattern in patterns
    )
