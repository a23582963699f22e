"""`idle`, `connect` and `takeover`: what sockets cost by being there, coming, and changing hands."""

import asyncio
import random
from collections.abc import Sequence

from tests.load.bench import Bench, closings, result_of
from tests.load.latencies import Latencies, merged, now_us
from tests.load.messages import Target
from tests.load.processes import look
from tests.load.publishers import Plan
from tests.load.result import Result, client_warnings, latency_figures, usage_figures
from tests.load.scenarios.sockets import seated, seats
from tests.load.sequences import Count
from tests.load.sockets import Opened, Seat, Sockets

_AT_ONCE = 100


async def _open(bench: Bench, some: Sequence[Seat], *, at_once: int, rate: float | None = None) -> Opened:
    """These sockets, opened by all workers side by side; µs by the clock at the end."""
    workers = bench.receivers
    parts: list[Opened] = await asyncio.gather(
        *(
            worker.do(
                "open",
                seats=some[number :: len(workers)],
                at_once=max(1, at_once // len(workers)),
                rate=rate / len(workers) if rate else None,
            )
            for number, worker in enumerate(workers)
        )
    )
    return Opened(
        took=merged(part.took for part in parts),
        retries=sum(part.retries for part in parts),
        last_us=max(part.last_us for part in parts),
    )


async def _all_open(bench: Bench, *, at_once: int, rate: float | None = None) -> Opened:
    """A socket for every channel."""
    return await _open(bench, seats(bench), at_once=at_once, rate=rate)


def _edge_memory(bench: Bench) -> int:
    watched = tuple(each for each in bench.site.watched if each.role == "edge")
    return sum(look(watched).rss.values())


async def idle(bench: Bench, *, channels: int, seconds: float, label: str) -> Result:
    """Memory of the edges for each socket, and what they and Redis do while nothing is to be done.

    Two fifths of the sockets come first and are not counted: what a process needs once, it has then. Memory
    is looked at when the others are open, and again at the end, when all have been pinged and looked at.
    """
    await seated(bench, channels=channels, subscribed=False)
    bench.hire(Sockets)
    everyone, first = seats(bench), channels * 2 // 5
    with bench.screen.stage("connecting"):
        await _open(bench, everyone[:first], at_once=_AT_ONCE)
        await bench.acked()
        before_bytes = _edge_memory(bench)
        await _open(bench, everyone[first:], at_once=_AT_ONCE)
        await bench.acked()
        opened_bytes = _edge_memory(bench)
    work = bench.site.redis_work
    with bench.screen.stage("idling"):
        async with bench.watching() as window:
            await asyncio.sleep(seconds)
    after = bench.site.redis_work
    figures = {"sockets": float(channels)}
    if before_bytes:
        for name, used in (("memory_each", opened_bytes), ("memory_each_at_the_end", _edge_memory(bench))):
            figures[f"{name}_kib"] = round((used - before_bytes) / 1024 / (channels - first), 2)
    for role in ("edge", "redis"):
        figures[f"idle_cpu_{role}_%"] = round(100 * window.cpu_s(role) / window.took_s, 2)
    if work is not None and after is not None:
        commands = after.since(work).commands
        figures["redis_commands_per_s"] = round(commands / window.took_s, 2)
        figures["redis_commands_each"] = round(commands / channels, 3)
    told = closings(await bench.told())
    return Result(
        label, figures | usage_figures(window), Count(), client_warnings(window) + told, window=window
    )


async def connect(
    bench: Bench, *, channels: int, rate: float | None, at_once: int, storm_limit_s: float, label: str
) -> Result:
    """Sockets come at a rate or as fast as they are let in; then all are cut and come back at once.

    Before, during and after the storm each channel is published to, and nothing of that may be lost.
    """
    await seated(bench, channels=channels, subscribed=False)
    bench.hire(Sockets)
    keys = bench.parties.receivers
    await bench.hire_publishers([Target(number, to=keys[number].id) for number in bench.channels], lanes=1)
    one_each = Plan(requests=-(-channels // _AT_ONCE), array=min(_AT_ONCE, channels))
    with bench.screen.stage("connecting"):
        async with bench.watching() as window:
            begin_us = now_us()
            first = await _all_open(bench, at_once=at_once, rate=rate)
    figures = {
        "sockets": float(channels),
        "connected_per_s": round(channels / ((first.last_us - begin_us) / 1e6), 1),
        **latency_figures(first.took, name="handshake"),
        **{
            f"cpu_{role}_each_us": round(window.cpu_s(role) * 1e6 / channels, 1) for role in ("edge", "redis")
        },
    }
    with bench.screen.stage("publishing to all"):
        await bench.publish(one_each)
        await bench.drained()
    with bench.screen.stage("a storm of reconnects"):
        for worker in bench.receivers:
            await worker.do("drop_all")
        begin_us = now_us()
        _, again = await asyncio.gather(bench.publish(one_each), _all_open(bench, at_once=channels))
        opened_s = (again.last_us - begin_us) / 1e6
        await bench.drained()
        await bench.publish(one_each)
        await bench.drained()
    acked_s = (now_us() - begin_us) / 1e6
    count = await bench.count()
    figures |= {"storm_open_s": round(opened_s, 3), "storm_acked_s": round(acked_s, 3)}
    figures |= latency_figures(again.took, name="storm_handshake") | usage_figures(window)
    warnings = client_warnings(window) + closings(await bench.told())
    if acked_s > storm_limit_s:
        warnings.append(f"the storm took longer than {storm_limit_s:.0f} s")
    for name, opened in (("first", first), ("storm", again)):
        if opened.retries:
            warnings.append(f"{name}: {opened.retries} handshakes had to be repeated")
    return Result(label, figures, count, warnings, again.took, window)


async def takeover(
    bench: Bench, *, channels: int, rate: float, takeovers: int, pause_s: float, label: str
) -> Result:
    """Under a stream of events one socket after the other is taken over, through the next edge."""
    targets = await seated(bench, channels=channels)
    workers = bench.hire(Sockets)
    await _all_open(bench, at_once=_AT_ONCE)
    await bench.hire_publishers(targets)
    took = Latencies()

    async def take_over_all() -> None:
        edges, place = bench.site.edges, dict.fromkeys(bench.channels, 0)
        for _ in range(takeovers):
            channel = random.randrange(channels)
            place[channel] += 1
            edge = edges[(channel + place[channel]) % len(edges)]
            seat = Seat(channel, edge, bench.parties.receivers[channel].secret)
            took.add(await workers[channel % len(workers)].do("take_over", seat=seat), at_us=now_us())
            await asyncio.sleep(pause_s)

    with bench.screen.stage("taking over"):
        before = bench.site.redis_work
        plan = Plan(seconds=takeovers * pause_s * 1.2 + 0.5, rate=rate)
        async with bench.watching() as window:
            begin_us = now_us()
            published, _ = await asyncio.gather(bench.publish(plan), take_over_all())
            await bench.drained()
            await bench.acked()
    result = result_of(label, await bench.stretched(window, published, begin_us=begin_us, before=before))
    result.figures = latency_figures(took, name="takeover") | result.figures
    return result
