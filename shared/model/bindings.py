"""A binding is a pattern held by an API key; a route tells which channels an event goes to.

`Fields` asks for values in an event: all named fields must match, each by one of its patterns;
a trailing `*` in a pattern matches any rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.model.events import DEVICE_NOTIFICATIONS, TO_EVERY_CHANNEL, Event


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


@dataclass(frozen=True, slots=True)
class Routes:
    """Everything a gateway needs to know of one account to route its events, as of one version.

    `channels` maps an API key to the incarnation of its channel; `bindings` an API key to its patterns.
    """

    version: str
    api_keys: frozenset[str]
    channels: Mapping[str, str]
    bindings: Mapping[str, tuple[Fields, ...]]

    def channels_for(self, event: Event) -> list[str]:
        """The API keys whose channels the event is to be queued for."""
        if event.to is not None:
            return [event.to] if event.to in self.channels else []
        if event.topic in TO_EVERY_CHANNEL:
            return list(self.channels)
        if event.topic != DEVICE_NOTIFICATIONS:
            return []
        fields = event.fields or {}
        return [
            api_key_id
            for api_key_id, patterns in self.bindings.items()
            if api_key_id in self.channels and any(p.matches(event.topic, fields) for p in patterns)
        ]

    @property
    def look_at_device_types(self) -> bool:
        """Does any binding ask for a device's type, which a notification itself does not tell?"""
        return any(
            name == "ept" for patterns in self.bindings.values() for p in patterns for name, _ in p.wanted
        )
