"""What a reader of a topic may expect: every event once, in order, or a word of what is missing and why."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from shared.model.streams import Mark, NotRecovered, Resumed, Retained, Start

HOLE = "a hole that nobody told of"
TWICE = "came twice"
DISORDER = "came out of order"
NOT_FOR_READERS = "is not for readers"
UNTOLD = "was not told of what Redis has lost or purged"
WRONG_REASON = "was told a wrong reason"
WRONG_BEGINNING = "began at a wrong place"


@dataclass
class Record:
    """A published event. `gone` is why it is no longer to be had, `is_lost` that Redis has lost it."""

    number: int
    offset: str
    is_public: bool
    gone: set[NotRecovered] = field(default_factory=set)
    is_lost: bool = False

    @property
    def ms(self) -> int:
        return int(self.offset.partition("-")[0])

    @property
    def is_there(self) -> bool:
        return not self.gone and not self.is_lost


class Log:
    """All events ever published, and the epoch of the stream as it is in Redis now: "" without one."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.epoch = ""
        self.changes = 0
        """How often Redis has lost something, or the stream was purged."""
        self.identity = 0
        """Another after a purge and after a loss of the state; the former one when Redis goes back."""
        self._identities = 0
        self._numbers: dict[str, int] = {}

    def add(self, offset: str, *, is_public: bool) -> Record:
        record = Record(len(self.records) + 1, offset, is_public)
        self.records.append(record)
        self._numbers[offset] = record.number
        return record

    def number_at(self, offset: str) -> int:
        """That of the event there; 0 at the beginning."""
        return self._numbers.get(offset, 0)

    def there(self) -> list[Record]:
        return [record for record in self.records if record.is_there]

    def last_gone(self) -> Record | None:
        """The newest one that is gone, but not lost."""
        return next((each for each in reversed(self.records) if each.gone and not each.is_lost), None)

    def last(self) -> Record | None:
        return next((each for each in reversed(self.records) if not each.is_lost), None)

    def begin_anew(self) -> None:
        self._identities += 1
        self.identity = self._identities

    def lose(self, records: Iterable[Record]) -> None:
        for record in records:
            record.is_lost = True


class Expectation:
    """What one reader has had, and what it must be told."""

    def __init__(self, log: Log, name: str) -> None:
        self._log = log
        self._name = name
        self._seen: set[int] = set()
        # Up to this number it has every event, or was told.
        self._position = 0
        self._told_until = 0
        self._identity = 0
        # That of the event it is behind. Its offset alone may be that of another event by now.
        self._behind = 0
        self.may_be_lost = False
        self.may_be_purged = False

    def is_behind(self, mark: Mark) -> None:
        """It goes on from there."""
        self._behind = self._log.number_at(mark.offset)

    def must_be_told(self, mark: Mark) -> bool:
        """Whether Redis has no such place any more."""
        if mark.epoch == "":
            return False
        number = self._behind
        is_lost = number > 0 and self._log.records[number - 1].is_lost
        return is_lost or self._identity != self._log.identity

    def begins(self, start: Start, resumed: Resumed) -> None:
        assert resumed.reason is None, f"{self._name} {WRONG_BEGINNING}: it has a reason"
        wanted = self._log.last() if start is Start.LATEST else self._log.last_gone()
        self._identity = self._log.identity
        self._position = self._log.number_at(resumed.offset)
        found = 0 if wanted is None else wanted.number
        assert self._position == found, f"{self._name} {WRONG_BEGINNING}: {self._position}, not {found}"

    def resumes(self, mark: Mark, resumed: Resumed, *, must_be_told: bool) -> None:
        """It was told whether something is missing behind the mark."""
        self._identity = self._log.identity
        if resumed.reason is None:
            assert not must_be_told, f"{self._name} {UNTOLD}"
            return
        number, gone = self._behind, self._log.last_gone()
        is_right = {
            NotRecovered.LOST: self.may_be_lost,
            NotRecovered.PURGED: self.may_be_purged and mark.epoch not in ("", self._log.epoch),
        }
        is_gone = gone is not None and number < gone.number and resumed.reason in gone.gone
        assert is_gone or is_right.get(resumed.reason, False), (
            f"{self._name} {WRONG_REASON}: {resumed.reason}"
        )
        self._told_until = len(self._log.records)
        self.may_be_lost = self.may_be_purged = False

    def hears(self, mark: Mark, *, changes: int) -> None:
        """It passes on a live wakeup, which was published after so many changes."""
        if changes == self._log.changes:
            assert not self.must_be_told(mark), f"{self._name} {UNTOLD}"

    def gets(self, events: Iterable[Retained]) -> None:
        for retained in events:
            number = int(retained.event.id)
            assert self._log.records[number - 1].is_public, f"{number} {NOT_FOR_READERS}"
            assert number not in self._seen, f"{number} {TWICE} to {self._name}"
            assert number > max(self._seen, default=0), f"{number} {DISORDER} to {self._name}"
            self._check_hole(number)
            self._seen.add(number)
            self._position = number

    def is_at_end(self) -> None:
        """It has read everything that is there."""
        self._check_hole(len(self._log.records) + 1)

    def _check_hole(self, number: int) -> None:
        between = self._log.records[self._position : number - 1]
        missing = [
            each.number
            for each in between
            if each.is_public and not each.is_lost and each.number > self._told_until
        ]
        assert not missing, f"{HOLE}: {self._name} lacks {missing} before {number}"
