"""`native`: events for durable channels whose owners are sockets of `notify.v1`, with acks by frame."""

from tests.load.bench import Bench
from tests.load.measurement import result_of
from tests.load.messages import Target
from tests.load.native_sockets import NativeSockets, Owner
from tests.load.result import Result
from tests.load.scenarios.sockets import Stream, warn_if_late

_AT_ONCE = 20


async def native(bench: Bench, stream: Stream, *, label: str) -> Result:
    """Without a rate: as fast as events are accepted."""
    targets = await _create(bench, stream)
    await bench.start_publishers(targets)
    with bench.screen.stage("warming up"):
        await bench.warm_up(stream.plan(stream.warm_up_s))
    total = int(stream.rate * stream.seconds) if stream.rate else None
    with bench.screen.stage("measuring", total=total, start=bench.received):
        result = result_of(label, await bench.measure(stream.plan(stream.seconds)))
    warn_if_late(result, stream.rate)
    return result


async def _create(bench: Bench, stream: Stream) -> list[Target]:
    """Creates the channels, and opens a socket for each; returns the targets to publish to."""
    numbers = range(stream.channels)
    with bench.screen.stage("creating channels", total=stream.channels):
        await bench.keys.create(0)
        ids = await bench.keys.create_sockets({number: _topic(number) for number in numbers})
    secret = await bench.keys.owner()
    edges = bench.installation.edges
    owners = [Owner(number, edges[number % len(edges)], ids[number], secret) for number in numbers]
    workers = bench.start_workers(NativeSockets)
    for number, worker in enumerate(workers):
        await worker.call("open", owners=owners[number :: len(workers)], at_once=_AT_ONCE)
    bench.channels = {number: number for number in numbers}
    return [
        Target(number, topic=_topic(number)) if stream.subscribed else Target(number, to=ids[number])
        for number in numbers
    ]


def _topic(number: int) -> str:
    return f"load.{number:05d}"
