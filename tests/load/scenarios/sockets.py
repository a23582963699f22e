"""`sockets` and `saturate`: events for many channels, each with an open socket."""

from dataclasses import dataclass

from tests.load.bench import Bench
from tests.load.measurement import Measurement, result_of
from tests.load.messages import Target
from tests.load.publishers import Plan
from tests.load.result import Result
from tests.load.sockets import Endpoint, Sockets

_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Stream:
    """The load of `sockets` and `saturate`. Without a rate: one request after the other."""

    channels: int = 100
    rate: float | None = 1000.0
    seconds: float = 10.0
    warm_up_s: float = 2.0
    array: int = 1
    together: bool = False
    subscribed: bool = True

    def plan(self, seconds: float) -> Plan:
        return Plan(seconds=seconds, rate=self.rate, array=self.array, together=self.together)


async def create_channels(bench: Bench, *, channels: int, subscribed: bool = True) -> list[Target]:
    """Creates channels; returns the targets to publish to."""
    with bench.screen.stage("creating channels", total=channels * (3 if subscribed else 2)):
        await bench.keys.create(channels)
        await bench.keys.register(range(channels))
        if subscribed:
            await bench.keys.subscribe(range(channels))
    bench.channels = {number: number for number in range(channels)}
    keys = bench.keys.receivers
    return [Target(number, to=None if subscribed else keys[number].id) for number in range(channels)]


def endpoints(bench: Bench, *, first_edge: int = 0) -> list[Endpoint]:
    edges = bench.installation.edges
    return [
        Endpoint(number, edges[(number + first_edge) % len(edges)], bench.keys.receivers[number].secret)
        for number in bench.channels
    ]


async def measure_stream(bench: Bench, stream: Stream) -> Measurement:
    targets = await create_channels(bench, channels=stream.channels, subscribed=stream.subscribed)
    workers = bench.start_workers(Sockets)
    everyone = endpoints(bench)
    for number, worker in enumerate(workers):
        await worker.call("open", endpoints=everyone[number :: len(workers)], at_once=_AT_ONCE)
    await bench.start_publishers(targets)
    with bench.screen.stage("warming up"):
        await bench.warm_up(stream.plan(stream.warm_up_s))
    total = int(stream.rate * stream.seconds) if stream.rate else None
    with bench.screen.stage("measuring", total=total, start=bench.received):
        return await bench.measure(stream.plan(stream.seconds))


async def sockets(bench: Bench, stream: Stream, *, label: str = "sockets") -> Result:
    result = result_of(label, await measure_stream(bench, stream))
    warn_if_late(result, stream.rate)
    return result


def warn_if_late(result: Result, rate: float | None) -> None:
    """Warns if the requested rate was not reached."""
    if rate is not None and result.figures["published_per_s"] < 0.95 * rate:
        result.warnings.append(f"fewer than the requested {rate:,.0f} events per second were published")
