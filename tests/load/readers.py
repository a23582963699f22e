"""A worker's role: readers of streams, each with a connection; cut, they come back where they were."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.load.connections import Refused, connected
from tests.load.event_streams import EventStream, Parsed, StreamParser, stream_request
from tests.load.latencies import Latencies, now_us
from tests.load.recorder import Received, Recorder

_RETRY_S = 0.2
_RETRY_LIMIT_S = 60
_START_LIMIT_S = 60


@dataclass(frozen=True, slots=True)
class Reading:
    """A reader: its number, the edge, and the topic that it reads."""

    channel: int
    edge: str
    topic: str
    secret: str = field(repr=False)


@dataclass(slots=True)
class Begun:
    """How readers have begun. `took`: from the first attempt to the answer where reading begins."""

    took: Latencies = field(default_factory=Latencies)
    retries: int = 0
    last_us: int = 0
    recovered: int = 0
    told: Counter[str] = field(default_factory=Counter)
    """Readers that were told that they have missed something, by the reason."""


class Reader:
    """One reader, over all its connections."""

    def __init__(self, reading: Reading, recorder: Recorder, parser: StreamParser) -> None:
        self._reading = reading
        self._recorder = recorder
        self._parser = parser
        self.last_id = b""
        self._stream: EventStream | None = None
        self._is_leaving = False
        self._started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.closed: Counter[str] = Counter()
        self.holes: Counter[str] = Counter()

    async def open(self) -> str:
        """Connects; returns why it was told of a hole, or an empty text. Raises Refused, OSError."""
        parts = urlsplit(self._reading.edge)
        request = stream_request(
            parts.netloc, self._reading.topic, secret=self._reading.secret, last_id=self.last_id
        )
        self._started = asyncio.get_running_loop().create_future()
        self._is_leaving = False
        self._stream = await connected(lambda: EventStream(request, self, self._parser), self._reading.edge)
        async with asyncio.timeout(_START_LIMIT_S):
            await self._stream.opened
            return await self._started

    def cut(self) -> None:
        self._is_leaving = True
        if self._stream is not None:
            self._stream.abort()

    def on_parsed(self, parsed: Parsed) -> None:
        channel, begin = self._reading.channel, 0
        for said in parsed.said:
            self._recorder.take(channel, parsed.items[begin : said.before])
            begin = said.before
            if said.name == "recovered":
                self._on_recovered(said.data.get("reason", ""))
            else:
                self.closed[f"{said.name} {said.data.get('reason', '')}".strip()] += 1
        self._recorder.take(channel, parsed.items[begin:])
        self._recorder.garbled += parsed.garbled
        if parsed.last_id:
            self.last_id = parsed.last_id

    def _on_recovered(self, reason: str) -> None:
        if reason:
            self.holes[reason] += 1
            self._recorder.excuse(self._reading.channel)
        if not self._started.done():
            self._started.set_result(reason)

    def on_closed(self) -> None:
        if not self._is_leaving:
            self.closed["no word"] += 1
        if not self._started.done():
            self._started.set_exception(ConnectionResetError("closed before reading began"))
            # A reader that is cut then has nobody who waits for it.
            self._started.exception()


class Readers:
    """A share of a run's readers."""

    def __init__(self) -> None:
        self._recorder = Recorder()
        self._parser = StreamParser()
        self._readers: dict[int, Reader] = {}

    @property
    def received(self) -> int:
        """Also what is missing and told: nobody waits for that."""
        return self._recorder.received + self._recorder.told

    async def open(self, *, readings: Sequence[Reading], at_once: int) -> Begun:
        """Opens all, at most `at_once` requests in progress; later calls reopen those that were cut."""
        begun = Begun()
        limit = asyncio.Semaphore(at_once)

        async def one(reading: Reading) -> None:
            reader = self._readers.get(reading.channel)
            if reader is None:
                reader = self._readers[reading.channel] = Reader(reading, self._recorder, self._parser)
            async with limit:
                await _begin(reader, begun)

        await asyncio.gather(*(one(reading) for reading in readings))
        begun.last_us = now_us()
        return begun

    async def drop_all(self) -> int:
        """Cuts every connection; returns their number."""
        for reader in self._readers.values():
            reader.cut()
        return len(self._readers)

    async def reset(self) -> None:
        self._recorder.reset()

    async def recorded(self) -> Received:
        recorded = self._recorder.recorded()
        closed: Counter[str] = Counter()
        for reader in self._readers.values():
            closed.update(reader.closed)
        recorded.closed = dict(closed)
        return recorded

    async def holes(self) -> Counter[str]:
        """The holes that readers were told of, by reason."""
        found: Counter[str] = Counter()
        for reader in self._readers.values():
            found.update(reader.holes)
        return found

    async def close(self) -> None:
        await self.drop_all()


async def _begin(reader: Reader, begun: Begun) -> None:
    begin_us = now_us()
    while True:
        try:
            reason = await reader.open()
            break
        except (OSError, Refused):
            if now_us() - begin_us > _RETRY_LIMIT_S * 1_000_000:
                raise
            begun.retries += 1
            await asyncio.sleep(_RETRY_S)
    at_us = now_us()
    begun.took.add(at_us - begin_us, at_us=at_us)
    if reason:
        begun.told[reason] += 1
    else:
        begun.recovered += 1
