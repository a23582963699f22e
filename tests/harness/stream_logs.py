"""Readers of streams that come back, and keep a log of what they were given and told."""

import asyncio
import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from tests.load.connections import Refused, connected
from tests.load.event_streams import EventStream, Parsed, StreamParser, stream_request

_RETRY_S = 0.1


@dataclass
class LoggingReader:
    """Reads one topic, and comes back with its last id whenever its connection has ended.

    `log` has the numbers of its events, and a reason wherever it was told that it has missed something.
    """

    topic: str
    edges: Iterator[str]
    secret: str
    parser: StreamParser
    log: list[int | str] = field(default_factory=list)
    connections: int = 0
    received: int = 0
    wrong: list[str] = field(default_factory=list)
    may_read: asyncio.Event = field(default_factory=asyncio.Event)
    _last_id: bytes = b""
    _stream: EventStream | None = None
    _has_ended: asyncio.Event = field(default_factory=asyncio.Event)
    has_started: bool = False

    @property
    def numbers(self) -> list[int]:
        return [each for each in self.log if isinstance(each, int)]

    @property
    def last(self) -> int:
        return next((each for each in reversed(self.log) if isinstance(each, int)), -1)

    async def run(self) -> None:
        while True:
            await self.may_read.wait()
            edge = next(self.edges)
            try:
                await self._read(edge)
            except (OSError, Refused) as error:
                if isinstance(error, Refused) and "HTTP/1.1 503" not in str(error):
                    self.wrong.append(str(error))
                await asyncio.sleep(_RETRY_S)

    async def _read(self, edge: str) -> None:
        host = edge.removeprefix("http://")
        request = stream_request(host, self.topic, secret=self.secret, last_id=self._last_id)
        self._has_ended.clear()
        stream = self._stream = await connected(lambda: EventStream(request, self, self.parser), edge)
        try:
            await stream.opened
            self.connections += 1
            await self._has_ended.wait()
        finally:
            stream.abort()

    def cut(self) -> None:
        if self._stream is not None:
            self._stream.abort()

    def on_parsed(self, parsed: Parsed) -> None:
        begin = 0
        for said in parsed.said:
            self.log += [number for _, number, _ in parsed.items[begin : said.before]]
            begin = said.before
            if said.name == "recovered":
                self.has_started = True
                if not said.data["recovered"]:
                    self.log.append(said.data["reason"])
        self.log += [number for _, number, _ in parsed.items[begin:]]
        self.received += len(parsed.items)
        if parsed.garbled:
            self.wrong.append(f"{parsed.garbled} events without a number")
        self._last_id = parsed.last_id or self._last_id

    def on_closed(self) -> None:
        self._has_ended.set()


def unexcused(log: Sequence[int | str], wanted: Collection[int], excuses: Collection[str]) -> list[int]:
    """The wanted numbers that are missing, but for those where the reader was told one of the reasons."""
    missing: list[int] = []
    left, is_excused = iter(sorted(wanted)), False
    number = next(left, None)
    for each in log:
        if isinstance(each, str):
            is_excused |= each in excuses
            continue
        while number is not None and number < each:
            if not is_excused:
                missing.append(number)
            number = next(left, None)
        if number == each:
            number = next(left, None)
        is_excused = False
    return missing + ([] if number is None else [number, *left])


def assert_each_once_and_in_order(reader: LoggingReader) -> None:
    for before, after in itertools.pairwise(reader.numbers):
        assert before < after, f"{after} came after {before}, {reader.connections} connections"
