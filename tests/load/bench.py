"""One run's workshop: the site, the parties, the workers, and the measured stretch of work."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.load.book import Told
from tests.load.crew import Worker
from tests.load.latencies import Latencies, merged, now_us, percentile
from tests.load.messages import Target
from tests.load.processes import Watched, Window
from tests.load.publishers import Plan, Published, Publishers
from tests.load.rest import Parties, Rest
from tests.load.result import Result, client_warnings, cpu_figures, latency_figures, usage_figures
from tests.load.screen import Screen
from tests.load.sequences import Count, counted
from tests.load.site import RedisWork, Site

_START_US = 50_000
_LOOK_S = 0.5
_DRAIN_LOOK_S = 0.05
# What has arrived is acked a moment later: that belongs to its price, and so do doubles.
_AFTER_S = 0.3


@dataclass(frozen=True, slots=True)
class Manner:
    """How the harness itself works, in every scenario."""

    processes: int = 1
    lanes: int = 20
    size: int = 200
    patience_s: float = 15.0


@dataclass(slots=True)
class Stretch:
    """A measured stretch of work. `count` is of this stretch alone, `whole` of the run up to its end."""

    window: Window
    published: Published
    count: Count
    whole: Count
    latencies: Latencies
    begin_us: int
    last_us: int
    told: list[Told]
    redis: RedisWork | None = None

    @property
    def took_s(self) -> float:
        """From the first request to the last receipt."""
        return max(1e-6, (self.last_us - self.begin_us) / 1e6)


class Bench:
    """Made anew for each run. `channels` says which target each channel's notifications are for."""

    def __init__(self, site: Site, manner: Manner, screen: Screen) -> None:
        self.site = site
        self.manner = manner
        self.screen = screen
        self.rest = Rest(site.gateways, site.admin_token)
        self.parties = Parties(self.rest, each=screen.step)
        self.channels: dict[int, int] = {}
        self.receivers: list[Worker] = []
        self._publishers: list[Worker] = []
        self._counted = Count()

    def hire(self, role: Callable[[], Any], *, processes: int | None = None) -> list[Worker]:
        """Workers that receive, in this role."""
        name = getattr(role, "__name__", "role").lower()
        count = processes or self.manner.processes
        first = len(self.receivers)
        made = [Worker(f"{name}-{first + number}", role) for number in range(count)]
        self.receivers += made
        return made

    def hired(self, role: Callable[[], Any]) -> list[int]:
        """Which of the receivers have this role."""
        name = getattr(role, "__name__", "role").lower()
        return [number for number, worker in enumerate(self.receivers) if worker.name.startswith(name)]

    async def hire_publishers(self, targets: Sequence[Target], *, lanes: int | None = None) -> None:
        lanes = lanes or self.manner.lanes
        count = min(self.manner.processes, lanes)
        self._publishers = [Worker(f"publisher-{number}", Publishers) for number in range(count)]
        await asyncio.gather(
            *(
                worker.do(
                    "prepare",
                    gateways=self.site.gateways,
                    secret=self.parties.publisher.secret,
                    lanes=range(number, lanes, count),
                    all_lanes=lanes,
                    targets=targets,
                    size=self.manner.size,
                )
                for number, worker in enumerate(self._publishers)
            )
        )

    @property
    def received(self) -> int:
        return sum(worker.received for worker in self.receivers)

    async def publish(self, plan: Plan) -> Published:
        """Publishes and comes back when all is answered."""
        start_us = now_us() + _START_US
        parts: list[Published] = await asyncio.gather(
            *(worker.do("publish", plan=plan, start_us=start_us) for worker in self._publishers)
        )
        return Published(
            events=sum(part.events for part in parts),
            requests=sum(part.requests for part in parts),
            retries=sum(part.retries for part in parts),
            answered=merged(part.answered for part in parts),
            behind=merged(part.behind for part in parts),
        )

    async def drained(self) -> None:
        """Waits until all that was taken has come, or nothing has for as long as patience lasts."""
        pending = sum((await self._pending()).values())
        heard, since_us = self.received, now_us()
        while self.received < pending:
            if self.received > heard:
                heard, since_us = self.received, now_us()
            if now_us() - since_us > self.manner.patience_s * 1e6:
                return
            self.screen.show(self.received)
            await asyncio.sleep(_DRAIN_LOOK_S)

    async def acked(self) -> None:
        """Leaves the edges the time to ack what has arrived."""
        await asyncio.sleep(_AFTER_S)

    async def warm_up(self, plan: Plan) -> None:
        """The same work before it is measured: all as it is in a long run."""
        await self.publish(plan)
        await self.drained()
        await self.turn_page()

    async def turn_page(self) -> None:
        """What comes from now on is counted by itself."""
        self._counted = await self._count_all()
        await asyncio.gather(*(worker.do("turn_page") for worker in self.receivers))

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[Window]:
        """Looks at all processes from now until the block is left."""
        clients = [
            Watched(worker.name, "client", worker.pid) for worker in (*self.receivers, *self._publishers)
        ]
        window = Window((*self.site.watched, *clients, Watched("parent", "client", os.getpid())))
        window.look()

        async def look_on() -> None:
            while True:
                await asyncio.sleep(_LOOK_S)
                window.look()
                self.screen.show(self.received)

        task = asyncio.create_task(look_on())
        try:
            yield window
        finally:
            task.cancel()
            await asyncio.wait([task])
            window.look()

    async def stretch(self, plan: Plan) -> Stretch:
        """The plan, measured until the last notification is here and acked."""
        before = self.site.redis_work
        async with self.watching() as window:
            begin_us = now_us() + _START_US
            published = await self.publish(plan)
            await self.drained()
            await self.acked()
        return await self.stretched(window, published, begin_us=begin_us, before=before)

    async def stretched(
        self, window: Window, published: Published, *, begin_us: int, before: RedisWork | None = None
    ) -> Stretch:
        """What came of it, with what the receivers tell."""
        after = self.site.redis_work
        told = await self.told()
        whole = await self._count_all(told)
        return Stretch(
            window=window,
            published=published,
            count=whole.since(self._counted),
            whole=whole,
            latencies=merged(part.latencies for part in told),
            begin_us=begin_us,
            last_us=max((part.last_us for part in told), default=begin_us),
            told=told,
            redis=None if after is None or before is None else after.since(before),
        )

    async def count(self) -> Count:
        """Of the whole run so far."""
        return await self._count_all()

    async def close(self) -> None:
        workers = [*self._publishers, *self.receivers]
        for worker in workers:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(worker.do("close"), 10)
            worker.close()
        if self.site.stack is None:
            await self.parties.leave()
        await self.rest.close()

    async def told(self) -> list[Told]:
        """The account of every worker that receives."""
        return list(await asyncio.gather(*(worker.do("told") for worker in self.receivers)))

    async def _pending(self) -> dict[tuple[int, int], int]:
        """By channel and lane: how many were taken for it."""
        parts = await asyncio.gather(*(worker.do("accepted") for worker in self._publishers))
        taken: dict[int, list[tuple[int, int]]] = {}
        for part in parts:
            for (target, lane), count in part.items():
                taken.setdefault(target, []).append((lane, count))
        return {
            (channel, lane): count
            for channel, target in self.channels.items()
            for lane, count in taken.get(target, ())
        }

    async def _count_all(self, told: Sequence[Told] | None = None) -> Count:
        told = await self.told() if told is None else told
        count = counted(await self._pending(), [each for part in told for each in part.sequences])
        garbled = sum(part.garbled for part in told)
        return count if not garbled else _with_unknown(count, garbled)


