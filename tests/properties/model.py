"""The model: what each channel has pending, its owner, and which keys exist, in plain Python.

It records each step when Redis has done it, and checks it. Violations are collected: an assertion inside a
task of the services would be handled as their own error.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

CLOCKS_APART_MS = 2000


@dataclass(eq=False)
class Channel:
    """One generation of a key's channel. Notifications are ascending numbers."""

    since_ms: int
    log: list[int] = field(default_factory=list)
    queue: list[int] = field(default_factory=list)
    seen: int = 0
    """How many of the log were sent, over all sockets."""
    owner: str = ""
    purged: int = 0
    """How many of the log were there at the last purge: it has dropped what was pending of them."""
    is_paused: bool = False


@dataclass(eq=False)
class Reader:
    """One socket as its client sees it: what it received, and how much of that its pongs confirmed."""

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


class Model:
    """All keys, and every violation."""

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}
        self.violations: list[str] = []
        self._last_seen_ms: dict[str, int] = {}
        self._live: set[str] = set()
        self._readers: dict[str, Reader] = {}
        self._inline: set[tuple[str, int]] = set()

    def check(self, condition: object, violation: str) -> None:
        if not condition:
            self.violations.append(violation)

    # Keys and channels

    def record_creation(self, key: Key, *, now_ms: int, created: bool) -> None:
        self.check(not key.revoked, "a channel was created for a revoked key")
        self.check(created == (key.channel is None), f"create returned {created}")
        if key.channel is None:
            key.channel = Channel(since_ms=now_ms)

    def record_deletion(self, key: Key, *, existed: bool) -> None:
        self.check(existed == (key.channel is not None), f"delete returned {existed}")
        key.channel = None

    def record_revocation(self, key: Key) -> None:
        key.revoked, key.channel = True, None

    def record_append(self, key_id: str, numbers: list[int], *, queued: bool) -> None:
        key = self.keys[key_id]
        self.check(not (queued and key.revoked), "an append after the revocation")
        self.check(queued == (key.channel is not None), f"append returned queued={queued}")
        if queued and key.channel is not None:
            key.channel.log += numbers
            key.channel.queue += numbers

    def record_pause(self, key: Key, *, paused: bool, found: bool) -> None:
        self.check(found == (key.channel is not None), f"a pause found a channel: {found}")
        if key.channel is not None:
            key.channel.is_paused = paused

    def record_purge(self, key: Key, *, dropped: int) -> None:
        channel = key.channel
        self.check(dropped == (-1 if channel is None else len(channel.queue)), f"a purge returned {dropped}")
        if channel is not None:
            channel.queue = []
            channel.purged = len(channel.log)
            channel.seen = max(channel.seen, channel.purged)

    # Owners

    def record_claim(self, key_id: str, owner: str) -> Reader:
        key = self.keys[key_id]
        self.check(not (key.channel and key.channel.is_paused), "a paused channel was claimed")
        self.check(not key.revoked, "a revoked key was claimed")
        self.check(key.channel, "a missing channel was claimed")
        channel = key.channel or Channel(since_ms=0)
        channel.owner = owner
        self._readers[owner] = Reader(key, channel, owner)
        return self._readers[owner]

    def record_reclaim(self, owner: str) -> None:
        """Redis lost the claim in a crash, or a newer owner has released."""
        reader = self._readers[owner]
        channel = reader.channel
        self.check(reader.key.channel is channel, "an ended channel was reclaimed")
        self.check(not channel.is_paused, "a paused channel was reclaimed")
        self.check(channel.owner in ("", owner), "a channel was reclaimed from another owner")
        channel.owner = owner

    def record_release(self, owner: str, *, now_ms: int, released: bool) -> None:
        reader = self._readers[owner]
        is_owner = self._is_owner(owner)
        self.check(released == is_owner, f"a release by {'the' if is_owner else 'a stale'} owner: {released}")
        if is_owner:
            reader.channel.owner = ""
            reader.channel.since_ms = now_ms

    def acked_count(self, owner: str) -> int:
        return self._readers[owner].acked_until

    def record_ack(self, owner: str, confirmed: int, *, count: int | None) -> None:
        """The owner acks what its client had confirmed when the ack was sent."""
        if not self._is_owner(owner):
            self.check(count is None, "a stale owner acked")
            return
        reader = self._readers[owner]
        gone = set(reader.received[:confirmed])
        before = len(reader.channel.queue)
        reader.channel.queue = [number for number in reader.channel.queue if number not in gone]
        self.check(count == before - len(reader.channel.queue), f"an ack returned {count}")

    def record_send(self, reader: Reader, number: int) -> None:
        """Checks that sends are in order, without a gap, and only of what is pending."""
        channel = reader.channel
        # Inline entries were pending for their owner when Redis published them, and may have been acked
        # since.
        is_inline = (reader.owner, number) in self._inline
        if not is_inline:
            self.check(reader.key.channel is channel, f"{number} was sent for an ended channel")
            self.check(number in channel.queue, f"{number} was sent and is not pending")
            self.check(not channel.is_paused, f"{number} was sent while its channel was paused")
        if number in channel.log:
            index = channel.log.index(number)
            self.check(index <= channel.seen, f"{number} was sent before its turn")
            if reader.received:
                expected = channel.log.index(reader.received[-1]) + 1
                if not is_inline or index >= channel.purged:
                    expected = max(expected, channel.purged)
            elif channel.queue and not is_inline:
                expected = channel.log.index(channel.queue[0])
            else:
                expected = index
            self.check(index == expected, f"{number} was sent out of order on its socket")
            channel.seen = max(channel.seen, index + 1)
        reader.received.append(number)

    @contextlib.contextmanager
    def delivering_inline(self, owner: str, numbers: Iterable[int]) -> Iterator[None]:
        """A wakeup with these inline entries reaches their owner, or a former one."""
        self._inline = {(owner, number) for number in numbers}
        yield
        self._inline = set()

    def _is_owner(self, owner: str) -> bool:
        reader = self._readers[owner]
        return reader.key.channel is reader.channel and reader.channel.owner == owner

    # Expiry

    def record_heartbeat(self, instance: str, *, now_ms: int) -> None:
        self._last_seen_ms[instance] = now_ms
        self._live.add(instance)

    def record_crash(self, instance: str) -> None:
        self._live.discard(instance)

    def record_expiry(self, key: Key, *, ended: bool, due: bool, late: bool) -> None:
        """A late reaper may leave a due channel to its next round."""
        self.check(due or not ended, "a channel expired before its time")
        self.check(ended or not due or late, "a due channel did not expire")
        if ended:
            key.channel = None

    def is_due(self, channel: Channel, *, now_ms: int, idle_expiry_ms: int) -> bool:
        """Has the channel been idle for so long?"""
        instance = channel.owner.rpartition("/")[0]
        if instance in self._live:
            return False
        # The clock of another Redis, which stamped the heartbeat, may be behind.
        last_ms = self._last_seen_ms.get(instance, -CLOCKS_APART_MS) + CLOCKS_APART_MS
        since_ms = max(channel.since_ms, last_ms)
        return now_ms - since_ms >= idle_expiry_ms
