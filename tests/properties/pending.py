"""The model: in plain Python, what each channel is still pending, who owns it, and which keys live.

It is told of each thing at the moment at which Redis did it, and says whether that was right. What was wrong
is kept in `faults`, since an assertion inside a task of the engine would be taken for one of its own.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass(eq=False)
class Channel:
    """One generation of a key's channel. Notifications are numbers, in the order in which they are made."""

    since_ms: int
    log: list[int] = field(default_factory=list)
    queue: list[int] = field(default_factory=list)
    seen: int = 0
    """How many of the log the client has been sent, on whatever socket."""
    owner: str = ""


@dataclass(eq=False)
class Reader:
    """One socket as its client sees it: what came, and how much of that its pongs have told of."""

    key: "Key"
    channel: Channel
    owner: str
    received: list[int] = field(default_factory=list)
    acked_until: int = 0


@dataclass(eq=False)
class Key:
    """An API key."""

    id: str
    revoked: bool = False
    channel: Channel | None = None


class Pending:
    """All keys, and every fault there was."""

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}
        self.faults: list[str] = []
        self._last_seen_ms: dict[str, int] = {}
        self._live: set[str] = set()
        self._readers: dict[str, Reader] = {}
        self._inline: set[tuple[str, int]] = set()

    def must(self, right: object, fault: str) -> None:
        if not right:
            self.faults.append(fault)

    # What happens to a channel

    def registered(self, key: Key, *, now_ms: int, made: bool) -> None:
        self.must(not key.revoked, "a channel was made for a revoked key")
        self.must(made == (key.channel is None), f"register said made={made}")
        if key.channel is None:
            key.channel = Channel(since_ms=now_ms)

    def deleted(self, key: Key, *, was_there: bool) -> None:
        self.must(was_there == (key.channel is not None), f"delete said was_there={was_there}")
        key.channel = None

    def revoked(self, key: Key) -> None:
        key.revoked, key.channel = True, None

    def appended(self, key_id: str, numbers: list[int], *, queued: bool) -> None:
        key = self.keys[key_id]
        self.must(not (queued and key.revoked), "something was queued after the key was revoked")
        self.must(queued == (key.channel is not None), f"append said queued={queued}")
        if queued and key.channel is not None:
            key.channel.log += numbers
            key.channel.queue += numbers

    # Who owns it

    def claimed(self, key_id: str, owner: str) -> Reader:
        key = self.keys[key_id]
        self.must(not key.revoked, "a revoked key was claimed")
        self.must(key.channel, "a channel that is not there was claimed")
        channel = key.channel or Channel(since_ms=0)
        channel.owner = owner
        self._readers[owner] = Reader(key, channel, owner)
        return self._readers[owner]

    def taken_back(self, owner: str) -> None:
        """A crash of Redis may have taken its claim; or whoever claimed after it has gone since."""
        reader = self._readers[owner]
        channel = reader.channel
        self.must(reader.key.channel is channel, "a channel that had ended was taken back")
        self.must(channel.owner in ("", owner), "a channel was taken back from another owner")
        channel.owner = owner

    def released(self, owner: str, *, now_ms: int, given_back: bool) -> None:
        reader = self._readers[owner]
        is_owner = self._is_owner(owner)
        self.must(given_back == is_owner, f"a release by {'the' if is_owner else 'no'} owner: {given_back}")
        if is_owner:
            reader.channel.owner = ""
            reader.channel.since_ms = now_ms

    def confirmed_by(self, owner: str) -> int:
        return self._readers[owner].acked_until

    def acked(self, owner: str, confirmed: int, *, count: int | None) -> None:
        """The owner acked what its client had confirmed when it decided to."""
        if not self._is_owner(owner):
            self.must(count is None, "somebody acked who is not the owner")
            return
        reader = self._readers[owner]
        gone = set(reader.received[:confirmed])
        before = len(reader.channel.queue)
        reader.channel.queue = [number for number in reader.channel.queue if number not in gone]
        self.must(count == before - len(reader.channel.queue), f"a ack said that {count} were acked")

    def sent(self, reader: Reader, number: int) -> None:
        """In order and without a gap on each socket and over all of them, and only what is still pending."""
        channel = reader.channel
        # What a wakeup carries was pending to its owner when Redis told it; it may have been on its way since.
        was_pending = (reader.owner, number) in self._inline
        if not was_pending:
            self.must(reader.key.channel is channel, f"{number} was sent for a channel that had ended")
            self.must(number in channel.queue, f"{number} was sent and is not pending")
        if number in channel.log:
            place = channel.log.index(number)
            self.must(place <= channel.seen, f"{number} was sent before its turn")
            if reader.received:
                due = channel.log.index(reader.received[-1]) + 1
            elif channel.queue and not was_pending:
                due = channel.log.index(channel.queue[0])
            else:
                due = place
            self.must(place == due, f"{number} was sent in the wrong place of its socket")
            channel.seen = max(channel.seen, place + 1)
        reader.received.append(number)

    @contextlib.contextmanager
    def carrying(self, owner: str, numbers: Iterable[int]) -> Iterator[None]:
        """A wakeup that carries these reaches their owner, or who was their owner once."""
        self._inline = {(owner, number) for number in numbers}
        yield
        self._inline = set()

    def _is_owner(self, owner: str) -> bool:
        reader = self._readers[owner]
        return reader.key.channel is reader.channel and reader.channel.owner == owner

    # When it is idle

    def beaten(self, instance: str, *, now_ms: int) -> None:
        self._last_seen_ms[instance] = now_ms
        self._live.add(instance)

    def died(self, instance: str) -> None:
        self._live.discard(instance)

    def expired(self, key: Key, *, ended: bool, due: bool, late: bool) -> None:
        """A late reaper may leave to the next round what has become due, or is no more."""
        self.must(due or not ended, "a channel was expired that was not due")
        self.must(ended or not due or late, "a channel that was due was not expired")
        if ended:
            key.channel = None

    def is_due(self, channel: Channel, *, now_ms: int, idle_expiry_ms: int) -> bool:
        """Has it been without a socket for that long?"""
        instance = channel.owner.rpartition("/")[0]
        if instance in self._live:
            return False
        since_ms = max(channel.since_ms, self._last_seen_ms.get(instance, 0))
        return now_ms - since_ms >= idle_expiry_ms
