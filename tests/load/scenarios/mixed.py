"""`webhooks`, `poll` and `mixed`: events for channels that are no sockets, and for all kinds at once."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.load.bench import Bench, Stretch, result_of
from tests.load.hooks import Hooks
from tests.load.latencies import merged, percentiles_ms
from tests.load.messages import Target
from tests.load.polls import Polls
from tests.load.result import Result
from tests.load.scenarios.sockets import Stream, seats
from tests.load.sockets import Sockets

_AT_ONCE = 20


async def webhooks(bench: Bench, stream: Stream, *, dead: int, label: str) -> Result:
    """The dead are published to like all others, and pending nothing in the count."""
    await _introduced(bench, stream)
    await _listening(bench, range(stream.channels), dead=dead)
    return result_of(label, await _streamed(bench, stream))


async def polls(bench: Bench, stream: Stream, *, label: str) -> Result:
    await _introduced(bench, stream)
    await _polling(bench, range(stream.channels))
    return result_of(label, await _streamed(bench, stream))


async def mixed(bench: Bench, stream: Stream, *, dead: int, label: str) -> Result:
    """A third of the channels of each kind."""
    await _introduced(bench, stream)
    await _seated(bench, range(0, stream.channels, 3))
    await _listening(bench, range(1, stream.channels, 3), dead=dead)
    await _polling(bench, range(2, stream.channels, 3))
    stretch = await _streamed(bench, stream)
    result = result_of(label, stretch)
    kinds = {"sockets": Sockets, "webhooks": Hooks, "polls": Polls}
    result.figures = _by_kind(bench, stretch, kinds) | result.figures
    return result


def _by_kind(bench: Bench, stretch: Stretch, kinds: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for kind, role in kinds.items():
        told = percentiles_ms(merged(stretch.told[number].latencies for number in bench.hired(role)))
        figures |= {f"{kind}_{part}_ms": told[part] for part in ("p50", "p99") if part in told}
    return figures


async def _introduced(bench: Bench, stream: Stream) -> None:
    with bench.screen.stage("making API keys", total=stream.channels):
        await bench.parties.introduce(stream.channels)
    bench.channels = {number: number for number in range(stream.channels)}


async def _seated(bench: Bench, numbers: Sequence[int]) -> None:
    await bench.parties.register(numbers)
    workers = bench.hire(Sockets)
    ours = [seat for seat in seats(bench) if seat.channel in numbers]
    for number, worker in enumerate(workers):
        await worker.do("open", seats=ours[number :: len(workers)], at_once=_AT_ONCE)


async def _listening(bench: Bench, numbers: Sequence[int], *, dead: int) -> None:
    workers = bench.hire(Hooks)
    urls = [await worker.do("listen") for worker in workers]
    with bench.screen.stage("registering webhooks", total=len(numbers)):
        await bench.parties.register_webhooks({n: f"{urls[n % len(urls)]}{n}" for n in numbers})
    for worker in workers:
        await worker.do("die", channels=list(numbers[:dead]))
    for number in numbers[:dead]:
        del bench.channels[number]


async def _polling(bench: Bench, numbers: Sequence[int]) -> None:
    workers = bench.hire(Polls)
    ours = [seat for seat in seats(bench) if seat.channel in numbers]
    for number, worker in enumerate(workers):
        await worker.do("open", seats=ours[number :: len(workers)])


async def _streamed(bench: Bench, stream: Stream) -> Stretch:
    keys = bench.parties.receivers
    everyone = range(stream.channels)
    if stream.subscribed:
        await bench.parties.subscribe(everyone)
    await bench.hire_publishers([Target(n, to=None if stream.subscribed else keys[n].id) for n in everyone])
    with bench.screen.stage("warming up"):
        await bench.warm_up(stream.plan(stream.warm_up_s))
    total = int((stream.rate or 0) * stream.seconds * len(bench.channels) / stream.channels)
    with bench.screen.stage("measuring", total=total or None, start=bench.received):
        return await bench.stretch(stream.plan(stream.seconds))
