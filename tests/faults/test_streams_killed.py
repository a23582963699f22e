"""Readers of streams while edges are killed, and Redis restarts or loses its last writes.

Each of the seeded runs delivers 200,000 events, so all of them a million. Nothing may be lost unless the
reader is told, nothing doubled, and nobody is told of a loss that he has not had.
"""

import asyncio
import itertools
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest

from shared.store import stream_names
from tests.conftest import Measured, Start
from tests.harness.api import Api, ApiKey
from tests.harness.stack import Stack
from tests.harness.stream_logs import LoggingReader, assert_each_once_and_in_order, unexcused
from tests.harness.waiting import wait_until
from tests.load.connections import HttpConnection
from tests.load.event_streams import StreamParser
from tests.load.messages import Target, batch, head, template

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

TOPICS = [f"orders.{number}" for number in range(4)]
READERS = 40
ARRAY = 100
DELIVERIES = 200_000
STEPS = 6
# Between two requests: the faults are spread over the run.
PAUSE_S = 0.02
SIZE = 150
RETAINED = re.compile(rb'"path":"/\d{4}/(\d{9})/')


@dataclass
class Publisher:
    """One request after the other, each of events for one topic; numbers of a topic rise, none is repeated.

    `losses`: how often Redis had lost its end when an event was sent; None if it did meanwhile.
    """

    gateway: str
    secret: str
    rng: random.Random
    accepted: dict[str, list[int]] = field(default_factory=lambda: {topic: [] for topic in TOPICS})
    losses: dict[str, dict[int, int | None]] = field(default_factory=lambda: {topic: {} for topic in TOPICS})
    refused: int = 0
    lost_so_far: int = 0
    is_over: bool = False
    _next: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TOPICS, 0))

    @property
    def count(self) -> int:
        return sum(map(len, self.accepted.values()))

    async def run(self) -> None:
        connection: HttpConnection | None = None
        templates = {
            topic: template(Target(number, topic=topic), size=SIZE) for number, topic in enumerate(TOPICS)
        }
        for topic in itertools.cycle(TOPICS):
            if self.is_over:
                return
            # A wakeup has the entries of the small ones, and of the others only where they end.
            size = self.rng.choice((ARRAY, ARRAY, ARRAY // 10))
            numbers = range(self._next[topic], self._next[topic] + size)
            self._next[topic] += size
            body = batch([templates[topic].event(0, number, 0) for number in numbers])
            before = self.lost_so_far
            try:
                if connection is None or not connection.open_now:
                    connection = await HttpConnection.open(self.gateway)
                request = head("POST", self.gateway + "/v1/events", token=self.secret)
                reply = await connection.request(request + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                status = reply.status
            except OSError:
                status = 503
            is_known = status == 202 and before == self.lost_so_far
            self.losses[topic].update(dict.fromkeys(numbers, before if is_known else None))
            if status == 202:
                self.accepted[topic] += numbers
            else:
                assert status == 503, status
                self.refused += 1
            await asyncio.sleep(PAUSE_S)


@dataclass
class Scene:
    """Readers, a publisher, and what is done to the installation meanwhile."""

    stack: Stack
    key: ApiKey
    readers: list[LoggingReader]
    publisher: Publisher
    rng: random.Random

    def of(self, topic: str) -> list[LoggingReader]:
        return [reader for reader in self.readers if reader.topic == topic]

    @property
    def deliveries(self) -> int:
        return sum(reader.received for reader in self.readers)

    async def until_published(self, more: int) -> None:
        wanted = self.publisher.count + more
        await wait_until(lambda: self.publisher.count >= wanted, within_s=60, what="accepted events")

    async def kill_an_edge(self) -> None:
        edge = self.rng.choice(self.stack.edges)
        edge.kill()
        edge.start()
        await self.until_published(5 * ARRAY)
        await wait_until(lambda: edge.ready, within_s=60, what=lambda: edge.tail)

    async def restart_redis(self) -> None:
        valkey = self.stack.valkey
        valkey.kill()
        valkey.start()
        await wait_until(lambda: valkey.answers, within_s=60)

    async def lose_the_end(self) -> None:
        """Redis restarts without what was written after a moment, which readers have had."""
        valkey = self.stack.valkey
        await asyncio.to_thread(valkey.keep_copy)
        await self.until_published(len(TOPICS) * ARRAY)
        last = {topic: numbers[-1] for topic, numbers in self.publisher.accepted.items()}
        await wait_until(
            lambda: all(any(reader.last >= last[topic] for reader in self.of(topic)) for topic in TOPICS),
            within_s=60,
            what="a reader of each topic that has what will be lost",
        )
        valkey.kill()
        valkey.restore_copy()
        self.publisher.lost_so_far += 1
        valkey.start()
        await wait_until(lambda: valkey.answers, within_s=60)

    async def cut_some(self) -> None:
        for reader in self.rng.sample(self.readers, READERS // 4):
            reader.cut()

    async def send_some_away(self) -> None:
        """Some readers stay away for longer than their topics keep events."""
        away = self.rng.sample(self.readers, READERS // 4)
        for reader in away:
            reader.may_read.clear()
            reader.cut()
        await self.until_published(len(TOPICS) * 10 * ARRAY)
        for reader in away:
            reader.may_read.set()

    def retained(self, topic: str) -> list[int]:
        """The numbers in the stream of a topic."""
        [stream, *_] = stream_names.names(self.key.account, topic)
        with self.stack.valkey.client() as redis:
            found = [RETAINED.search(fields[b"data"]) for _, fields in redis.xrange(stream)]
        return [int(each[1]) for each in found if each is not None]


@asynccontextmanager
async def running(scene: Scene) -> AsyncIterator[None]:
    """All read, then the publisher publishes; at the end it stops, and all have the last event."""
    async with asyncio.TaskGroup() as group:
        reading = [group.create_task(reader.run()) for reader in scene.readers]
        for reader in scene.readers:
            reader.may_read.set()
        await wait_until(lambda: all(reader.has_started for reader in scene.readers), within_s=60)
        publishing = group.create_task(scene.publisher.run())
        yield
        scene.publisher.is_over = True
        await publishing
        last = {topic: scene.retained(topic)[-1] for topic in TOPICS}
        await wait_until(
            lambda: all(reader.last == last[reader.topic] for reader in scene.readers),
            within_s=60,
            what=lambda: [(reader.topic, reader.last, last[reader.topic]) for reader in scene.readers],
        )
        for task in reading:
            task.cancel()


async def scene_of(
    start: Start, http: aiohttp.ClientSession, *, seed: int, keep: int, appendfsync: str
) -> Scene:
    stack = start(gateways=1, edges=2, tcp=True, appendfsync=appendfsync)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    publisher = await api.api_key(scopes=("publish", "channels"))
    key = await api.api_key(account=publisher.account, scopes=("receive",))
    rules = [{"topics": ["orders.*"], "keep": {"count": keep}}]
    assert (await api.call("PUT", "/v1/streams", key=publisher, json=rules)).status == 204
    assert (await api.call("PUT", "/v1/bindings", key=key, json=["orders.*"])).status == 204
    urls, parser = [edge.url for edge in stack.edges], StreamParser()
    readers = [
        LoggingReader(TOPICS[number % len(TOPICS)], _cycle(urls, number), key.secret, parser)
        for number in range(READERS)
    ]
    rng = random.Random(seed)
    return Scene(stack, key, readers, Publisher(api.url, publisher.secret, rng), rng)


def _cycle(urls: Sequence[str], first: int) -> Iterator[str]:
    return itertools.islice(itertools.cycle(urls), first % len(urls), None)


async def act(scene: Scene, faults: Sequence[Callable[[Scene], Awaitable[None]]]) -> None:
    """The faults one after the other, then as many events as the run needs."""
    step = DELIVERIES // (READERS // len(TOPICS)) // (len(faults) + 1)
    for fault in faults:
        await scene.until_published(scene.rng.randrange(step // 2, step))
        await fault(scene)
    await wait_until(lambda: scene.deliveries >= DELIVERIES, within_s=120, what=lambda: scene.deliveries)


@pytest.mark.parametrize("seed", range(3))
async def test_redis_without_its_end_is_told_and_nothing_else_is_lost(
    start: Start, http: aiohttp.ClientSession, record_property: Measured, seed: int
) -> None:
    """What Redis still has arrives, to all. Who has had what it lost is told before it reads on."""
    scene = await scene_of(start, http, seed=seed, keep=100_000, appendfsync="everysec")
    others = (Scene.kill_an_edge, Scene.restart_redis, Scene.cut_some)
    faults = [Scene.lose_the_end, Scene.lose_the_end, *scene.rng.choices(others, k=STEPS - 2)]
    scene.rng.shuffle(faults)
    async with running(scene):
        await act(scene, faults)

    told = 0
    for topic in TOPICS:
        retained = scene.retained(topic)
        assert retained == sorted(set(retained)), "the publisher repeats nothing"
        for reader in scene.of(topic):
            assert not reader.wrong
            assert_each_once_and_in_order(reader)
            assert unexcused(reader.log, retained, ()) == []
            assert set(reader.numbers) <= scene.publisher.losses[topic].keys()
            told += assert_told(reader, set(retained), scene.publisher.losses[topic])
    assert told >= 2 * len(TOPICS), "each loss was one of some reader of each topic"
    record_property(f"seed {seed}, deliveries", scene.deliveries)
    record_property(f"seed {seed}, readers told", told)


def assert_told(reader: LoggingReader, retained: Collection[int], losses: dict[int, int | None]) -> int:
    """Told when the reader had what Redis lost, before it got what came later, and else not. How often?"""
    told, has_lost, is_told = 0, False, False
    before: int | None = None
    for each in reader.log:
        if isinstance(each, str):
            assert each == "lost", each
            assert has_lost, f"told after {before}, which Redis has"
            told, is_told, has_lost = told + 1, True, False
            continue
        if before is not None and before not in retained and not is_told:
            was, now = losses[before], losses[each]
            assert was is None or now is None or was == now, f"{each} came after {before}, which was lost"
        before, has_lost, is_told = each, each not in retained, False
    return told


@pytest.mark.parametrize("seed", range(2))
async def test_what_was_trimmed_is_told_and_nothing_else_is_lost(
    start: Start, http: aiohttp.ClientSession, record_property: Measured, seed: int
) -> None:
    """Some readers are away for longer than their topics keep events. Redis loses nothing."""
    scene = await scene_of(start, http, seed=seed, keep=5 * ARRAY, appendfsync="always")
    others = (Scene.kill_an_edge, Scene.restart_redis, Scene.cut_some)
    faults = [Scene.send_some_away, Scene.send_some_away, *scene.rng.choices(others, k=STEPS - 2)]
    scene.rng.shuffle(faults)
    async with running(scene):
        await act(scene, faults)

    for reader in scene.readers:
        assert not reader.wrong
        assert_each_once_and_in_order(reader)
        assert unexcused(reader.log, scene.publisher.accepted[reader.topic], ("trimmed",)) == []
        assert set(reader.numbers) <= scene.publisher.losses[reader.topic].keys()
        assert {each for each in reader.log if isinstance(each, str)} <= {"trimmed"}
    told = sum(isinstance(each, str) for reader in scene.readers for each in reader.log)
    assert told >= READERS // 4
    record_property(f"trimmed, seed {seed}, deliveries", scene.deliveries)
    record_property(f"trimmed, seed {seed}, holes told", told)


@pytest.mark.parametrize(
    ("log", "missing"),
    [
        ([1, 2, 3, 4], []),
        ([1, 2, 4], [3]),
        ([1, "trimmed", 4], []),
        ([1, "lost", 4], [2, 3]),
        ([1, "trimmed", 2, 4], [3]),
        (["trimmed", 3, 4], []),
        ([1, 2, "trimmed"], [3, 4]),
        ([], [1, 2, 3, 4]),
    ],
)
def test_a_missing_number_is_excused_by_the_hole_that_it_is_in(
    log: list[int | str], missing: list[int]
) -> None:
    assert unexcused(log, range(1, 5), ("trimmed",)) == missing
