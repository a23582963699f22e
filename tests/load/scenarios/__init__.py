"""The scenarios by name: what each is asked on the command line, and how it is run."""

import argparse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.load.bench import Bench
from tests.load.result import Result
from tests.load.scenarios import holding, mixed, options, sockets, waiting
from tests.load.site import Size


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way to use the gateway. `run` gets a fresh bench."""

    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Bench, argparse.Namespace], Awaitable[Result]]
    dispatchers: int = 0
    variants: Callable[[argparse.Namespace], list[argparse.Namespace]] = lambda told: [told]
    """The runs it consists of, each with an installation of its own; one when nothing else is said."""


def size_of(scenario: Scenario, arguments: argparse.Namespace) -> Size:
    """The installation that is started for a scenario."""
    return Size(
        gateways=arguments.gateways,
        edges=arguments.edges,
        dispatchers=scenario.dispatchers,
        appendfsync=arguments.appendfsync,
        tcp=not arguments.unix,
    )


async def _sockets(bench: Bench, told: argparse.Namespace) -> Result:
    return await sockets.sockets(bench, options.stream(told, rate=told.rate), label=told.label)


async def _saturate(bench: Bench, told: argparse.Namespace) -> Result:
    return await sockets.sockets(bench, options.stream(told, rate=None), label=told.label)


async def _idle(bench: Bench, told: argparse.Namespace) -> Result:
    return await holding.idle(bench, channels=told.channels, seconds=told.seconds, label=told.label)


async def _connect(bench: Bench, told: argparse.Namespace) -> Result:
    return await holding.connect(
        bench,
        channels=told.channels,
        rate=told.rate,
        at_once=told.at_once,
        storm_limit_s=told.storm_limit,
        label=told.label,
    )


async def _takeover(bench: Bench, told: argparse.Namespace) -> Result:
    return await holding.takeover(
        bench,
        channels=told.channels,
        rate=told.rate,
        takeovers=told.takeovers,
        pause_s=told.pause,
        label=told.label,
    )


async def _fanout(bench: Bench, told: argparse.Namespace) -> Result:
    return await waiting.fanout(
        bench,
        channels=told.channels,
        rate=told.rate,
        seconds=told.seconds,
        warm_up_s=told.warm_up,
        label=told.label,
    )


async def _backlog(bench: Bench, told: argparse.Namespace) -> Result:
    return await waiting.backlog(bench, channels=told.channels, waiting=told.waiting, label=told.label)


async def _webhooks(bench: Bench, told: argparse.Namespace) -> Result:
    return await mixed.webhooks(bench, options.stream(told, rate=told.rate), dead=told.dead, label=told.label)


async def _poll(bench: Bench, told: argparse.Namespace) -> Result:
    return await mixed.polls(bench, options.stream(told, rate=told.rate), label=told.label)


async def _mixed(bench: Bench, told: argparse.Namespace) -> Result:
    return await mixed.mixed(bench, options.stream(told, rate=told.rate), dead=told.dead, label=told.label)


def _sizes(told: argparse.Namespace) -> list[argparse.Namespace]:
    """The same work on installations of several sizes; `grow`: the same work for each edge."""
    variants = []
    for gateways, edges in ((1, 1), (1, 2), (1, 4), (2, 1), (2, 2)):
        times = edges if told.grow else 1
        changes = {
            "gateways": gateways,
            "edges": edges,
            "rate": told.rate * times,
            "channels": told.channels * times,
            "label": f"{told.label} {gateways}g {edges}e",
        }
        variants.append(argparse.Namespace(**(vars(told) | changes)))
    return variants


SCENARIOS = {
    "sockets": Scenario("events at a rate to channels with sockets: latency", options.for_sockets, _sockets),
    "saturate": Scenario("events as fast as they are taken: throughput", options.for_stream, _saturate),
    "idle": Scenario("sockets with nothing to tell: memory and CPU", options.for_idle, _idle),
    "connect": Scenario("sockets come, and all come back at once", options.for_connect, _connect),
    "takeover": Scenario("sockets are taken over under load", options.for_takeover, _takeover),
    "fanout": Scenario("every event to every channel", options.for_fanout, _fanout),
    "backlog": Scenario("full queues, then sockets", options.for_backlog, _backlog),
    "webhooks": Scenario("events to webhooks, some dead", options.for_webhooks, _webhooks, dispatchers=1),
    "poll": Scenario("events to applications that poll", options.for_sockets, _poll),
    "mixed": Scenario("sockets, webhooks and polls at once", options.for_webhooks, _mixed, dispatchers=1),
    "scale": Scenario(
        "sockets on 1 to 4 edges, 1 and 2 gateways", options.for_scale, _sockets, variants=_sizes
    ),
}
