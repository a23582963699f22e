"""`webhooks`, `poll` and `mixed`: events for webhooks, for long polls, and for all kinds of channels."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.load.bench import Bench
from tests.load.hooks import Hooks
from tests.load.latencies import merged, percentiles_ms
from tests.load.measurement import Measurement, result_of
from tests.load.messages import Target
from tests.load.polls import Polls
from tests.load.result import Result
from tests.load.scenarios.sockets import Stream, endpoints
from tests.load.sockets import Sockets

_AT_ONCE = 20


async def webhooks(bench: Bench, stream: Stream, *, dead: int, label: str) -> Result:
    """The silent webhooks get events like the others, and are left out of the count."""
    await _create_keys(bench, stream)
    await register_webhooks(bench, range(stream.channels), dead=dead)
    return result_of(label, await _measure(bench, stream))


async def polls(bench: Bench, stream: Stream, *, label: str) -> Result:
    await _create_keys(bench, stream)
    await _start_polls(bench, range(stream.channels))
    return result_of(label, await _measure(bench, stream))


async def mixed(bench: Bench, stream: Stream, *, dead: int, label: str) -> Result:
    """A third of the channels of each kind."""
    await _create_keys(bench, stream)
    await open_sockets(bench, range(0, stream.channels, 3))
    await register_webhooks(bench, range(1, stream.channels, 3), dead=dead)
    await _start_polls(bench, range(2, stream.channels, 3))
    measured = await _measure(bench, stream)
    result = result_of(label, measured)
    kinds = {"sockets": Sockets, "webhooks": Hooks, "polls": Polls}
    result.figures = figures_by_kind(bench, [measured], kinds) | result.figures
    return result


def figures_by_kind(
    bench: Bench, phases: Sequence[Measurement], kinds: Mapping[str, Callable[[], Any]]
) -> dict[str, float]:
    """p50 and p99 of each kind of receiver, over these phases."""
    figures: dict[str, float] = {}
    for kind, role in kinds.items():
        values = percentiles_ms(
            merged(phase.by_worker[number].latencies for phase in phases for number in bench.workers_of(role))
        )
        figures |= {f"{kind}_{part}_ms": values[part] for part in ("p50", "p99") if part in values}
    return figures


async def _create_keys(bench: Bench, stream: Stream) -> None:
    with bench.screen.stage("creating API keys", total=stream.channels):
        await bench.keys.create(stream.channels)
    bench.channels = {number: number for number in range(stream.channels)}


async def open_sockets(bench: Bench, numbers: Sequence[int]) -> None:
    await bench.keys.register(numbers)
    workers = bench.start_workers(Sockets)
    ours = [endpoint for endpoint in endpoints(bench) if endpoint.channel in numbers]
    for number, worker in enumerate(workers):
        await worker.call("open", endpoints=ours[number :: len(workers)], at_once=_AT_ONCE)


async def register_webhooks(bench: Bench, numbers: Sequence[int], *, dead: int) -> None:
    workers = bench.start_workers(Hooks)
    urls = [await worker.call("listen") for worker in workers]
    with bench.screen.stage("registering webhooks", total=len(numbers)):
        await bench.keys.register_webhooks({n: f"{urls[n % len(urls)]}{n}" for n in numbers})
    for worker in workers:
        await worker.call("stop_responding", channels=list(numbers[:dead]))
    for number in numbers[:dead]:
        del bench.channels[number]


async def _start_polls(bench: Bench, numbers: Sequence[int]) -> None:
    workers = bench.start_workers(Polls)
    ours = [endpoint for endpoint in endpoints(bench) if endpoint.channel in numbers]
    for number, worker in enumerate(workers):
        await worker.call("open", endpoints=ours[number :: len(workers)])


async def _measure(bench: Bench, stream: Stream) -> Measurement:
    keys = bench.keys.receivers
    everyone = range(stream.channels)
    if stream.subscribed:
        await bench.keys.subscribe(everyone)
    await bench.start_publishers([Target(n, to=None if stream.subscribed else keys[n].id) for n in everyone])
    with bench.screen.stage("warming up"):
        await bench.warm_up(stream.plan(stream.warm_up_s))
    total = int((stream.rate or 0) * stream.seconds * len(bench.channels) / stream.channels)
    with bench.screen.stage("measuring", total=total or None, start=bench.received):
        return await bench.measure(stream.plan(stream.seconds))
