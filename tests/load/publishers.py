"""A worker's role: publishes on many lanes, at a rate or one request after the other."""

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.load.connections import HttpConnection, Refused, Reply
from tests.load.latencies import Latencies, merged, now_us
from tests.load.messages import Target, Template, batch, head, template
from tests.load.sequences import SequenceKey

EVENTS_PATH = "/v1/events"
_RETRY_S = 0.1
_RETRY_LIMIT_S = 60


@dataclass(frozen=True, slots=True)
class Plan:
    """What to publish: for `seconds` or `requests` per lane, at `rate` events per second or at full speed.

    The events of a request have different targets in turn; `together`: all of them the same. The first
    event's target decides whose secret the request carries.
    """

    seconds: float | None = None
    requests: int | None = None
    rate: float | None = None
    array: int = 1
    together: bool = False


@dataclass(slots=True)
class Published:
    """The result of a plan. `behind`: how late requests were sent; `answered`: the latency of each 202."""

    events: int = 0
    requests: int = 0
    retries: int = 0
    answered: Latencies = field(default_factory=Latencies)
    behind: Latencies = field(default_factory=Latencies)


def all_published(parts: Iterable[Published]) -> Published:
    """The sum of several publishers, or of several plans."""
    parts = list(parts)
    return Published(
        events=sum(part.events for part in parts),
        requests=sum(part.requests for part in parts),
        retries=sum(part.retries for part in parts),
        answered=merged(part.answered for part in parts),
        behind=merged(part.behind for part in parts),
    )


class Lane:
    """One connection with one request in progress, or `window`; counts the events per target.

    A target's `heads` entry is the beginning of its requests, as far as the Content-Length.
    """

    def __init__(
        self,
        number: int,
        url: str,
        heads: Sequence[bytes],
        targets: Sequence[Target],
        templates: Sequence[Template],
    ) -> None:
        self.number = number
        self._url = url
        self._heads = heads
        self._targets = targets
        self._templates = templates
        self.accepted = [0] * len(targets)
        self._turn = 0
        self.stopped = False
        self.window = 1
        self._connection: HttpConnection | None = None

    def start_at(self, turn: int) -> None:
        """Spreads the lanes over the targets: all starting with the same would stay in step."""
        self._turn = turn % len(self._targets)

    @staticmethod
    def heads_for(url: str, secret: str, targets: Sequence[Target]) -> list[bytes]:
        """What the requests to each target begin with."""
        own = head("POST", url + EVENTS_PATH, token=secret)
        return [
            own if target.secret is None else head("POST", url + EVENTS_PATH, token=target.secret)
            for target in targets
        ]

    async def publish(self, plan: Plan, *, start_us: int, lanes: int, result: Published) -> None:
        """At full speed with as many requests in progress as the window has."""
        at_full_speed = plan.rate is None and plan.requests is None
        async with asyncio.TaskGroup() as group:
            for _ in range(self.window if at_full_speed else 1):
                group.create_task(self._carry_out(plan, start_us=start_us, lanes=lanes, result=result))

    async def _carry_out(self, plan: Plan, *, start_us: int, lanes: int, result: Published) -> None:
        interval_us = plan.array * lanes * 1e6 / plan.rate if plan.rate else 0.0
        first_us = start_us + interval_us * self.number / lanes
        end_us = start_us + plan.seconds * 1e6 if plan.seconds else None
        free_us = start_us
        for count in itertools.count():
            due_us = int(first_us + count * interval_us) if plan.rate else now_us()
            if self.stopped or count == plan.requests or (end_us is not None and due_us >= end_us):
                return
            if due_us > now_us():
                await asyncio.sleep((due_us - now_us()) / 1e6)
            asked_us = now_us()
            result.behind.add(asked_us - max(due_us, free_us), at_us=asked_us)
            # A request delayed by the response before it counts from the time it was due.
            await self._publish_one(plan, sent_us=due_us if free_us > due_us else asked_us, result=result)
            free_us = now_us()
            result.answered.add(free_us - asked_us, at_us=free_us)

    async def _publish_one(self, plan: Plan, *, sent_us: int, result: Published) -> None:
        events, wanted, first = [], [], self._heads[self._turn]
        for _ in range(plan.array):
            events.append(self._templates[self._turn].event(self.number, self.accepted[self._turn], sent_us))
            wanted.append(self._targets[self._turn].fan)
            self.accepted[self._turn] += 1
            if not plan.together:
                self._turn = (self._turn + 1) % len(self._targets)
        if plan.together:
            self._turn = (self._turn + 1) % len(self._targets)
        queued = [event["channels"] for event in await self._publish(first, events, result)]
        for fan, count in zip(wanted, queued, strict=True):
            if fan is not None and count != fan:
                raise Refused(f"an event for {fan} channels was queued for {count}")
        result.events += plan.array
        result.requests += 1

    async def _publish(self, head: bytes, events: Sequence[bytes], result: Published) -> Any:
        """What each event was answered."""
        body = batch(events)
        reply = await self._post(head + b"Content-Length: %d\r\n\r\n" % len(body) + body, result)
        return orjson.loads(reply.body)["events"]

    async def _post(self, request: bytes, result: Published) -> Reply:
        """Sends the request until it is accepted."""
        give_up_us = now_us() + _RETRY_LIMIT_S * 1_000_000
        while True:
            try:
                if self._connection is None or not self._connection.open_now:
                    self._connection = await HttpConnection.open(self._url)
                reply = await self._connection.request(request)
                problem = f"{reply.status}: {reply.body[:300]!r}"
            except OSError as error:
                reply, problem = Reply(503), repr(error)
            if reply.status == 202:
                return reply
            if reply.status != 503 or now_us() > give_up_us:
                raise Refused(f"publishing was refused: {problem}")
            result.retries += 1
            await asyncio.sleep(_RETRY_S)

    async def connect(self) -> None:
        self._connection = await HttpConnection.open(self._url)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


class Publishers:
    """A share of a run's lanes."""

    def __init__(self, lane: type[Lane] = Lane) -> None:
        self._lane = lane
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
        window: int = 1,
    ) -> None:
        """Creates these of `all_lanes`, connected to the gateways in turn."""
        templates = [template(target, size=size) for target in targets]
        heads = {url: self._lane.heads_for(url, secret, targets) for url in gateways}
        self._targets, self._all = targets, all_lanes
        for number in lanes:
            url = gateways[number % len(gateways)]
            lane = self._lane(number, url, heads[url], targets, templates)
            lane.window = window
            lane.start_at(number * len(targets) // all_lanes)
            self._lanes.append(lane)
        await asyncio.gather(*(lane.connect() for lane in self._lanes))

    async def publish(self, *, plan: Plan, start_us: int) -> Published:
        result = Published()
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(lane.publish(plan, start_us=start_us, lanes=self._all, result=result))
        return result

    async def accepted(self) -> dict[SequenceKey, int]:
        """Accepted events by target and lane."""
        return {
            (target.number, lane.number): count
            for lane in self._lanes
            for target, count in zip(self._targets, lane.accepted, strict=True)
            if count
        }

    async def stop(self) -> None:
        """Ends the plan that is carried out, each lane after its request in progress."""
        for lane in self._lanes:
            lane.stopped = True

    async def close(self) -> None:
        for lane in self._lanes:
            lane.close()