def _with_unknown(count: Count, more: int) -> Count:
    values = {name: getattr(count, name) for name in Count.__slots__}
    return Count(**(values | {"unknown": count.unknown + more}))


def result_of(label: str, stretch: Stretch) -> Result:
    """The figures that every scenario with a stream of notifications has."""
    delivered = stretch.count.received
    published = stretch.published
    figures = {
        "published_per_s": round(published.events / stretch.took_s, 1),
        "delivered_per_s": round(delivered / stretch.took_s, 1),
        **latency_figures(stretch.latencies),
        **latency_figures(published.answered, name="answer"),
        **cpu_figures(stretch.window, delivered),
        **usage_figures(stretch.window),
    }
    if stretch.redis is not None and delivered:
        figures["redis_commands_each"] = round(stretch.redis.commands / delivered, 2)
        figures["redis_reads_each"] = round(stretch.redis.reads / delivered, 2)
    behind_ms = percentile(published.behind.ordered(), 99) / 1000 if len(published.behind) else 0.0
    warnings = client_warnings(stretch.window, behind_p99_ms=behind_ms)
    if published.retries:
        warnings.append(f"{published.retries} requests had to be repeated")
    return Result(
        label, figures, stretch.whole, warnings + closings(stretch.told), stretch.latencies, stretch.window
    )


def closings(told: Sequence[Told]) -> list[str]:
    """Sockets that ended though nobody asked for it."""
    codes: dict[int, int] = {}
    for part in told:
        for code, count in part.closed.items():
            codes[code] = codes.get(code, 0) + count
    return [f"{count} sockets were closed with {code}" for code, count in sorted(codes.items())]
