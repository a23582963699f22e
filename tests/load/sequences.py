"""Notifications are numbered, and the numbers show what is lost, doubled or out of order.

A *lane* is one publisher's connection with one request under way, so its events for a channel keep their
order, while two lanes have none between them. Each channel has one sequence for each lane, counted from 0.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

Place = tuple[int, int]
"""Channel and lane."""


@dataclass(slots=True)
class Sequence:
    """What one channel has received of one lane. Every number below `next` has come, but for the missing."""

    next: int = 0
    missing: set[int] = field(default_factory=set)
    duplicated: int = 0
    out_of_order: int = 0

    def take(self, number: int) -> bool:
        """Is it here for the first time?"""
        if number == self.next:
            self.next += 1
            return True
        if number > self.next:
            self.missing.update(range(self.next, number))
            self.next = number + 1
            return True
        if number in self.missing:
            self.missing.remove(number)
            self.out_of_order += 1
            return True
        self.duplicated += 1
        return False


@dataclass(frozen=True, slots=True)
class Count:
    """What came of all that was published. `unknown` is what nobody published."""

    published: int = 0
    received: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    unknown: int = 0

    @property
    def passed(self) -> bool:
        """Duplicates are allowed: at least once is what is promised."""
        return not (self.lost or self.out_of_order or self.unknown)

    def since(self, before: "Count") -> "Count":
        """What was added after `before` was counted."""
        earlier = asdict(before)
        return Count(**{name: value - earlier[name] for name, value in asdict(self).items()})


def counted(published: Mapping[Place, int], received: Iterable[tuple[Place, Sequence]]) -> Count:
    """The verdict: `published` says how many were taken for each place, `received` what came there."""
    found = dict(received)
    pending = sum(published.values())
    lost = unknown = 0
    for place, count in published.items():
        sequence = found.get(place, Sequence())
        lost += sum(number < count for number in sequence.missing) + max(0, count - sequence.next)
    for place, sequence in found.items():
        count = published.get(place, 0)
        beyond = max(0, sequence.next - count)
        unknown += beyond - sum(number >= count for number in sequence.missing)
    return Count(
        published=pending,
        received=pending - lost,
        lost=lost,
        duplicated=sum(sequence.duplicated for sequence in found.values()),
        out_of_order=sum(sequence.out_of_order for sequence in found.values()),
        unknown=unknown,
    )
