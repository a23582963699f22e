"""A worker's role: publishes on many lanes, at a rate or as fast as each request is answered."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from tests.load.latencies import Latencies, now_us
from tests.load.messages import Mold, Target, batch, head, mold
from tests.load.sequences import Place
from tests.load.wire import HttpConnection, Refused, Reply

EVENTS_PATH = "/v1/events"
_RETRY_S = 0.1
_RETRY_LIMIT_S = 60


@dataclass(frozen=True, slots=True)
class Plan:
    """What to publish: so long or so many requests of each lane, at `rate` events a second or all that goes.

    The events of a request go to one target after the other, or, `together`, all to the same.
    """

    seconds: float | None = None
    requests: int | None = None
    rate: float | None = None
    array: int = 1
    together: bool = False


@dataclass(slots=True)
class Published:
    """What came of a plan. `behind` is how late the harness itself was, `answered` how long each 202 took."""

    events: int = 0
    requests: int = 0
    retries: int = 0
    answered: Latencies = field(default_factory=Latencies)
    behind: Latencies = field(default_factory=Latencies)


class Lane:
    """One connection with one request under way. It counts for each target what it has published there."""

    def __init__(
        self, number: int, url: str, secret: str, targets: Sequence[Target], molds: list[Mold]
    ) -> None:
        self.number = number
        self._url = url
        self._head = head("POST", url + EVENTS_PATH, token=secret)
        self._targets = targets
        self._molds = molds
        self.accepted = [0] * len(targets)
        self._turn = 0
        self._connection: HttpConnection | None = None

    def start_at(self, turn: int) -> None:
        """Lanes that all began with the same target would meet there for ever."""
        self._turn = turn % len(self._targets)

    async def publish(self, plan: Plan, *, start_us: int, lanes: int, told: Published) -> None:
        interval_us = plan.array * lanes * 1e6 / plan.rate if plan.rate else 0.0
        first_us = start_us + interval_us * self.number / lanes
        end_us = start_us + plan.seconds * 1e6 if plan.seconds else None
        free_us = start_us
        for count in itertools.count():
            due_us = int(first_us + count * interval_us) if plan.rate else now_us()
            if count == plan.requests or (end_us is not None and due_us >= end_us):
                return
            if due_us > now_us():
                await asyncio.sleep((due_us - now_us()) / 1e6)
            asked_us = now_us()
            told.behind.add(asked_us - max(due_us, free_us), at_us=asked_us)
            # A request that was kept waiting by the answer before it counts from when it was due.
            await self._one(plan, sent_us=due_us if free_us > due_us else asked_us, told=told)
            free_us = now_us()
            told.answered.add(free_us - asked_us, at_us=free_us)

    async def _one(self, plan: Plan, *, sent_us: int, told: Published) -> None:
        events, pending = [], 0
        for _ in range(plan.array):
            events.append(self._molds[self._turn].event(self.number, self.accepted[self._turn], sent_us))
            pending += self._targets[self._turn].fan
            self.accepted[self._turn] += 1
            if not plan.together:
                self._turn = (self._turn + 1) % len(self._targets)
        if plan.together:
            self._turn = (self._turn + 1) % len(self._targets)
        body = batch(events)
        reply = await self._taken(self._head + b"Content-Length: %d\r\n\r\n" % len(body) + body, told)
        queued = sum(event["channels"] for event in orjson.loads(reply.body)["events"])
        if queued != pending:
            raise Refused(f"events for {pending} channels were queued for {queued}")
        told.events += plan.array
        told.requests += 1

    async def _taken(self, request: bytes, told: Published) -> Reply:
        """The 202, after as many tries as it takes."""
        give_up_us = now_us() + _RETRY_LIMIT_S * 1_000_000
        while True:
            try:
                if self._connection is None or not self._connection.open_now:
                    self._connection = await HttpConnection.open(self._url)
                reply = await self._connection.ask(request)
                fault = f"{reply.status}: {reply.body[:300]!r}"
            except OSError as error:
                reply, fault = Reply(503), repr(error)
            if reply.status == 202:
                return reply
            if reply.status != 503 or now_us() > give_up_us:
                raise Refused(f"publishing was refused: {fault}")
            told.retries += 1
            await asyncio.sleep(_RETRY_S)

    async def connect(self) -> None:
        self._connection = await HttpConnection.open(self._url)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


class Publishers:
    """Some of the lanes of a run."""

    def __init__(self) -> None:
        self._lanes: list[Lane] = []
        self._targets: Sequence[Target] = ()
        self._all = 1

    async def prepare(
        self,
        *,
        gateways: Sequence[str],
        secret: str,
        lanes: Sequence[int],
        all_lanes: int,
        targets: Sequence[Target],
        size: int,
    ) -> None:
        """Makes these of `all_lanes`, each connected to the gateway whose turn it is."""
        molds = [mold(target, size=size) for target in targets]
        self._targets, self._all = targets, all_lanes
        for number in lanes:
            lane = Lane(number, gateways[number % len(gateways)], secret, targets, molds)
            lane.start_at(number * len(targets) // all_lanes)
            self._lanes.append(lane)
        await asyncio.gather(*(lane.connect() for lane in self._lanes))

    async def publish(self, *, plan: Plan, start_us: int) -> Published:
        told = Published()
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(lane.publish(plan, start_us=start_us, lanes=self._all, told=told))
        return told

    async def accepted(self) -> dict[Place, int]:
        """By target and lane: how many were answered 202 in all."""
        return {
            (target.number, lane.number): count
            for lane in self._lanes
            for target, count in zip(self._targets, lane.accepted, strict=True)
            if count
        }

    async def close(self) -> None:
        for lane in self._lanes:
            lane.close()
