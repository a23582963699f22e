"""What a gateway must know of one account to tell which channels an event goes to."""

from collections.abc import Mapping, Set

from shared.model.bindings import Fields, Pattern, Source
from shared.model.events import TO_EVERY_CHANNEL, Event
from shared.model.matching import Index


class RoutingTable:
    """The API keys, channels and bindings of one account; they follow changes in place.

    `version` is the version that all of it stands for, None while that is in doubt. Whoever works with table
    over several turns of the event loop may see later changes come in, never earlier ones come back.
    """

    def __init__(self) -> None:
        self.version: str | None = None
        self.index = Index()
        self._sessions_index = Index()
        self._sessions: dict[str, tuple[Pattern, ...]] = {}
        self._api_keys: set[str] = set()
        # An API key may for a moment have two generations of its channel here: the newer one stays.
        self._channels: dict[str, set[str]] = {}
        self._bindings: dict[str, dict[str, tuple[Pattern, ...]]] = {}
        self._ask_for_types = 0
        self._expiring: dict[str, int] = {}

    def expire(self, api_key_id: str, at_ms: int | None) -> None:
        """The key's time is over at `at_ms`; None: it has all the time."""
        if at_ms is None:
            self._expiring.pop(api_key_id, None)
        else:
            self._expiring[api_key_id] = at_ms

    def is_expired(self, api_key_id: str, *, now_ms: int) -> bool:
        """Is the key's time over? Its channel stays for a while, but is pending nothing more."""
        return self._expiring.get(api_key_id, now_ms + 1) <= now_ms

    @property
    def api_keys(self) -> Set[str]:
        return self._api_keys

    @property
    def channels(self) -> Set[str]:
        """The API keys that have a channel."""
        return self._channels.keys()

    @property
    def bindings(self) -> Mapping[str, tuple[Pattern, ...]]:
        """What each API key wants, wherever it comes from."""
        return {
            key: tuple(pattern for patterns in by_source.values() for pattern in patterns)
            for key, by_source in self._bindings.items()
        }

    @property
    def look_at_device_types(self) -> bool:
        """Does any channel's binding ask for a device's type, which a notification itself does not tell?"""
        return self._ask_for_types > 0

    def channels_for(self, event: Event) -> list[str]:
        """The API keys whose channels the event is to be queued for, each once."""
        if event.to is not None:
            return [event.to] if event.to in self._channels else []
        if event.topic in TO_EVERY_CHANNEL:
            return list(self._channels)
        return list(self.index.owners(event.topic, event.fields or {}))

    @property
    def nodes_visited(self) -> int:
        """What all look-ups so far have cost, in places of the indexes."""
        return self.index.nodes_visited + self._sessions_index.nodes_visited

    @property
    def look_at_data(self) -> bool:
        """Does any session ask for values in an event's data?"""
        return self._sessions_index.asks_for_data

    def sessions_for(self, event: Event, data: object) -> set[str]:
        """The sessions that the event is for; `data` is what `look_at_data` asks for, parsed, else None."""
        if event.to is not None or not self._sessions:
            return set()
        found = self._sessions_index.owners(event.topic, {})
        return found | self._sessions_index.owners_by_data(data) if self.look_at_data else found

    def listen(self, session_id: str, patterns: tuple[Pattern, ...]) -> None:
        """Replaces what the session asks for; nothing ends it."""
        for pattern in self._sessions.pop(session_id, ()):
            self._sessions_index.remove(pattern, session_id)
        if patterns:
            self._sessions[session_id] = patterns
            for pattern in patterns:
                self._sessions_index.add(pattern, session_id)

    def add_key(self, api_key_id: str) -> None:
        self._api_keys.add(api_key_id)

    def drop_key(self, api_key_id: str) -> None:
        self._api_keys.discard(api_key_id)

    def add_channel(self, api_key_id: str, generation: str) -> None:
        # A key without a channel is pending nothing, so its patterns are not in the index until now.
        if api_key_id not in self._channels:
            self._channels[api_key_id] = set()
            self._index(api_key_id, self._patterns(api_key_id))
        self._channels[api_key_id].add(generation)

    def drop_channel(self, api_key_id: str, generation: str) -> None:
        generations = self._channels.get(api_key_id, set())
        generations.discard(generation)
        if not generations and self._channels.pop(api_key_id, None) is not None:
            self._unindex(api_key_id, self._patterns(api_key_id))

    def bind(self, api_key_id: str, source: Source, patterns: tuple[Pattern, ...]) -> None:
        """Replaces what the API key wants from one source; only the difference touches the index."""
        by_source = self._bindings.setdefault(api_key_id, {})
        before = dict.fromkeys(by_source.pop(source, ()))
        after = dict.fromkeys(patterns)
        if after:
            by_source[source] = tuple(after)
        if not by_source:
            del self._bindings[api_key_id]
        if api_key_id in self._channels:
            self._index(api_key_id, [pattern for pattern in after if pattern not in before])
            self._unindex(api_key_id, [pattern for pattern in before if pattern not in after])

    def _patterns(self, api_key_id: str) -> list[Pattern]:
        by_source = self._bindings.get(api_key_id, {})
        return [pattern for patterns in by_source.values() for pattern in patterns]

    def _index(self, api_key_id: str, patterns: list[Pattern]) -> None:
        for pattern in patterns:
            self.index.add(pattern, api_key_id)
            self._ask_for_types += _asks_for_type(pattern)

    def _unindex(self, api_key_id: str, patterns: list[Pattern]) -> None:
        for pattern in patterns:
            self.index.remove(pattern, api_key_id)
            self._ask_for_types -= _asks_for_type(pattern)


def _asks_for_type(pattern: Pattern) -> bool:
    return isinstance(pattern, Fields) and any(name == "ept" for name, _ in pattern.wanted)
