"""`sse`, `fanout --stream` and `resume`: readers of streams by Server-Sent Events."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.load.bench import Bench
from tests.load.latencies import merged, now_us
from tests.load.measurement import result_of
from tests.load.messages import Target
from tests.load.publishers import Plan
from tests.load.readers import Begun, Readers, Reading
from tests.load.result import Result, latency_figures
from tests.load.scenarios.sockets import Stream, warn_if_late
from tests.load.workers import Worker

_AT_ONCE = 100
_RULE = "load.#"
_LANES = 4
# How long events have waited for readers that were away, and what is published beside.
_OF_WAITING = ("latency", "answer", "published")


@dataclass(frozen=True, slots=True)
class Comeback:
    """The load of `resume`: events of the time in which all readers are away, and how many a stream keeps."""

    readers: int = 1000
    topics: int = 10
    missed: int = 100
    keep: int = 1000
    array: int = 10


async def sse(bench: Bench, stream: Stream, *, keep: int, label: str) -> Result:
    """A topic for each reader."""
    topics = range(stream.channels)
    targets = await _create(bench, readers=stream.channels, topics=stream.channels, keep=keep)
    bench.channels = {number: number for number in topics}
    await _open_all(bench)
    await bench.start_publishers(targets)
    with bench.screen.stage("warming up"):
        await bench.warm_up(stream.plan(stream.warm_up_s))
    total = int(stream.rate * stream.seconds) if stream.rate else None
    with bench.screen.stage("measuring", total=total, start=bench.received):
        result = result_of(label, await bench.measure(stream.plan(stream.seconds)))
    warn_if_late(result, stream.rate)
    return result


async def fanout(bench: Bench, stream: Stream, *, keep: int, label: str) -> Result:
    """One topic that all read."""
    targets = await _create(bench, readers=stream.channels, topics=1, keep=keep)
    begun = await _open_all(bench)
    await bench.start_publishers(targets, lanes=min(bench.options.lanes, _LANES))
    with bench.screen.stage("warming up"):
        await bench.warm_up(stream.plan(stream.warm_up_s))
    assert stream.rate is not None
    total = int(stream.rate * stream.seconds * stream.channels)
    with bench.screen.stage("measuring", total=total, start=bench.received):
        result = result_of(label, await bench.measure(stream.plan(stream.seconds)))
    result.figures = {"readers": float(stream.channels), **result.figures}
    _warn_of_retries(result, begun)
    warn_if_late(result, stream.rate)
    return result


async def resume(bench: Bench, load: Comeback, *, at_once: int, label: str) -> Result:
    """All readers are cut; while they are away, events come; then all come back with their last id.

    What a stream keeps no longer is `told`: the edge says so, and the harness believes it for what came
    between the reader's last event and its next one. What is missing otherwise is lost.
    """
    targets = await _create(bench, readers=load.readers, topics=load.topics, keep=load.keep)
    first = await _open_all(bench)
    await bench.start_publishers(targets, lanes=min(bench.options.lanes, _LANES))
    with bench.screen.stage("publishing to all"):
        await bench.warm_up(Plan(requests=load.topics))
    for worker in bench.receivers:
        await worker.call("drop_all")
    with bench.screen.stage("publishing to nobody"):
        lanes = min(bench.options.lanes, _LANES)
        # Each lane reaches each topic at least once.
        requests = -(-load.missed * load.topics // (lanes * load.array))
        await bench.publish(Plan(requests=max(load.topics, requests), array=load.array, together=True))
    before = bench.installation.redis_work
    with bench.screen.stage("all come back", start=bench.received):
        async with bench.watching() as window:
            begin_us = now_us()
            again = await _open_all(bench, at_once=at_once)
            # Also the answer to whether the hole of a reader has ended: it sees the next event of each lane.
            published = await bench.publish(Plan(requests=load.topics))
            await bench.wait_until_received()
    measured = await bench.measurement(window, published, begin_us=begin_us, before=before)
    result = result_of(label, measured)
    opened_s = max(1e-6, (again.last_us - begin_us) / 1e6)
    result.figures = {
        "readers": float(load.readers),
        "resumed_per_s": round(load.readers / opened_s, 1),
        "all_back_s": round(opened_s, 3),
        "caught_up_s": round(measured.took_s, 3),
        "recovered": float(again.recovered),
        **{f"told_{reason}": float(count) for reason, count in sorted(again.told.items())},
        **latency_figures(again.took, name="resume"),
        **_each(window.cpu_s, load.readers),
        **{name: value for name, value in result.figures.items() if not name.startswith(_OF_WAITING)},
    }
    for begun in (first, again):
        _warn_of_retries(result, begun)
    return result


def _each(cpu_s: Callable[[str], float], readers: int) -> dict[str, float]:
    return {f"cpu_{role}_each_us": round(cpu_s(role) * 1e6 / readers, 1) for role in ("edge", "redis")}


async def _create(bench: Bench, *, readers: int, topics: int, keep: int) -> list[Target]:
    """Creates the account; returns a target for each topic, which the readers share in turn."""
    with bench.screen.stage("creating streams"):
        await bench.keys.create(1)
        await bench.keys.read_streams(_RULE, keep)
    bench.channels = {number: number % topics for number in range(readers)}
    return [Target(number, fan=0, topic=_topic(number)) for number in range(topics)]


def _topic(number: int) -> str:
    return f"load.{number:05d}"


async def _open_all(bench: Bench, *, at_once: int = _AT_ONCE) -> Begun:
    """Opens a connection for each reader, by all workers in parallel; they begin at the end."""
    workers: Sequence[Worker] = bench.receivers or bench.start_workers(Readers)
    edges, [key] = bench.installation.edges, bench.keys.receivers
    readings = [
        Reading(number, edges[number % len(edges)], _topic(topic), key.secret)
        for number, topic in bench.channels.items()
    ]
    with bench.screen.stage("connecting"):
        parts: list[Begun] = await asyncio.gather(
            *(
                worker.call(
                    "open", readings=readings[number :: len(workers)], at_once=max(1, at_once // len(workers))
                )
                for number, worker in enumerate(workers)
            )
        )
    return Begun(
        took=merged(part.took for part in parts),
        retries=sum(part.retries for part in parts),
        last_us=max(part.last_us for part in parts),
        recovered=sum(part.recovered for part in parts),
        told=sum((part.told for part in parts), Counter()),
    )


def _warn_of_retries(result: Result, begun: Begun) -> None:
    if begun.retries:
        result.warnings.append(f"{begun.retries} requests of readers were repeated")
