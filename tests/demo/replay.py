"""One run: publish, receive, tear the socket off half way, come back, and wait until nothing is pending."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from time import perf_counter

import aiohttp

from tests.demo.listener import Listener
from tests.demo.parties import introduced
from tests.demo.publisher import Publisher
from tests.demo.readings import Reading
from tests.demo.stack import Stack
from tests.demo.tally import Tally, Verdict
from tests.harness.api import Api, ApiKey

_AWAY_S = 0.5
_PATIENCE_S = 15
_LOOK_AGAIN_S = 0.05
_REQUEST_LIMIT = aiohttp.ClientTimeout(total=10)


@dataclass(frozen=True, slots=True)
class Pace:
    """Readings per second, and how many go into one request."""

    rate: float
    batch: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict on the readings, and what it took."""

    verdict: Verdict
    sockets: int
    retries: int
    took_s: float


async def replay(
    readings: Sequence[Reading],
    *,
    stack: Stack,
    pace: Pace,
    say: Callable[[str], None],
    show: Callable[[Tally], None],
) -> Outcome:
    """`say` gets a line now and then, `show` is called on every progress.

    Raises StackFailed or AssertionError when the stack refuses something, or is away for too long.
    """
    tally, start_s = Tally(), perf_counter()
    async with aiohttp.ClientSession(timeout=_REQUEST_LIMIT) as http:
        api = Api(http, stack.url, stack.admin_token)
        async with introduced(api) as parties:
            publisher = Publisher(api, parties.publisher, tally, pace.rate, pace.batch)
            listener = Listener(stack.url, parties.receiver, tally, lambda: show(tally))

            async def publish() -> None:
                await listener.opened.wait()
                await publisher.publish(readings)
                await _wait_for_the_rest(listener, api)

            async def listen() -> None:
                await listener.listen(tear_after=max(1, len(readings) // 2))
                say(f"tore the socket off after {tally.received:,} readings, without a goodbye")
                await asyncio.sleep(_AWAY_S)
                waiting = await _pending(api, parties.receiver)
                say(f"connecting again; {waiting or 0:,} readings wait in the queue")
                await listener.listen()

            await _until_one_ends(publish(), listen())
            took_s = perf_counter() - start_s
            return Outcome(tally.verdict(), listener.sockets, publisher.retries, took_s)


async def _wait_for_the_rest(listener: Listener, api: Api) -> None:
    """Returns when all has arrived and been acked, or nothing came for a good while.

    What has arrived and is not acked may come once more, and is then to be counted.
    """
    done_s = perf_counter()
    tally = listener.tally
    while tally.received < tally.sent or await _pending(api, listener.key) != 0:
        if perf_counter() - max(done_s, listener.last_arrival_s) > _PATIENCE_S:
            return
        await asyncio.sleep(_LOOK_AGAIN_S)


async def _pending(api: Api, key: ApiKey) -> int | None:
    """How much the channel is still pending; None when the stack cannot say now."""
    try:
        response = await api.channel(key)
    except (aiohttp.ClientError, TimeoutError):
        return None
    return int(response.json["queue_size"]) if response.status == 200 else None


async def _until_one_ends(*work: Coroutine[None, None, None]) -> None:
    """Raises what the first to end raises; the others are cancelled."""
    tasks = [asyncio.create_task(part) for part in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
