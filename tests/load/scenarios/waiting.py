"""`backlog` and `fanout`: full queues get sockets, and one event goes to all channels."""

import asyncio

from tests.load.bench import Bench
from tests.load.latencies import now_us
from tests.load.measurement import Measurement, result_of
from tests.load.messages import Target
from tests.load.publishers import Plan
from tests.load.result import Result
from tests.load.scenarios.sockets import create_channels, endpoints
from tests.load.sockets import Sockets

_AT_ONCE = 100
_BATCH = 100
_ALL_CHANNELS = 99_999


async def backlog(bench: Bench, *, channels: int, waiting: int, label: str) -> Result:
    """Fills the queues; then all sockets connect, and the time until the last notification is measured."""
    await create_channels(bench, channels=channels)
    workers = bench.start_workers(Sockets)
    # One lane: each queue has one order.
    await bench.start_publishers([Target(number) for number in bench.channels], lanes=1)
    with bench.screen.stage("filling the queues"):
        filled = await bench.publish(Plan(requests=channels * waiting // _BATCH, array=_BATCH, together=True))
    before = bench.installation.redis_work
    with bench.screen.stage("draining", total=filled.events):
        async with bench.watching() as window:
            begin_us = now_us()
            await asyncio.gather(
                *(
                    worker.call("open", endpoints=endpoints(bench)[number :: len(workers)], at_once=_AT_ONCE)
                    for number, worker in enumerate(workers)
                )
            )
            await bench.wait_until_received()
            await bench.wait_for_acks()
    measured = await bench.measurement(window, filled, begin_us=begin_us, before=before)
    return _without_latencies(label, measured)


def _without_latencies(label: str, measured: Measurement) -> Result:
    """Leaves out latencies, which would be the time in the queue."""
    result = result_of(label, measured)
    messages = sum(part.messages for part in measured.by_worker)
    kept = {
        name: value for name, value in result.figures.items() if not name.startswith(("latency", "answer"))
    }
    kept.pop("published_per_s")
    result.figures = {
        "drained_after_s": round(measured.took_s, 3),
        "frames": float(messages),
        "frame_kib": round(sum(part.bytes for part in measured.by_worker) / 1024 / max(1, messages), 1),
        **kept,
    }
    return result


async def fanout(
    bench: Bench, *, channels: int, rate: float, seconds: float, warm_up_s: float, label: str
) -> Result:
    """Publishes every event to every channel."""
    with bench.screen.stage("creating channels", total=channels * 3):
        await bench.keys.create(channels)
        await bench.keys.register(range(channels))
        await bench.keys.subscribe(range(channels), to=lambda _: _ALL_CHANNELS)
    bench.channels = dict.fromkeys(range(channels), _ALL_CHANNELS)
    workers = bench.start_workers(Sockets)
    for number, worker in enumerate(workers):
        await worker.call("open", endpoints=endpoints(bench)[number :: len(workers)], at_once=_AT_ONCE)
    lanes = min(bench.options.lanes, 4)
    await bench.start_publishers([Target(_ALL_CHANNELS, fan=channels)], lanes=lanes)
    with bench.screen.stage("warming up"):
        await bench.warm_up(Plan(seconds=warm_up_s, rate=rate))
    with bench.screen.stage("measuring", total=int(rate * seconds * channels), start=bench.received):
        measured = await bench.measure(Plan(seconds=seconds, rate=rate))
    return result_of(label, measured)
