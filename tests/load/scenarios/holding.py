"""`idle`, `connect` and `takeover`: the cost of open sockets, of connecting, and of takeovers."""

import asyncio
import random
from collections.abc import Sequence

from tests.load.bench import Bench
from tests.load.latencies import Latencies, merged, now_us
from tests.load.measurement import result_of, unexpected_closes
from tests.load.messages import Target
from tests.load.processes import take_sample
from tests.load.publishers import Plan
from tests.load.result import Result, client_warnings, latency_figures, usage_figures
from tests.load.scenarios.sockets import create_channels, endpoints
from tests.load.sequences import Count
from tests.load.sockets import Endpoint, Opened, Sockets

_AT_ONCE = 100


async def _open(bench: Bench, some: Sequence[Endpoint], *, at_once: int, rate: float | None = None) -> Opened:
    """Opens these sockets on all workers in parallel."""
    workers = bench.receivers
    parts: list[Opened] = await asyncio.gather(
        *(
            worker.call(
                "open",
                endpoints=some[number :: len(workers)],
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
    """Opens a socket for every channel."""
    return await _open(bench, endpoints(bench), at_once=at_once, rate=rate)


def _edge_memory(bench: Bench) -> int:
    watched = tuple(each for each in bench.installation.watched if each.role == "edge")
    return sum(take_sample(watched).rss.values())


async def idle(bench: Bench, *, channels: int, seconds: float, label: str) -> Result:
    """Memory of the edges per socket, and the load of idle sockets on edges and Redis.

    Two fifths of the sockets come first and do not count: a process allocates its fixed memory then. Memory
    is read when the others are open, and again at the end, after pings and a sweep.
    """
    await create_channels(bench, channels=channels, subscribed=False)
    bench.start_workers(Sockets)
    everyone, first = endpoints(bench), channels * 2 // 5
    with bench.screen.stage("connecting"):
        await _open(bench, everyone[:first], at_once=_AT_ONCE)
        await bench.wait_for_acks()
        before_bytes = _edge_memory(bench)
        await _open(bench, everyone[first:], at_once=_AT_ONCE)
        await bench.wait_for_acks()
        opened_bytes = _edge_memory(bench)
    work = bench.installation.redis_work
    with bench.screen.stage("idling"):
        async with bench.watching() as window:
            await asyncio.sleep(seconds)
    after = bench.installation.redis_work
    redis = None if work is None or after is None else after.since(work)
    figures = {"sockets": float(channels)}
    if before_bytes:
        for name, used in (("memory_each", opened_bytes), ("memory_each_at_the_end", _edge_memory(bench))):
            figures[f"{name}_kib"] = round((used - before_bytes) / 1024 / (channels - first), 2)
    for role in ("edge", "redis"):
        figures[f"idle_cpu_{role}_%"] = round(100 * window.cpu_s(role) / window.took_s, 2)
    if redis is not None:
        figures["redis_commands_per_s"] = round(redis.commands / window.took_s, 2)
        figures["redis_commands_per_channel"] = round(redis.commands / channels, 3)
    closes = unexpected_closes(await bench.recorded())
    warnings = client_warnings(window) + closes
    return Result(label, figures | usage_figures(window), Count(), warnings, window=window, redis=redis)


async def connect(
    bench: Bench, *, channels: int, rate: float | None, at_once: int, storm_limit_s: float, label: str
) -> Result:
    """Sockets connect at a rate or as fast as possible; then all are cut and reconnect at once.

    Each channel gets events before, during and after this storm; none may be lost.
    """
    await create_channels(bench, channels=channels, subscribed=False)
    bench.start_workers(Sockets)
    keys = bench.keys.receivers
    await bench.start_publishers([Target(number, to=keys[number].id) for number in bench.channels], lanes=1)
    one_each = Plan(requests=-(-channels // _AT_ONCE), array=min(_AT_ONCE, channels))
    work = bench.installation.redis_work
    with bench.screen.stage("connecting"):
        async with bench.watching() as window:
            begin_us = now_us()
            first = await _all_open(bench, at_once=at_once, rate=rate)
    after = bench.installation.redis_work
    redis = None if work is None or after is None else after.since(work)
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
        await bench.wait_until_received()
    with bench.screen.stage("a storm of reconnects"):
        for worker in bench.receivers:
            await worker.call("drop_all")
        begin_us = now_us()
        _, again = await asyncio.gather(bench.publish(one_each), _all_open(bench, at_once=channels))
        opened_s = (again.last_us - begin_us) / 1e6
        await bench.wait_until_received()
        await bench.publish(one_each)
        await bench.wait_until_received()
    acked_s = (now_us() - begin_us) / 1e6
    count = await bench.count()
    figures |= {"storm_open_s": round(opened_s, 3), "storm_acked_s": round(acked_s, 3)}
    figures |= latency_figures(again.took, name="storm_handshake") | usage_figures(window)
    warnings = client_warnings(window) + unexpected_closes(await bench.recorded())
    if acked_s > storm_limit_s:
        warnings.append(f"the storm took longer than {storm_limit_s:.0f} s")
    for name, opened in (("first", first), ("storm", again)):
        if opened.retries:
            warnings.append(f"{name}: {opened.retries} handshakes were repeated")
    return Result(label, figures, count, warnings, again.took, window, redis, channels)


async def takeover(
    bench: Bench, *, channels: int, rate: float, takeovers: int, pause_s: float, label: str
) -> Result:
    """During a stream of events, one socket after the other is taken over through the next edge."""
    targets = await create_channels(bench, channels=channels)
    workers = bench.start_workers(Sockets)
    await _all_open(bench, at_once=_AT_ONCE)
    await bench.start_publishers(targets)
    took = Latencies()

    async def take_over_all() -> None:
        edges, moves = bench.installation.edges, dict.fromkeys(bench.channels, 0)
        for _ in range(takeovers):
            channel = random.randrange(channels)
            moves[channel] += 1
            edge = edges[(channel + moves[channel]) % len(edges)]
            endpoint = Endpoint(channel, edge, bench.keys.receivers[channel].secret)
            took.add(
                await workers[channel % len(workers)].call("take_over", endpoint=endpoint), at_us=now_us()
            )
            await asyncio.sleep(pause_s)

    with bench.screen.stage("taking over"):
        before = bench.installation.redis_work
        plan = Plan(seconds=takeovers * pause_s * 1.2 + 0.5, rate=rate)
        async with bench.watching() as window:
            begin_us = now_us()
            published, _ = await asyncio.gather(bench.publish(plan), take_over_all())
            await bench.wait_until_received()
            await bench.wait_for_acks()
    result = result_of(label, await bench.measurement(window, published, begin_us=begin_us, before=before))
    result.figures = latency_figures(took, name="takeover") | result.figures
    return result
