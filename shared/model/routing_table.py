"""What a gateway knows of one account's bindings: which channels and sessions receive an event."""

from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

from shared.model.bindings import DataFields, Fields, Pattern, Source, TopicWhere
from shared.model.events import TO_EVERY_CHANNEL, Event
from shared.model.matching import Index
from shared.model.topics import is_system

# Measured: what a table takes in memory, and what a key with a channel and a pattern add at most.
_TABLE_BYTES, _KEY_BYTES, _PATTERN_BYTES = 3400, 600, 1000
# Values of conditions that take as much memory as a pattern without any.
_VALUES_OF_A_PATTERN = 2


class RoutingTable:
    """The API keys, channels and bindings of one account, updated in place.

    `version` is None while changes are being applied, and after that was interrupted. A caller that keeps the
    table over several turns of the event loop may see newer changes, never older ones.
    """

    def __init__(self, parse: Callable[[bytes], Any]) -> None:
        """`parse` makes values of an event's data, for bindings with conditions on it."""
        self.version: str | None = None
        self._channels_index = Index(parse)
        self._sessions_index = Index(parse)
        self.sessions: dict[str, tuple[Pattern, ...]] = {}
        self.bindings_versions: dict[str, str] = {}
        """Each API key with the version of its bindings, which its channel must have too."""
        self.unconfirmed: set[str] = set()
        """API keys whose channel may not have that version yet: no append that named it had its reply."""
        # While a channel is replaced, an API key briefly has two generations of it here.
        self._channels: dict[str, set[str]] = {}
        self._bindings: dict[str, dict[str, tuple[Pattern, ...]]] = {}
        self._patterns_held = 0
        self.device_type_patterns = 0
        """How many patterns match device types, which a notification does not contain."""
        self.expiring: dict[str, int] = {}

    def expire(self, api_key_id: str, at_ms: int | None) -> None:
        """Sets when the API key expires; None: never."""
        if at_ms is None:
            self.expiring.pop(api_key_id, None)
        else:
            self.expiring[api_key_id] = at_ms

    def is_expired(self, api_key_id: str, *, now_ms: int) -> bool:
        """Whether the API key has expired: its channel may still exist, but receives nothing more."""
        return self.expiring.get(api_key_id, now_ms + 1) <= now_ms

    @property
    def size_bytes(self) -> int:
        """About how much memory the table takes."""
        keys = max(len(self.bindings_versions), len(self._channels)) + len(self.sessions)
        return _TABLE_BYTES + _KEY_BYTES * keys + _PATTERN_BYTES * self._patterns_held

    @property
    def api_keys(self) -> Set[str]:
        return self.bindings_versions.keys()

    @property
    def channels(self) -> Set[str]:
        """The API keys that have a channel."""
        return self._channels.keys()

    @property
    def bindings(self) -> Mapping[str, tuple[Pattern, ...]]:
        """Each API key's patterns from all sources."""
        return {key: tuple(self._patterns(key)) for key in self._bindings}

    def channels_for(self, event: Event) -> list[str]:
        """The API keys whose channels receive the event."""
        if event.to is not None:
            return [event.to] if event.to in self._channels else []
        if event.topic in TO_EVERY_CHANNEL:
            return list(self._channels)
        return list(self._channels_index.owners(event.topic, event.fields or {}, event.data))

    @property
    def needs_data(self) -> bool:
        """Whether `sessions_for` needs the event's parsed data."""
        return self._sessions_index.has_data_patterns

    def sessions_for(self, event: Event, data: object) -> set[str]:
        """The sessions that receive the event. `data` is its parsed data, or None unless `needs_data`."""
        if event.to is not None or not self.sessions:
            return set()
        found = self._sessions_index.owners(event.topic, {}, event.data)
        if self.needs_data and not is_system(event.topic):
            found |= self._sessions_index.owners_by_data(data)
        return found

    def listen(self, session_id: str, patterns: tuple[Pattern, ...]) -> None:
        """Replaces the session's patterns; an empty tuple removes the session."""
        before = self.sessions.pop(session_id, ())
        self._patterns_held += _weight(patterns) - _weight(before)
        for pattern in before:
            self._sessions_index.remove(pattern, session_id)
        if patterns:
            self.sessions[session_id] = patterns
            for pattern in patterns:
                self._sessions_index.add(pattern, session_id)

    def add_key(self, api_key_id: str, *, bindings_version: str) -> None:
        """Adds the API key, or changes the version of its bindings."""
        self.bindings_versions[api_key_id] = bindings_version
        if api_key_id in self._channels:
            self.unconfirmed.add(api_key_id)

    def confirm(self, api_key_id: str, *, bindings_version: str) -> None:
        """The channel has this version, or is gone: it takes no older one again."""
        if self.bindings_versions.get(api_key_id) == bindings_version:
            self.unconfirmed.discard(api_key_id)

    def drop_key(self, api_key_id: str) -> None:
        self.bindings_versions.pop(api_key_id, None)
        self.unconfirmed.discard(api_key_id)

    def add_channel(self, api_key_id: str, generation: str) -> None:
        if api_key_id in self.bindings_versions:
            self.unconfirmed.add(api_key_id)
        # Without a channel an API key receives nothing, so its patterns enter the index only now.
        if api_key_id not in self._channels:
            self._channels[api_key_id] = set()
            self._index(api_key_id, self._patterns(api_key_id), by=1)
        self._channels[api_key_id].add(generation)

    def drop_channel(self, api_key_id: str, generation: str) -> None:
        generations = self._channels.get(api_key_id, set())
        generations.discard(generation)
        if not generations and self._channels.pop(api_key_id, None) is not None:
            self.unconfirmed.discard(api_key_id)
            self._index(api_key_id, self._patterns(api_key_id), by=-1)

    def bind(self, api_key_id: str, source: Source, patterns: tuple[Pattern, ...]) -> None:
        """Replaces the API key's patterns from one source; the index changes by the difference."""
        by_source = self._bindings.setdefault(api_key_id, {})
        before = dict.fromkeys(by_source.pop(source, ()))
        after = dict.fromkeys(patterns)
        self._patterns_held += _weight(after) - _weight(before)
        if after:
            by_source[source] = tuple(after)
        if not by_source:
            del self._bindings[api_key_id]
        if api_key_id in self._channels:
            self._index(api_key_id, [pattern for pattern in after if pattern not in before], by=1)
            self._index(api_key_id, [pattern for pattern in before if pattern not in after], by=-1)

    def _patterns(self, api_key_id: str) -> list[Pattern]:
        by_source = self._bindings.get(api_key_id, {})
        return [pattern for patterns in by_source.values() for pattern in patterns]

    def _index(self, api_key_id: str, patterns: list[Pattern], *, by: int) -> None:
        update = self._channels_index.add if by > 0 else self._channels_index.remove
        for pattern in patterns:
            update(pattern, api_key_id)
            self.device_type_patterns += by * _matches_device_type(pattern)


def _weight(patterns: Iterable[Pattern]) -> int:
    """How many plain patterns take as much memory: the values of conditions count too."""
    weight = 0
    for pattern in patterns:
        weight += 1
        if isinstance(pattern, DataFields | TopicWhere):
            where = pattern if isinstance(pattern, DataFields) else pattern.where
            weight += sum(len(values) for _, values in where.wanted) // _VALUES_OF_A_PATTERN
    return weight


def _matches_device_type(pattern: Pattern) -> bool:
    return isinstance(pattern, Fields) and any(name == "ept" for name, _ in pattern.wanted)
