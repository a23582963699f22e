"""One run: publish, receive, cut the socket half way, reconnect, and wait until nothing is pending."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from time import perf_counter

import aiohttp

from tests.demo.listener import Listener
from tests.demo.parties import created_keys
from tests.demo.publisher import Publisher
from tests.demo.readings import Reading
from tests.demo.stack import Stack
from tests.demo.tally import Tally, Verdict
from tests.harness.api import Api, ApiKey

_DISCONNECTED_S = 0.5
_PATIENCE_S = 15
_POLL_S = 0.05
_REQUEST_LIMIT = aiohttp.ClientTimeout(total=10)


@dataclass(frozen=True, slots=True)
class Pace:
    """Readings per second and per request."""

    rate: float
    batch: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The counts of a run, its sockets, retries and duration."""

    verdict: Verdict
    sockets: int
    retries: int
    took_s: float


async def replay(
    readings: Sequence[Reading],
    *,
    stack: Stack,
    pace: Pace,
    print_line: Callable[[str], None],
    show: Callable[[Tally], None],
) -> Outcome:
    """Calls `print_line` for each stage and `show` on progress.

    Raises StackFailed or AssertionError if the gateway refuses a request or is unavailable for too long.
    """
    tally, start_s = Tally(), perf_counter()
    async with aiohttp.ClientSession(timeout=_REQUEST_LIMIT) as http:
        api = Api(http, stack.url, stack.admin_token)
        async with created_keys(api) as parties:
            publisher = Publisher(api, parties.publisher, tally, pace.rate, pace.batch)
            listener = Listener(stack.url, parties.receiver, tally, lambda: show(tally))

            async def publish() -> None:
                await listener.opened.wait()
                await publisher.publish(readings)
                await _wait_for_the_rest(listener, api)

            async def listen() -> None:
                await listener.listen(cut_after=max(1, len(readings) // 2))
                print_line(f"cut the socket after {tally.received:,} readings, without a close frame")
                await asyncio.sleep(_DISCONNECTED_S)
                waiting = await _pending(api, parties.receiver)
                print_line(f"reconnecting; {waiting or 0:,} readings are queued")
                await listener.listen()

            await _until_first_ends(publish(), listen())
            took_s = perf_counter() - start_s
            return Outcome(tally.verdict(), listener.sockets, publisher.retries, took_s)


async def _wait_for_the_rest(listener: Listener, api: Api) -> None:
    """Waits until everything has arrived and is acked, or nothing has arrived for _PATIENCE_S.

    An unacked reading may arrive again and would have to be counted.
    """
    done_s = perf_counter()
    tally = listener.tally
    while tally.received < tally.sent or await _pending(api, listener.key) != 0:
        if perf_counter() - max(done_s, listener.last_arrival_s) > _PATIENCE_S:
            return
        await asyncio.sleep(_POLL_S)


async def _pending(api: Api, key: ApiKey) -> int | None:
    """The size of the queue; None while the gateway is unavailable."""
    try:
        response = await api.channel(key)
    except (aiohttp.ClientError, TimeoutError):
        return None
    return int(response.json["queue_size"]) if response.status == 200 else None


async def _until_first_ends(*work: Coroutine[None, None, None]) -> None:
    """Waits for the first coroutine to end; raises its error, and cancels the others."""
    tasks = [asyncio.create_task(part) for part in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
