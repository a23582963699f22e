"""The load harness's entry point: runs a scenario; prints a table, writes results and a report."""

import argparse
import asyncio
import contextlib
import json
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from tests.load import command_line
from tests.load.bench import Bench, RunOptions
from tests.load.connections import Refused
from tests.load.cost_tables import cost_tables
from tests.load.installation import Installation, own_installation
from tests.load.probes import Wanted
from tests.load.processes import Watched
from tests.load.report import page
from tests.load.result import Result, machine
from tests.load.scenarios import SCENARIOS, Scenario, size_of
from tests.load.screen import Screen
from tests.load.table import comparison, read_lines, table
from tests.load.workers import WorkerFailed


def main(argv: Sequence[str] | None = None) -> int:
    """0 when everything arrived in order, 1 when not, 2 on wrong arguments."""
    arguments = command_line.arguments(argv)
    _raise_file_limit()
    screen = Screen()
    try:
        earlier = read_lines(arguments.compare) if arguments.compare else []
        results = asyncio.run(_run_until_signal(arguments, screen))
    except (AssertionError, OSError, Refused, WorkerFailed, ValueError) as error:
        print(f"the run failed: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        print("stopped", file=sys.stderr)
        return 1
    print(table(results))
    options, where = _options(arguments), machine()
    lines = [result.line(options, where) for result in results]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("a") as out:
        out.writelines(json.dumps(line) + "\n" for line in lines)
    arguments.html.parent.mkdir(parents=True, exist_ok=True)
    arguments.html.write_text(page(results, options, where))
    costs = arguments.html.with_suffix(".costs.txt")
    costs.write_text("\n\n".join(cost_tables(result) for result in results) + "\n")
    print(f"plots are in {arguments.html}, costs by command and function in {costs}", file=sys.stderr)
    if earlier:
        print(comparison(lines, earlier))
    return 0 if all(result.count.passed for result in results) else 1


async def _run_until_signal(arguments: argparse.Namespace, screen: Screen) -> list[Result]:
    """A signal cancels the run, which then stops the processes that it has started."""
    run = asyncio.create_task(_run(arguments, screen))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, run.cancel)
    return await run


async def _run(arguments: argparse.Namespace, screen: Screen) -> list[Result]:
    scenario = SCENARIOS[arguments.scenario]
    run_options = RunOptions(
        processes=arguments.processes,
        lanes=arguments.lanes,
        size=arguments.size,
        patience_s=arguments.patience,
        publisher=arguments.publisher,
        window=arguments.window or 1,
        observe=Wanted(arguments.system_calls, arguments.profile, arguments.native),
    )
    results = []
    for variant in scenario.variants(arguments):
        with _installation(variant, scenario, screen) as installation:
            bench = Bench(installation, run_options, screen)
            try:
                results += await scenario.run(bench, variant)
            finally:
                await bench.close()
    return results


@contextlib.contextmanager
def _installation(
    arguments: argparse.Namespace, scenario: Scenario, screen: Screen
) -> Iterator[Installation]:
    if arguments.url:
        watched = tuple(_watched(text) for text in arguments.pid)
        edges = arguments.edge_url or arguments.url
        yield Installation([url.rstrip("/") for url in arguments.url], edges, arguments.admin_token, watched)
        return
    with contextlib.ExitStack() as stack:
        with screen.stage("starting"):
            installation = stack.enter_context(own_installation(size_of(scenario, arguments)))
        yield installation


def _watched(text: str) -> Watched:
    role, _, pid = text.partition("=")
    return Watched(f"{role}-{pid}", role, int(pid))


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments that define the measurement; without secrets and paths."""
    excluded = ("admin_token", "out", "html", "compare", "label", "url", "edge_url", "pid")
    return {name: value for name, value in vars(arguments).items() if name not in excluded}


def _raise_file_limit() -> None:
    """For thousands of sockets; child processes inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
