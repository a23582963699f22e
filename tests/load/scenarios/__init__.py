"""The scenarios by name: what each is asked on the command line, and how it is run."""

import argparse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.load.bench import Bench
from tests.load.result import Result
from tests.load.scenarios import options, sockets
from tests.load.site import Site, Size

OpenBench = Callable[[Site], Bench]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way to use the gateway. `run` gets a fresh bench."""

    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Bench, argparse.Namespace], Awaitable[Result]]
    dispatchers: int = 0


def sizes(scenario: Scenario, arguments: argparse.Namespace) -> Size:
    """The installation that a scenario wants when it is started for it."""
    return Size(
        gateways=arguments.gateways,
        edges=arguments.edges,
        dispatchers=scenario.dispatchers,
        appendfsync=arguments.appendfsync,
        tcp=not arguments.unix,
    )


async def _sockets(bench: Bench, arguments: argparse.Namespace) -> Result:
    return await sockets.sockets(bench, options.stream(arguments, rate=arguments.rate), label=arguments.label)


async def _saturate(bench: Bench, arguments: argparse.Namespace) -> Result:
    return await sockets.sockets(bench, options.stream(arguments, rate=None), label=arguments.label)


SCENARIOS = {
    "sockets": Scenario("events at a rate to channels with sockets: latency", options.for_sockets, _sockets),
    "saturate": Scenario("events as fast as they are taken: throughput", options.for_stream, _saturate),
}
