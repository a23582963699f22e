"""Records what a worker receives by socket, webhook or poll: sequences, latencies, counts."""

from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.load.latencies import Latencies, bounded, now_us
from tests.load.messages import read_path
from tests.load.sequences import Sequence, SequenceKey


@dataclass(slots=True)
class Received:
    """What a worker has received."""

    sequences: list[tuple[SequenceKey, Sequence]]
    latencies: Latencies
    garbled: int
    last_us: int
    bytes: int
    messages: int
    closed: dict[str, int] = field(default_factory=dict)


class Recorder:
    """Sequences cover the whole run; latencies and sizes start again with `reset`."""

    def __init__(self) -> None:
        self._channels: dict[int, dict[int, Sequence]] = defaultdict(dict)
        self.received = 0
        self.garbled = 0
        self.last_us = 0
        self.bytes = 0
        self.messages = 0
        self.latencies = Latencies()
        self._is_any_told = False

    def reset(self) -> None:
        self.latencies = Latencies()
        self.bytes = self.messages = 0

    def record(self, channel: int, message: bytes) -> None:
        """Records one NotificationMessage."""
        try:
            self._record(self._channels[channel], orjson.loads(message).get("notifications", ()))
        except (ValueError, TypeError, KeyError, AttributeError):
            self.garbled += 1
        self.bytes += len(message)
        self.messages += 1

    def take(self, channel: int, items: SequenceOf[tuple[int, int, int]]) -> None:
        """Records events by lane, number and time of sending."""
        if not items:
            return
        at_us = self.last_us = now_us()
        slot, lanes = self.latencies.slot(at_us), self._channels[channel]
        self.messages += 1
        for lane, number, sent_us in items:
            sequence = lanes.get(lane)
            if sequence is None:
                sequence = lanes[lane] = Sequence()
            if sequence.take(number):
                self.received += 1
                slot.append(bounded(at_us - sent_us))

    @property
    def told(self) -> int:
        """How many events are missing that their channels were told of."""
        if not self._is_any_told:
            return 0
        return sum(sequence.told for lanes in self._channels.values() for sequence in lanes.values())

    def excuse(self, channel: int) -> None:
        """The channel was told that something before its next event of each known lane may be missing."""
        self._is_any_told = True
        for sequence in self._channels[channel].values():
            sequence.is_told = True

    def _record(self, lanes: dict[int, Sequence], items: Iterable[dict[str, Any]]) -> None:
        at_us = self.last_us = now_us()
        slot = self.latencies.slot(at_us)
        for item in items:
            lane, number, sent_us = read_path(item["path"])
            sequence = lanes.get(lane)
            if sequence is None:
                sequence = lanes[lane] = Sequence()
            if sequence.take(number):
                self.received += 1
                slot.append(bounded(at_us - sent_us))

    def recorded(self) -> Received:
        return Received(
            sequences=[
                ((channel, lane), sequence)
                for channel, lanes in self._channels.items()
                for lane, sequence in lanes.items()
            ],
            latencies=self.latencies,
            garbled=self.garbled,
            last_us=self.last_us,
            bytes=self.bytes,
            messages=self.messages,
        )
