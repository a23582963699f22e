"""One run: the installation, API keys, workers, and the measurement."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.load.installation import Installation
from tests.load.latencies import merged, now_us
from tests.load.measurement import Measurement
from tests.load.messages import Target
from tests.load.native_publishers import NativePublishers
from tests.load.probes import Wanted, observed
from tests.load.processes import Watched, Window
from tests.load.publishers import Plan, Published, Publishers, all_published
from tests.load.recorder import Received
from tests.load.redis_work import RedisWork
from tests.load.rest import ApiKeys, Rest
from tests.load.screen import Screen
from tests.load.sequences import Count, SequenceKey, count_all
from tests.load.workers import Worker

_START_US = 50_000
_SAMPLE_S = 0.5
_POLL_S = 0.05
# Acks, and duplicates if any, follow the receipt: their cost belongs to the measurement.
_ACK_S = 0.3


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of every scenario."""

    processes: int = 1
    lanes: int = 20
    size: int = 200
    patience_s: float = 15.0
    publisher: str | None = None
    window: int = 1
    observe: Wanted = field(default_factory=Wanted)


class Bench:
    """One run. `channels` maps each channel to the target whose events it receives."""

    def __init__(self, installation: Installation, options: RunOptions, screen: Screen) -> None:
        self.installation = installation
        self.options = options
        self.screen = screen
        self.rest = Rest(installation.gateways, installation.admin_token)
        self.keys = ApiKeys(self.rest, each=screen.step)
        self.channels: dict[int, int] = {}
        self.receivers: list[Worker] = []
        self.publishers: list[Worker] = []
        self._helpers: list[Worker] = []
        self._counted = Count()

    def start_workers(self, role: Callable[[], Any], *, processes: int | None = None) -> list[Worker]:
        """Starts receiving workers with this role."""
        name = getattr(role, "__name__", "role").lower()
        count = processes or self.options.processes
        first = len(self.receivers)
        made = [Worker(f"{name}-{first + number}", role) for number in range(count)]
        self.receivers += made
        return made

    def start_helper(self, role: Callable[[], Any]) -> Worker:
        """Starts a worker that neither publishes nor receives what is measured."""
        worker = Worker(f"helper-{len(self._helpers)}", role)
        self._helpers.append(worker)
        return worker

    def workers_of(self, role: Callable[[], Any]) -> list[int]:
        """The indexes of the receivers with this role."""
        name = getattr(role, "__name__", "role").lower()
        return [number for number, worker in enumerate(self.receivers) if worker.name.startswith(name)]

    async def start_publishers(
        self,
        targets: Sequence[Target],
        *,
        lanes: int | None = None,
        role: Callable[[], Publishers] | None = None,
    ) -> list[Worker]:
        """Starts publishers for these targets, beside earlier ones; by default as the options say."""
        lanes, where, window = lanes or self.options.lanes, self.installation.gateways, 1
        if role is None and self.options.publisher == "websocket":
            role, where, window = NativePublishers, self.installation.edges, self.options.window
        role = role or Publishers
        count, first = min(self.options.processes, lanes), len(self.publishers)
        made = [Worker(f"publisher-{first + number}", role) for number in range(count)]
        self.publishers += made
        await asyncio.gather(
            *(
                worker.call(
                    "prepare",
                    gateways=where,
                    secret=self.keys.publisher.secret,
                    lanes=range(number, lanes, count),
                    all_lanes=lanes,
                    targets=targets,
                    size=self.options.size,
                    window=window,
                )
                for number, worker in enumerate(made)
            )
        )
        return made

    @property
    def received(self) -> int:
        return sum(worker.received for worker in self.receivers)

    async def publish(self, plan: Plan, *, by: Sequence[Worker] | None = None) -> Published:
        """Carries out the plan on these publishers, by default on all."""
        start_us = now_us() + _START_US
        workers = self.publishers if by is None else by
        parts = await asyncio.gather(
            *(worker.call("publish", plan=plan, start_us=start_us) for worker in workers)
        )
        return all_published(parts)

    async def wait_until_received(self) -> None:
        """Waits until every accepted event has arrived, or none has for `patience_s`."""
        pending = sum((await self._pending()).values())
        received, since_us = self.received, now_us()
        while self.received < pending:
            if self.received > received:
                received, since_us = self.received, now_us()
            if now_us() - since_us > self.options.patience_s * 1e6:
                return
            self.screen.show(self.received)
            await asyncio.sleep(_POLL_S)

    async def wait_for_acks(self) -> None:
        """Gives the edges time to ack what has arrived."""
        await asyncio.sleep(_ACK_S)

    async def warm_up(self, plan: Plan, *, by: Sequence[Worker] | None = None) -> None:
        """The same work before the measurement, to reach a steady state."""
        await self.publish(plan, by=by)
        await self.wait_until_received()
        await self.reset()

    async def reset(self) -> None:
        """Starts the counts and latencies of the measurement."""
        self._counted = await self._count_all()
        await asyncio.gather(*(worker.call("reset") for worker in self.receivers))

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[Window]:
        """Samples all processes' CPU and memory during the block, and observes what the options want."""
        clients = [
            Watched(worker.name, "client", worker.pid)
            for worker in (*self.receivers, *self.publishers, *self._helpers)
        ]
        window = Window((*self.installation.watched, *clients, Watched("parent", "client", os.getpid())))

        async def sample() -> None:
            while True:
                await asyncio.sleep(_SAMPLE_S)
                window.take_sample()
                self.screen.show(self.received)

        async with observed(self.installation.watched, self.options.observe) as window.costs:
            window.take_sample()
            task = asyncio.create_task(sample())
            try:
                yield window
            finally:
                task.cancel()
                await asyncio.wait([task])
                window.take_sample()

    async def measure(self, plan: Plan, *, by: Sequence[Worker] | None = None) -> Measurement:
        """Carries out the plan and measures until the last notification is received and acked."""
        before = self.installation.redis_work
        async with self.watching() as window:
            begin_us = now_us() + _START_US
            published = await self.publish(plan, by=by)
            await self.wait_until_received()
            await self.wait_for_acks()
        return await self.measurement(window, published, begin_us=begin_us, before=before)

    async def measurement(
        self, window: Window, published: Published, *, begin_us: int, before: RedisWork | None = None
    ) -> Measurement:
        """Collects what the receivers recorded."""
        after = self.installation.redis_work
        by_worker = await self.recorded()
        whole = await self._count_all(by_worker)
        return Measurement(
            window=window,
            published=published,
            count=whole.since(self._counted),
            whole=whole,
            latencies=merged(part.latencies for part in by_worker),
            begin_us=begin_us,
            last_us=max((part.last_us for part in by_worker), default=begin_us),
            by_worker=by_worker,
            redis=None if after is None or before is None else after.since(before),
        )

    async def count(self, channels: Container[int] | None = None) -> Count:
        """Counts of the whole run so far, of these channels or of all; garbled messages are of no channel."""
        return await self._count_all(channels=channels)

    async def close(self) -> None:
        workers = [*self._helpers, *self.publishers, *self.receivers]
        for worker in workers:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(worker.call("close"), 10)
            worker.close()
        if self.installation.stack is None:
            await self.keys.revoke_all()
        await self.rest.close()

    async def accepted(self) -> dict[SequenceKey, int]:
        """Accepted events by target and lane; each lane belongs to one publisher."""
        whole: dict[SequenceKey, int] = {}
        for part in await asyncio.gather(*(worker.call("accepted") for worker in self.publishers)):
            for key, count in part.items():
                whole[key] = whole.get(key, 0) + count
        return whole

    async def recorded(self) -> list[Received]:
        """What each receiving worker has recorded."""
        return list(await asyncio.gather(*(worker.call("recorded") for worker in self.receivers)))

    async def _pending(self) -> dict[tuple[int, int], int]:
        """Accepted events by channel and lane."""
        accepted: dict[int, list[tuple[int, int]]] = {}
        for (target, lane), count in (await self.accepted()).items():
            accepted.setdefault(target, []).append((lane, count))
        return {
            (channel, lane): count
            for channel, target in self.channels.items()
            for lane, count in accepted.get(target, ())
        }

    async def _count_all(
        self, by_worker: Sequence[Received] | None = None, *, channels: Container[int] | None = None
    ) -> Count:
        by_worker = await self.recorded() if by_worker is None else by_worker
        pending = await self._pending()
        received = dict(each for part in by_worker for each in part.sequences)
        if channels is not None:
            pending = {key: value for key, value in pending.items() if key[0] in channels}
            received = {key: value for key, value in received.items() if key[0] in channels}
        count = count_all(pending, received.items())
        garbled = sum(part.garbled for part in by_worker)
        return count if not garbled else _with_unknown(count, garbled)


def _with_unknown(count: Count, more: int) -> Count:
    values = {name: getattr(count, name) for name in Count.__slots__}
    return Count(**(values | {"unknown": count.unknown + more}))
