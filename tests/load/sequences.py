"""Counts lost, duplicated and out-of-order notifications by their numbers.

A *lane* is one publisher's connection with one request in progress: its events for a channel keep their
order, those of two lanes have none. Each channel has one sequence per lane, numbered from 0.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

SequenceKey = tuple[int, int]
"""Channel and lane."""


@dataclass(slots=True)
class Sequence:
    """What one channel has received of one lane: every number below `next` but the missing."""

    next: int = 0
    missing: set[int] = field(default_factory=set)
    duplicated: int = 0
    out_of_order: int = 0
    told: int = 0
    """Numbers that are missing, which the receiver was told of."""
    is_told: bool = False

    def take(self, number: int) -> bool:
        """Records a number; False if it is a duplicate."""
        if number == self.next:
            self.next += 1
            self.is_told = False
            return True
        if number > self.next:
            if self.is_told:
                self.told += number - self.next
                self.is_told = False
            else:
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
    """The counts of a run. `unknown`: received but never published; `told`: lost, and the receiver knows."""

    published: int = 0
    received: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    unknown: int = 0
    told: int = 0

    @property
    def passed(self) -> bool:
        """Duplicates are allowed: delivery is at least once."""
        return not (self.lost or self.out_of_order or self.unknown)

    def __add__(self, other: "Count") -> "Count":
        """The sum with the count of other notifications."""
        more = asdict(other)
        return Count(**{name: value + more[name] for name, value in asdict(self).items()})

    def since(self, before: "Count") -> "Count":
        """The difference to an earlier count."""
        earlier = asdict(before)
        return Count(**{name: value - earlier[name] for name, value in asdict(self).items()})


def count_all(
    published: Mapping[SequenceKey, int], received: Iterable[tuple[SequenceKey, Sequence]]
) -> Count:
    """Compares the number of accepted events per sequence with what was received."""
    found = dict(received)
    total = sum(published.values())
    lost = unknown = 0
    for key, count in published.items():
        sequence = found.get(key, Sequence())
        lost += sum(number < count for number in sequence.missing) + max(0, count - sequence.next)
    for key, sequence in found.items():
        count = published.get(key, 0)
        beyond = max(0, sequence.next - count)
        unknown += beyond - sum(number >= count for number in sequence.missing)
    told = sum(sequence.told for sequence in found.values())
    return Count(
        published=total,
        received=total - lost - told,
        lost=lost,
        duplicated=sum(sequence.duplicated for sequence in found.values()),
        out_of_order=sum(sequence.out_of_order for sequence in found.values()),
        unknown=unknown,
        told=told,
    )
