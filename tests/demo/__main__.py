"""The demo's entry point: runs a replay and prints a table."""

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
    """Progress: a line that changes in a terminal, otherwise a few lines."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._changes = sys.stdout.isatty()
        self._drawn_s = 0.0
        self._quarters = 0

    def print_line(self, line: str) -> None:
        self._clear()
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

    def _clear(self) -> None:
        if self._changes:
            print("\r\033[K", end="")


def table(outcome: Outcome) -> str:
    """The counts and latencies of a run."""
    verdict = outcome.verdict
    counts = {
        "sent": verdict.sent,
        "received": verdict.received,
        "lost": verdict.lost,
        "duplicated": verdict.duplicated,
        "out of order": verdict.out_of_order,
    }
    if verdict.unknown:
        counts["unknown"] = verdict.unknown
    lines = [f"  {name:<14}{count:>12,}" for name, count in counts.items()]
    for percent in (50, 99):
        value = percentile(verdict.undisturbed_ms, percent)
        lines.append(f"  {f'latency p{percent}':<14}{value:>12,.1f} ms")
    waited = len(verdict.latencies_ms) - len(verdict.undisturbed_ms)
    all_p99, slowest = (percentile(verdict.latencies_ms, percent) for percent in (99, 100))
    lines += [
        "",
        "Latency is from the publish request to the receipt. It excludes readings that were",
        f"queued without a socket ({waited:,}); with them p99 is {all_p99:,.1f}, maximum {slowest:,.1f} ms.",
        f"Took {outcome.took_s:.1f} s; {outcome.sockets} sockets, {outcome.retries} repeated requests.",
    ]
    return "\n".join(lines)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.demo",
        description="Replays a year of hourly temperatures through the gateway and counts what arrives.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--url", help="URL of a running gateway; default: the demo starts its own")
    parser.add_argument(
        "--admin-token", help="admin token of the running gateway; default: read from --data-dir"
    )
    parser.add_argument(
        "--data-dir", type=Path, default=Path(".data"), help="data folder of the running gateway"
    )
    parser.add_argument("--readings", type=_count, default=None, help="number of readings; default: all")
    parser.add_argument(
        "--rate",
        type=_count,
        default=1500,
        help="maximum of readings per second",
    )
    parser.add_argument("--batch", type=_count, default=25, help="readings per publish request")
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
    screen.print_line("starting a gateway in a temporary folder")
    async with own_stack() as stack:
        yield stack


def _token_in(data_dir: Path) -> str:
    try:
        return (data_dir / "admin-token").read_text().strip()
    except OSError as error:
        raise StackFailed(
            f"no admin token: pass --admin-token, or a --data-dir that has one ({error})"
        ) from None


async def _run(arguments: argparse.Namespace) -> bool:
    everything = readings()[: arguments.readings]
    screen = Screen(len(everything))
    async with _stack(arguments, screen) as stack:
        screen.print_line(
            f"replaying {len(everything):,} readings of {' and '.join(DEVICES)} into {stack.url},"
            f" {arguments.rate:,} per second"
        )
        pace = Pace(rate=arguments.rate, batch=arguments.batch)
        outcome = await replay(
            everything, stack=stack, pace=pace, print_line=screen.print_line, show=screen.show
        )
        screen.print_line(f"\n{table(outcome)}")
        return outcome.verdict.passed


async def _run_until_signal(arguments: argparse.Namespace) -> int:
    """A signal cancels the run, which then stops the gateway."""
    run = asyncio.create_task(_run(arguments))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, run.cancel)
    try:
        return 0 if await run else 1
    except asyncio.CancelledError:
        print("\nstopped", file=sys.stderr)
    except (StackFailed, AssertionError, aiohttp.ClientError, FileNotFoundError) as error:
        print(f"\nthe demo failed: {error}", file=sys.stderr)
    return 1


def main(argv: Sequence[str] | None = None) -> int:
    """0 when everything arrived in order, 1 when not, 2 on wrong arguments."""
    return asyncio.run(_run_until_signal(_arguments(argv)))


if __name__ == "__main__":
    sys.exit(main())
