"""What a gateway must know of one account to tell which channels an event goes to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from shared.model.bindings import Fields
from shared.model.events import DEVICE_NOTIFICATIONS, TO_EVERY_CHANNEL, Event
from shared.model.matching import Index


@dataclass(frozen=True)
class Routes:
    """The routes of one account, as of one version.

    `channels` are the API keys that have one; `bindings` maps an API key to its patterns; `expiring` tells
    of some keys when they do, in ms.
    """

    version: str
    api_keys: frozenset[str]
    channels: frozenset[str]
    bindings: Mapping[str, tuple[Fields, ...]]
    expiring: Mapping[str, int] = field(default_factory=dict)

    def is_expired(self, api_key_id: str, *, now_ms: int) -> bool:
        """Is the key's time over? Its channel stays for a while, but is owed nothing more."""
        return self.expiring.get(api_key_id, now_ms + 1) <= now_ms

    def channels_for(self, event: Event) -> list[str]:
        """The API keys whose channels the event is to be queued for."""
        if event.to is not None:
            return [event.to] if event.to in self.channels else []
        if event.topic in TO_EVERY_CHANNEL:
            return list(self.channels)
        if event.topic != DEVICE_NOTIFICATIONS:
            return []
        return list(self._index.owners(event.topic, event.fields or {}))

    @cached_property
    def look_at_device_types(self) -> bool:
        """Does any binding ask for a device's type, which a notification itself does not tell?"""
        return any(
            name == "ept" for patterns in self.bindings.values() for p in patterns for name, _ in p.wanted
        )

    @cached_property
    def _index(self) -> Index:
        index = Index()
        for api_key_id, patterns in self.bindings.items():
            # A key without a channel is owed nothing.
            if api_key_id in self.channels:
                for pattern in patterns:
                    index.add(pattern, api_key_id)
        return index
