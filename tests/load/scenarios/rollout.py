"""`rollout`: clients that stay and publishers that repeat, while the installation is operated.

Channels are numbered in this order: sockets, polls, webhooks, then sessions, which have no queue.
"""

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.load.bench import Bench
from tests.load.hooks import Hooks
from tests.load.latencies import percentile
from tests.load.measurement import Measurement, result_of
from tests.load.messages import Target
from tests.load.publishers import Plan
from tests.load.repeating import Repeated, Repeating
from tests.load.result import Result
from tests.load.scenarios.sockets import endpoints
from tests.load.sessions import COGNISM, KAZOO, SessionCount, Sessions, topic_of
from tests.load.sockets import Endpoint
from tests.load.staying import Stayed, Staying
from tests.load.workers import Worker

_CONNECT_LIMIT_S = 60
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who is connected, what is published, how long; `until_eof`: at most until standard input ends."""

    sockets: int = 100
    polls: int = 10
    webhooks: int = 0
    kazoo: int = 0
    cognism: int = 0
    hooks_on: str = "127.0.0.1"
    rate: float = 200.0
    array: int = 10
    seconds: float = 30.0
    until_eof: bool = False

    @property
    def queued(self) -> int:
        """The channels that have a queue."""
        return self.sockets + self.polls + self.webhooks


async def rollout(bench: Bench, crowd: Crowd, *, label: str) -> Result:
    staying = await _connect(bench, crowd)
    sessions = await _join(bench, crowd)
    targets = [Target(number, to=bench.keys.receivers[number].id) for number in bench.channels]
    targets += [
        Target(each.channel, fan=None, topic=topic_of(each.channel)) for each in _of_sessions(bench, crowd)
    ]
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
        stayed = await _everyone_is_back(bench, [bench.receivers[number] for number in staying])
        repeated = [await worker.call("repeated") for worker in publishers]
        result = _result(label, measured, crowd=crowd, stayed=stayed, repeated=repeated)
        if sessions is not None:
            await _add_sessions(bench, sessions, result, count=crowd.kazoo + crowd.cognism)
    finally:
        ending.cancel()
    return result


async def _connect(bench: Bench, crowd: Crowd) -> list[int]:
    """The numbers of the workers whose clients stay."""
    hooks = range(crowd.sockets + crowd.polls, crowd.queued)
    with bench.screen.stage("creating channels", total=2 * crowd.sockets + crowd.polls):
        await bench.keys.create(crowd.queued + crowd.kazoo + crowd.cognism)
        await bench.keys.register(range(crowd.sockets))
    bench.channels = {number: number for number in range(crowd.queued)}
    if hooks:
        [receiver] = bench.start_workers(Hooks, processes=1)
        url = await receiver.call("listen", address=crowd.hooks_on)
        with bench.screen.stage("registering webhooks", total=len(hooks)):
            await bench.keys.register_webhooks({number: f"{url}{number}" for number in hooks})
    every = endpoints(bench)
    sockets, polls = every[: crowd.sockets], every[crowd.sockets : hooks.start]
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


def _of_sessions(bench: Bench, crowd: Crowd) -> list[Endpoint]:
    edges = bench.installation.edges
    dialects = [KAZOO] * crowd.kazoo + [COGNISM] * crowd.cognism
    return [
        Endpoint(
            number,
            edges[number % len(edges)],
            bench.keys.receivers[number].secret,
            dialect,
            bench.keys.receivers[number].id,
        )
        for number, dialect in enumerate(dialects, crowd.queued)
    ]


async def _join(bench: Bench, crowd: Crowd) -> Worker | None:
    """The worker that holds the sessions. It is a helper: what they miss does not count as lost."""
    if not crowd.kazoo + crowd.cognism:
        return None
    worker = bench.start_helper(Sessions)
    with bench.screen.stage("joining"):
        sockets = _of_sessions(bench, crowd)
        await worker.call("open", sockets=sockets, polls=[], within_s=_CONNECT_LIMIT_S)
    return worker


async def _add_sessions(bench: Bench, worker: Worker, result: Result, *, count: int) -> None:
    [stayed] = await _everyone_is_back(bench, [worker])
    counted: SessionCount = await worker.call(
        "counted", published=await bench.accepted(), within_s=bench.options.patience_s
    )
    gaps_us = sorted(gap for own in stayed.gaps_us.values() for gap in own)
    result.figures |= {
        "session_published": counted.published,
        "session_received": counted.received,
        "session_lost": counted.lost,
        "session_missed": counted.missed,
        "session_reconnects_per_socket": round(stayed.reconnects / count, 3),
        "session_gap_max_ms": _ms(gaps_us, 100),
        "session_away_at_the_end": stayed.away,
    }
    if counted.garbled:
        result.warnings.append(f"{counted.garbled} frames of sessions were garbled")
    result.warnings += _counted("sessions were closed with", stayed.closes)
    result.warnings += _counted("joins were refused by", stayed.refused)


async def _everyone_is_back(bench: Bench, staying: Sequence[Worker]) -> list[Stayed]:
    """How the clients fared; waits a while for those that are away at the end."""
    give_up_s = asyncio.get_running_loop().time() + bench.options.patience_s
    while True:
        stayed = [await worker.call("stayed") for worker in staying]
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
