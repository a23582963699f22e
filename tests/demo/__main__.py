"""The demo's command line: arguments in, a table and an exit code out."""

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from time import monotonic

import aiohttp

from tests.demo.readings import DEVICES, readings
from tests.demo.replay import Outcome, Pace, replay
from tests.demo.stack import Stack, StackFailed, own_stack
from tests.demo.tally import Tally, percentile

_REDRAW_S = 0.1
_PLAIN_LINES = 4


class Screen:
    """Progress: one line that changes on a terminal, a few plain lines elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._changes = sys.stdout.isatty()
        self._drawn_s = 0.0
        self._quarters = 0

    def say(self, line: str) -> None:
        self._wipe()
        print(line, flush=True)

    def show(self, tally: Tally) -> None:
        line = f"published {tally.sent:>7,}   received {tally.received:>7,} of {self._total:,}"
        if self._changes:
            now_s = monotonic()
            if now_s - self._drawn_s >= _REDRAW_S:
                self._drawn_s = now_s
                print(f"\r\033[K{line}", end="", flush=True)
            return
        quarters = tally.received * _PLAIN_LINES // self._total
        if quarters > self._quarters:
            self._quarters = quarters
            print(line, flush=True)

    def _wipe(self) -> None:
        if self._changes:
            print("\r\033[K", end="")


def table(outcome: Outcome) -> str:
    """What a reader wants to know of a run."""
    verdict = outcome.verdict
    counts = {
        "sent": verdict.sent,
        "received": verdict.received,
        "lost": verdict.lost,
        "duplicated": verdict.duplicated,
        "out of order": verdict.out_of_order,
    }
    if verdict.unknown:
        counts["never sent"] = verdict.unknown
    lines = [f"  {name:<14}{count:>12,}" for name, count in counts.items()]
    for percent in (50, 99):
        value = percentile(verdict.undisturbed_ms, percent)
        lines.append(f"  {f'latency p{percent}':<14}{value:>12,.1f} ms")
    waited = len(verdict.latencies_ms) - len(verdict.undisturbed_ms)
    all_p99, slowest = (percentile(verdict.latencies_ms, percent) for percent in (99, 100))
    lines += [
        "",
        "Latency is from the publish request to the receipt. It leaves out the readings",
        f"that waited for a socket ({waited:,}); with them p99 is {all_p99:,.1f}, at most {slowest:,.1f} ms.",
        f"Took {outcome.took_s:.1f} s, {outcome.sockets} sockets and {outcome.retries} repeated requests.",
    ]
    return "\n".join(lines)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.demo",
        description="Replays a year of hourly temperatures through the gateway, and says what arrived.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--url", help="a running stack; without it, one is started and ended")
    parser.add_argument("--admin-token", help="of the running stack; without it, read from --data-dir")
    parser.add_argument("--data-dir", type=Path, default=Path(".data"), help="of the running stack")
    parser.add_argument("--readings", type=_count, default=None, help="how many; all when not given")
    parser.add_argument(
        "--rate",
        type=_count,
        default=1500,
        help="readings per second, at most: one request is under way at a time",
    )
    parser.add_argument("--batch", type=_count, default=25, help="readings in one publish request")
    return parser.parse_args(argv)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


@contextlib.asynccontextmanager
async def _stack(arguments: argparse.Namespace, screen: Screen) -> AsyncIterator[Stack]:
    if arguments.url is not None:
        yield Stack(arguments.url.rstrip("/"), arguments.admin_token or _token_in(arguments.data_dir))
        return
    screen.say("starting a stack of its own in a temporary folder")
    async with own_stack() as stack:
        yield stack


def _token_in(data_dir: Path) -> str:
    try:
        return (data_dir / "admin-token").read_text().strip()
    except OSError as fault:
        raise StackFailed(f"no --admin-token was given, and none can be read: {fault}") from None


async def _run(arguments: argparse.Namespace) -> bool:
    everything = readings()[: arguments.readings]
    screen = Screen(len(everything))
    async with _stack(arguments, screen) as stack:
        screen.say(
            f"replaying {len(everything):,} readings of {' and '.join(DEVICES)} into {stack.url},"
            f" {arguments.rate:,} a second"
        )
        pace = Pace(rate=arguments.rate, batch=arguments.batch)
        outcome = await replay(everything, stack=stack, pace=pace, say=screen.say, show=screen.show)
        screen.say(f"\n{table(outcome)}")
        return outcome.verdict.passed


async def _run_until_signal(arguments: argparse.Namespace) -> int:
    """A signal that would end the process cancels the run instead, so that the stack is ended too."""
    run = asyncio.create_task(_run(arguments))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, run.cancel)
    try:
        return 0 if await run else 1
    except asyncio.CancelledError:
        print("\nstopped", file=sys.stderr)
    except (StackFailed, AssertionError, aiohttp.ClientError, FileNotFoundError) as fault:
        print(f"\nthe demo failed: {fault}", file=sys.stderr)
    return 1


def main(argv: Sequence[str] | None = None) -> int:
    """0 when everything arrived in order, 1 when not, 2 on wrong arguments."""
    return asyncio.run(_run_until_signal(_arguments(argv)))


if __name__ == "__main__":
    sys.exit(main())
