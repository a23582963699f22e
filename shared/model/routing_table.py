"""What a gateway knows of one account's bindings: which channels and sessions receive an event."""

from collections.abc import Callable, Mapping, Set
from typing import Any

from shared.model.account_channels import id_shown
from shared.model.bindings import Fields, Pattern, Source, weight_of
from shared.model.customers import Customers
from shared.model.events import TO_EVERY_CHANNEL, Event
from shared.model.matching import Index
from shared.model.streams import StreamRules
from shared.model.topics import is_system

# Measured: what a table takes in memory, and what a key with a channel and a pattern add at most.
_TABLE_BYTES, _KEY_BYTES, _PATTERN_BYTES = 3400, 600, 1000
# The name and the customer of a native channel.
_NATIVE_BYTES = 500


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
        self._natives: dict[str, tuple[str, str]] = {}
        self._names: dict[str, str] = {}
        self._customers = Customers(parse)
        # While a channel is replaced, an API key briefly has two generations of it here.
        self._channels: dict[str, set[str]] = {}
        self._bindings: dict[str, dict[str, tuple[Pattern, ...]]] = {}
        self._patterns_held = 0
        self.device_type_patterns = 0
        """How many patterns match device types, which a notification does not contain."""
        self.expiring: dict[str, int] = {}
        self.streams: StreamRules | None = None
        """Which topics are retained; None: none is."""

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
        patterns = self._patterns_held + self._customers.patterns
        if self.streams is not None:
            patterns += self.streams.patterns
        return (
            _TABLE_BYTES + _KEY_BYTES * keys + _NATIVE_BYTES * len(self._natives) + _PATTERN_BYTES * patterns
        )

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

    def addressee(self, to: str) -> str | None:
        """The id of the channel that an event is for, by its id as it is shown, its name, or its API key."""
        if to in self.bindings_versions:
            return None if to in self._natives else to
        channel = id_shown(to)
        if channel is not None:
            return channel if channel in self.bindings_versions else None
        return self._names.get(to)

    def channels_for(self, event: Event) -> list[str]:
        """The channels that receive the event, by their ids, which API keys share."""
        if event.to is not None:
            channel = self.addressee(event.to)
            return [channel] if channel is not None and channel in self._channels else []
        if event.customer is not None:
            return self._customers.channels_for(event, event.customer)
        if event.topic in TO_EVERY_CHANNEL:
            return list(self._channels)
        return list(self._channels_index.owners(event.topic, event.fields or {}, event.data))

    @property
    def needs_data(self) -> bool:
        """Whether `sessions_for` needs the event's parsed data."""
        return self._sessions_index.has_data_patterns

    def sessions_for(self, event: Event, data: object) -> Set[str]:
        """The sessions that receive the event. `data` is its parsed data, or None unless `needs_data`."""
        if event.to is not None or event.customer is not None or not self.sessions:
            return set()
        found = self._sessions_index.owners(event.topic, {}, event.data)
        if self.needs_data and not is_system(event.topic):
            found |= self._sessions_index.owners_by_data(data)
        return found

    def listen(self, session_id: str, patterns: tuple[Pattern, ...]) -> None:
        """Replaces the session's patterns; an empty tuple removes the session."""
        before = self.sessions.pop(session_id, ())
        self._patterns_held += weight_of(patterns) - weight_of(before)
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

    def set_native(self, channel: str, *, name: str, customer: str) -> None:
        """The channel is native: it has no API key, but perhaps a name and a customer."""
        self.drop_native(channel)
        self._natives[channel] = (name, customer)
        if name:
            self._names[name] = channel
        if customer and channel in self._channels:
            self._customers.add(customer, channel, self._patterns(channel))

    def is_native(self, channel: str) -> bool:
        return channel in self._natives

    def drop_native(self, channel: str) -> None:
        name, customer = self._natives.pop(channel, ("", ""))
        # Another channel may have got the name in a change that was applied before.
        if name and self._names.get(name) == channel:
            del self._names[name]
        if customer and channel in self._channels:
            self._customers.remove(customer, channel, self._patterns(channel))

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
            if customer := self._customer_of(api_key_id):
                self._customers.add(customer, api_key_id, [])
            self._index(api_key_id, self._patterns(api_key_id), by=1)
        self._channels[api_key_id].add(generation)

    def drop_channel(self, api_key_id: str, generation: str) -> None:
        generations = self._channels.get(api_key_id, set())
        generations.discard(generation)
        if not generations and self._channels.pop(api_key_id, None) is not None:
            self.unconfirmed.discard(api_key_id)
            self._index(api_key_id, self._patterns(api_key_id), by=-1)
            if customer := self._customer_of(api_key_id):
                self._customers.remove(customer, api_key_id, [])

    def bind(self, api_key_id: str, source: Source, patterns: tuple[Pattern, ...]) -> None:
        """Replaces the API key's patterns from one source; the index changes by the difference."""
        by_source = self._bindings.setdefault(api_key_id, {})
        before = dict.fromkeys(by_source.pop(source, ()))
        after = dict.fromkeys(patterns)
        self._patterns_held += weight_of(after) - weight_of(before)
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
        if customer := self._customer_of(api_key_id):
            self._customers.change(customer, api_key_id, patterns, by=by)

    def _customer_of(self, channel: str) -> str:
        return self._natives.get(channel, ("", ""))[1]


def _matches_device_type(pattern: Pattern) -> bool:
    return isinstance(pattern, Fields) and any(name == "ept" for name, _ in pattern.wanted)
