"""`backlog` and `fanout`: what waited goes out at once, and one event goes to everybody."""

import asyncio

from tests.load.bench import Bench, Stretch, result_of
from tests.load.latencies import now_us
from tests.load.messages import Target
from tests.load.publishers import Plan
from tests.load.result import Result
from tests.load.scenarios.sockets import seated, seats
from tests.load.sockets import Sockets

_AT_ONCE = 100
_BATCH = 100
_EVERYBODY = 99_999


async def backlog(bench: Bench, *, channels: int, waiting: int, label: str) -> Result:
    """So many wait in each queue; then all connect, and time runs until the last has come."""
    await seated(bench, channels=channels)
    workers = bench.hire(Sockets)
    # One lane, so that each queue has one order.
    await bench.hire_publishers([Target(number) for number in bench.channels], lanes=1)
    with bench.screen.stage("filling the queues"):
        filled = await bench.publish(Plan(requests=channels * waiting // _BATCH, array=_BATCH, together=True))
    before = bench.site.redis_work
    with bench.screen.stage("draining", total=filled.events):
        async with bench.watching() as window:
            begin_us = now_us()
            await asyncio.gather(
                *(
                    worker.do("open", seats=seats(bench)[number :: len(workers)], at_once=_AT_ONCE)
                    for number, worker in enumerate(workers)
                )
            )
            await bench.drained()
            await bench.acked()
    stretch = await bench.stretched(window, filled, begin_us=begin_us, before=before)
    return _drained(label, stretch)


def _drained(label: str, stretch: Stretch) -> Result:
    """Latency would be the time spent waiting for a socket: it is not told."""
    result = result_of(label, stretch)
    messages = sum(part.messages for part in stretch.told)
    kept = {
        name: value for name, value in result.figures.items() if not name.startswith(("latency", "answer"))
    }
    kept.pop("published_per_s")
    result.figures = {
        "drained_after_s": round(stretch.took_s, 3),
        "frames": float(messages),
        "frame_kib": round(sum(part.bytes for part in stretch.told) / 1024 / max(1, messages), 1),
        **kept,
    }
    return result


async def fanout(
    bench: Bench, *, channels: int, rate: float, seconds: float, warm_up_s: float, label: str
) -> Result:
    """Every event is for every channel."""
    with bench.screen.stage("making channels", total=channels * 3):
        await bench.parties.introduce(channels)
        await bench.parties.register(range(channels))
        await bench.parties.subscribe(range(channels), to=lambda _: _EVERYBODY)
    bench.channels = dict.fromkeys(range(channels), _EVERYBODY)
    workers = bench.hire(Sockets)
    for number, worker in enumerate(workers):
        await worker.do("open", seats=seats(bench)[number :: len(workers)], at_once=_AT_ONCE)
    lanes = min(bench.manner.lanes, 4)
    await bench.hire_publishers([Target(_EVERYBODY, fan=channels)], lanes=lanes)
    with bench.screen.stage("warming up"):
        await bench.warm_up(Plan(seconds=warm_up_s, rate=rate))
    with bench.screen.stage("measuring", total=int(rate * seconds * channels), start=bench.received):
        stretch = await bench.stretch(Plan(seconds=seconds, rate=rate))
    return result_of(label, stretch)
