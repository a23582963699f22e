"""`native-webhooks`: webhooks of an account, alone and beside a few of it that are in trouble or
in a replay."""

import asyncio
from collections.abc import Sequence

from tests.load.bench import Bench
from tests.load.hooks import Hooks
from tests.load.measurement import Measurement, combined, result_of
from tests.load.messages import Target
from tests.load.publishers import Plan
from tests.load.result import Result
from tests.load.scenarios.sockets import Stream, warn_if_late
from tests.load.workers import Worker

TROUBLES = ("dead", "busy", "slow")
_TIMEOUT_S = 5
# Each of them gets that many events a second.
_TROUBLED_RATE = 5.0
_RETAINED = "retained.events"


async def native_webhooks(
    bench: Bench, stream: Stream, *, rounds: int, replayed: int, label: str
) -> list[Result]:
    """The p99 of those that are well, alone and beside one that is dead, one at 429, one that is slow, and
    one in a replay of so many events.

    The phases alternate, so that a machine that becomes slower does so for both.
    """
    with bench.screen.stage("creating an account"):
        await bench.keys.create(0)
    well, troubled = range(stream.channels), range(stream.channels, stream.channels + len(TROUBLES))
    publishers = await _well(bench, well)
    in_trouble = await _troubled(bench, troubled)
    replaying = await _retaining(bench, troubled.stop, replayed)
    phases: dict[str, list[Measurement]] = {"alone": [], "beside troubled": []}
    for number in range(rounds):
        for name, measured in phases.items():
            if name != "alone":
                await bench.keys.replay(replaying, _RETAINED)
            with bench.screen.stage(f"warming up: {name}"):
                await bench.warm_up(stream.plan(stream.warm_up_s), by=publishers)
            beside = () if name == "alone" else in_trouble
            total = int((stream.rate or 0) * stream.seconds)
            with bench.screen.stage(f"measuring, round {number + 1}: {name}", total=total or None):
                measured.append(await _measure(bench, stream, publishers, beside))
            if name != "alone":
                await bench.keys.end_replay(replaying)
    whole = await bench.count()
    results = [result_of(f"{label}: {name}", combined(each, whole=whole)) for name, each in phases.items()]
    for result in results:
        warn_if_late(result, stream.rate)
    alone, beside_troubled = results
    ratio = beside_troubled.figures["latency_p99_ms"] / alone.figures["latency_p99_ms"]
    beside_troubled.figures = {"p99_ratio": round(ratio, 2)} | beside_troubled.figures
    return results


async def _measure(
    bench: Bench, stream: Stream, publishers: Sequence[Worker], beside: Sequence[Worker]
) -> Measurement:
    """Those in trouble get their events for as long as the others do; no other waits for what they take."""
    if not beside:
        return await bench.measure(stream.plan(stream.seconds), by=publishers)
    trouble = Plan(seconds=stream.seconds, rate=_TROUBLED_RATE * len(TROUBLES))
    measured, _ = await asyncio.gather(
        bench.measure(stream.plan(stream.seconds), by=publishers), bench.publish(trouble, by=beside)
    )
    return measured


async def _well(bench: Bench, numbers: Sequence[int]) -> list[Worker]:
    workers = bench.start_workers(Hooks)
    urls = [await worker.call("listen") for worker in workers]
    with bench.screen.stage("creating webhooks", total=len(numbers)):
        ids = await bench.keys.create_webhooks({n: f"{urls[n % len(urls)]}{n}" for n in numbers})
    bench.channels = {number: number for number in numbers}
    return await bench.start_publishers([Target(n, to=ids[n]) for n in numbers])


async def _troubled(bench: Bench, numbers: Sequence[int]) -> list[Worker]:
    """They are beside what is measured: their receiver is a helper, and `bench.channels` has none of them."""
    helper = bench.start_helper(Hooks)
    url = await helper.call("listen")
    ids = await bench.keys.create_webhooks({n: f"{url}{n}" for n in numbers}, timeout_s=_TIMEOUT_S)
    dead, busy, slow = numbers
    await helper.call("stop_responding", channels=[dead])
    await helper.call("refuse", channels=[busy])
    await helper.call("delay", channels=[slow], seconds=1.0)
    return await bench.start_publishers([Target(n, to=ids[n]) for n in numbers], lanes=len(numbers))


async def _retaining(bench: Bench, number: int, count: int) -> str:
    """Retains so many events; returns a webhook that takes them."""
    helper = bench.start_helper(Hooks)
    url = await helper.call("listen")
    await helper.call("ignore", channels=[number])
    [webhook] = (await bench.keys.create_webhooks({number: f"{url}{number}"}, bindings=[_RETAINED])).values()
    with bench.screen.stage(f"retaining {count} events"):
        await bench.keys.retain(_RETAINED, count)
    return webhook
