"""`rollout`: clients that stay and publishers that repeat, while somebody operates the installation."""

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.load.bench import Bench
from tests.load.latencies import percentile
from tests.load.measurement import Measurement, result_of
from tests.load.messages import Target
from tests.load.publishers import Plan
from tests.load.repeating import Repeated, Repeating
from tests.load.result import Result
from tests.load.scenarios.sockets import endpoints
from tests.load.staying import Stayed, Staying

_CONNECT_LIMIT_S = 60
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who is connected, what is published, how long; `until_eof`: at most until standard input ends."""

    sockets: int = 100
    polls: int = 10
    rate: float = 200.0
    array: int = 10
    seconds: float = 30.0
    until_eof: bool = False


async def rollout(bench: Bench, crowd: Crowd, *, label: str) -> Result:
    staying = await _connect(bench, crowd)
    targets = [Target(number, to=bench.keys.receivers[number].id) for number in bench.channels]
    publishers = await bench.start_publishers(targets, role=Repeating)
    ended = asyncio.Event()
    if crowd.until_eof:
        _set_at_end_of_input(ended)

    async def end_early() -> None:
        await ended.wait()
        await asyncio.gather(*(worker.call("stop") for worker in publishers))

    ending = asyncio.create_task(end_early())
    plan = Plan(seconds=crowd.seconds, rate=crowd.rate, array=crowd.array)
    try:
        with bench.screen.stage("publishing", total=int(crowd.rate * crowd.seconds), start=bench.received):
            measured = await bench.measure(plan)
        stayed = await _everyone_is_back(bench, staying)
        repeated = [await worker.call("repeated") for worker in publishers]
    finally:
        ending.cancel()
    return _result(label, measured, crowd=crowd, stayed=stayed, repeated=repeated)


async def _connect(bench: Bench, crowd: Crowd) -> list[int]:
    """The numbers of the workers whose clients stay."""
    everyone = range(crowd.sockets + crowd.polls)
    with bench.screen.stage("creating channels", total=2 * crowd.sockets + crowd.polls):
        await bench.keys.create(len(everyone))
        await bench.keys.register(range(crowd.sockets))
    bench.channels = {number: number for number in everyone}
    every = endpoints(bench)
    sockets, polls = every[: crowd.sockets], every[crowd.sockets :]
    workers = bench.start_workers(Staying)
    count = len(workers)
    with bench.screen.stage("connecting"):
        await asyncio.gather(
            *(
                worker.call(
                    "open",
                    sockets=sockets[number::count],
                    polls=polls[number::count],
                    within_s=_CONNECT_LIMIT_S,
                )
                for number, worker in enumerate(workers)
            )
        )
    return bench.workers_of(Staying)


async def _everyone_is_back(bench: Bench, staying: Sequence[int]) -> list[Stayed]:
    """How the clients fared; waits a while for those that are away at the end."""
    give_up_s = asyncio.get_running_loop().time() + bench.options.patience_s
    while True:
        stayed = [await bench.receivers[number].call("stayed") for number in staying]
        if not sum(part.away for part in stayed) or asyncio.get_running_loop().time() > give_up_s:
            return stayed
        await asyncio.sleep(_POLL_S)


def _result(
    label: str, measured: Measurement, *, crowd: Crowd, stayed: Sequence[Stayed], repeated: Sequence[Repeated]
) -> Result:
    gaps_us = sorted(gap for part in stayed for own in part.gaps_us.values() for gap in own)
    result = result_of(label, measured)
    result.figures |= {
        "reconnects": sum(part.reconnects for part in stayed),
        "reconnects_per_socket": round(sum(part.reconnects for part in stayed) / max(1, crowd.sockets), 3),
        **{f"gap_p{percent}_ms": _ms(gaps_us, percent) for percent in (50, 99)},
        "gap_max_ms": _ms(gaps_us, 100),
        "away_at_the_end": sum(part.away for part in stayed),
        "repeated_requests": sum(part.requests for part in repeated),
        "repeated_more_than_once": sum(part.more_than_once for part in repeated),
    }
    result.warnings += _counted("sockets were closed with", sum((part.closes for part in stayed), Counter()))
    refused = sum((part.refused for part in stayed), Counter[str]())
    result.warnings += _counted("connects were refused by", refused)
    again = sum((part.refused for part in repeated), Counter[str]())
    result.warnings += _counted("requests were refused by", again)
    return result


def _counted(what: str, causes: "Counter[str]") -> list[str]:
    return [f"{count} {what} {cause}" for cause, count in causes.most_common()]


def _ms(ordered_us: Sequence[int], percent: float) -> float:
    return round(percentile(ordered_us, percent) / 1000, 1) if ordered_us else 0.0


def _set_at_end_of_input(ended: asyncio.Event) -> None:
    """A thread, since a loop can wait for pipes but not for files."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=read, daemon=True).start()
