"""The channels of an account by their customers: which of them receive an event for one customer.

All customers share one index: the customer is the first word of each pattern and of each topic. So the cost
of a look-up grows with the matches, not with the channels of the account, nor with those of the customer.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from shared.model.bindings import Pattern, Topic, TopicWhere, weight_of
from shared.model.events import OF_DEVICES, TO_EVERY_CHANNEL, Event
from shared.model.matching import Index
from shared.model.topics import DOT, is_system


class Customers:
    """Channels with a customer, and their patterns."""

    def __init__(self, parse: Callable[[bytes], Any]) -> None:
        self._index = Index(parse)
        self._channels: dict[str, dict[str, None]] = {}
        self.patterns = 0
        """How many plain patterns take as much memory as those that it holds."""

    def add(self, customer: str, channel: str, patterns: Iterable[Pattern]) -> None:
        self._channels.setdefault(customer, {})[channel] = None
        self.change(customer, channel, patterns, by=1)

    def remove(self, customer: str, channel: str, patterns: Iterable[Pattern]) -> None:
        self.change(customer, channel, patterns, by=-1)
        channels = self._channels.get(customer, {})
        channels.pop(channel, None)
        if not channels:
            self._channels.pop(customer, None)

    def change(self, customer: str, channel: str, patterns: Iterable[Pattern], *, by: int) -> None:
        """Adds patterns of a channel, or removes them (-1)."""
        update = self._index.add if by > 0 else self._index.remove
        for pattern in patterns:
            # Native channels have bindings by topics alone.
            if isinstance(pattern, Topic | TopicWhere):
                update(replace(pattern, pattern=_of(customer, pattern.pattern)), channel)
                self.patterns += by * weight_of([pattern])

    def channels_for(self, event: Event, customer: str) -> list[str]:
        """The customer's channels that receive the event."""
        if customer not in self._channels:
            return []
        if event.topic in TO_EVERY_CHANNEL:
            return list(self._channels[customer])
        # Behind the customer's word the index would take these for any other topics.
        if event.topic.startswith(OF_DEVICES) or is_system(event.topic):
            return []
        return list(self._index.owners(_of(customer, event.topic), {}, event.data))


def _of(customer: str, topic: str) -> str:
    """A topic or pattern of one customer. No customer's word is another one's, a wildcard, or ours."""
    return "\0" + customer.replace(DOT, "\0") + DOT + topic
