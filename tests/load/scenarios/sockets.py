"""`sockets` and `saturate`: events for many channels, each with an open socket."""

from dataclasses import dataclass

from tests.load.bench import Bench, Stretch, result_of
from tests.load.messages import Target
from tests.load.publishers import Plan
from tests.load.result import Result
from tests.load.sockets import Seat, Sockets

_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Stream:
    """What `sockets` and `saturate` are told. Without a rate as much is published as is answered."""

    channels: int = 100
    rate: float | None = 1000.0
    seconds: float = 10.0
    warm_up_s: float = 2.0
    array: int = 1
    together: bool = False
    subscribed: bool = True

    def plan(self, seconds: float) -> Plan:
        return Plan(seconds=seconds, rate=self.rate, array=self.array, together=self.together)


async def seated(bench: Bench, *, channels: int, subscribed: bool = True) -> list[Target]:
    """Channels with an open socket each, spread over the edges and workers; whom to publish to."""
    with bench.screen.stage("making channels", total=channels * (3 if subscribed else 2)):
        await bench.parties.introduce(channels)
        await bench.parties.register(range(channels))
        if subscribed:
            await bench.parties.subscribe(range(channels))
    bench.channels = {number: number for number in range(channels)}
    keys = bench.parties.receivers
    return [Target(number, to=None if subscribed else keys[number].id) for number in range(channels)]


def seats(bench: Bench, *, first_edge: int = 0) -> list[Seat]:
    edges = bench.site.edges
    return [
        Seat(number, edges[(number + first_edge) % len(edges)], bench.parties.receivers[number].secret)
        for number in bench.channels
    ]


async def streamed(bench: Bench, stream: Stream) -> Stretch:
    targets = await seated(bench, channels=stream.channels, subscribed=stream.subscribed)
    workers = bench.hire(Sockets)
    everyone = seats(bench)
    for number, worker in enumerate(workers):
        await worker.do("open", seats=everyone[number :: len(workers)], at_once=_AT_ONCE)
    await bench.hire_publishers(targets)
    with bench.screen.stage("warming up"):
        await bench.warm_up(stream.plan(stream.warm_up_s))
    total = int(stream.rate * stream.seconds) if stream.rate else None
    with bench.screen.stage("measuring", total=total, start=bench.received):
        return await bench.stretch(stream.plan(stream.seconds))


async def sockets(bench: Bench, stream: Stream, *, label: str = "sockets") -> Result:
    result = result_of(label, await streamed(bench, stream))
    if stream.rate is not None and result.figures["published_per_s"] < 0.95 * stream.rate:
        result.warnings.append(f"{stream.rate:,.0f} a second were asked for, and fewer went through")
    return result
