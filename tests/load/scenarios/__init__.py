"""The scenarios by name: their options and how they run."""

import argparse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.load.bench import Bench
from tests.load.installation import Size
from tests.load.publishers import Plan
from tests.load.result import Result
from tests.load.scenarios import (
    holding,
    mixed,
    native,
    native_webhooks,
    neighbours,
    options,
    rollout,
    sockets,
    streams,
    tenants,
    waiting,
)
from tests.load.scenarios.sockets import Stream


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario. `run` gets a new bench; its results are columns of one table."""

    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Bench, argparse.Namespace], Awaitable[list[Result]]]
    dispatchers: int = 0
    variants: Callable[[argparse.Namespace], list[argparse.Namespace]] = lambda given: [given]
    """The runs of the scenario, each with its own installation; one by default."""


def size_of(scenario: Scenario, arguments: argparse.Namespace) -> Size:
    """The size of the installation to start for a scenario."""
    return Size(
        gateways=arguments.gateways,
        edges=arguments.edges,
        dispatchers=scenario.dispatchers,
        appendfsync=arguments.appendfsync,
        tcp=not arguments.unix,
    )


async def _sockets(bench: Bench, given: argparse.Namespace) -> list[Result]:
    return [await sockets.sockets(bench, options.stream(given, rate=given.rate), label=given.label)]


async def _saturate(bench: Bench, given: argparse.Namespace) -> list[Result]:
    return [await sockets.sockets(bench, options.stream(given, rate=None), label=given.label)]


async def _native(bench: Bench, given: argparse.Namespace) -> list[Result]:
    return [await native.native(bench, options.stream(given, rate=given.rate), label=given.label)]


async def _idle(bench: Bench, given: argparse.Namespace) -> list[Result]:
    return [await holding.idle(bench, channels=given.channels, seconds=given.seconds, label=given.label)]


async def _connect(bench: Bench, given: argparse.Namespace) -> list[Result]:
    return [
        await holding.connect(
            bench,
            channels=given.channels,
            rate=given.rate,
            at_once=given.at_once,
            storm_limit_s=given.storm_limit,
            label=given.label,
        )
    ]


async def _takeover(bench: Bench, given: argparse.Namespace) -> list[Result]:
    return [
        await holding.takeover(
            bench,
            channels=given.channels,
            rate=given.rate,
            takeovers=given.takeovers,
            pause_s=given.pause,
            label=given.label,
        )
    ]


async def _fanout(bench: Bench, given: argparse.Namespace) -> list[Result]:
    if given.stream:
        stream = Stream(given.readers or options.READERS, given.rate, given.seconds, given.warm_up)
        return [await streams.fanout(bench, stream, keep=given.keep or options.KEEP, label=given.label)]
    return [
        await waiting.fanout(
            bench,
            channels=given.channels,
            rate=given.rate,
            seconds=given.seconds,
            warm_up_s=given.warm_up,
            label=given.label,
        )
    ]


async def _sse(bench: Bench, given: argparse.Namespace) -> list[Result]:
    stream = Stream(
        given.readers, given.rate, given.seconds, given.warm_up, array=given.array, together=given.together
    )
    return [await streams.sse(bench, stream, keep=given.keep, label=given.label)]


async def _resume(bench: Bench, given: argparse.Namespace) -> list[Result]:
    load = streams.Comeback(given.readers, given.topics, given.missed, given.keep, given.array)
    return [await streams.resume(bench, load, at_once=given.at_once, label=given.label)]


async def _backlog(bench: Bench, given: argparse.Namespace) -> list[Result]:
    return [await waiting.backlog(bench, channels=given.channels, waiting=given.waiting, label=given.label)]


async def _webhooks(bench: Bench, given: argparse.Namespace) -> list[Result]:
    return [
        await mixed.webhooks(
            bench, options.stream(given, rate=given.rate), dead=given.dead, label=given.label
        )
    ]


async def _native_webhooks(bench: Bench, given: argparse.Namespace) -> list[Result]:
    return await native_webhooks.native_webhooks(
        bench,
        Stream(channels=given.channels, rate=given.rate, seconds=given.seconds, warm_up_s=given.warm_up),
        rounds=given.rounds,
        replayed=given.replayed,
        label=given.label,
    )


async def _poll(bench: Bench, given: argparse.Namespace) -> list[Result]:
    return [await mixed.polls(bench, options.stream(given, rate=given.rate), label=given.label)]


async def _mixed(bench: Bench, given: argparse.Namespace) -> list[Result]:
    return [
        await mixed.mixed(bench, options.stream(given, rate=given.rate), dead=given.dead, label=given.label)
    ]


async def _tenants(bench: Bench, given: argparse.Namespace) -> list[Result]:
    return await tenants.tenants(
        bench,
        accounts=given.accounts,
        plan=Plan(seconds=given.seconds, rate=given.rate),
        warm_up_s=given.warm_up,
        rounds=given.rounds,
        label=given.label,
    )


async def _neighbours(bench: Bench, given: argparse.Namespace) -> list[Result]:
    return await neighbours.neighbours(
        bench,
        Stream(channels=given.channels, rate=given.rate, seconds=given.seconds, warm_up_s=given.warm_up),
        sizes=neighbours.Sizes(fan=given.fan, dead=given.dead),
        rounds=given.rounds,
        label=given.label,
    )


async def _rollout(bench: Bench, given: argparse.Namespace) -> list[Result]:
    crowd = rollout.Crowd(
        sockets=given.sockets,
        polls=given.polls,
        webhooks=given.webhooks,
        hooks_on=given.hooks_on,
        kazoo=given.kazoo,
        cognism=given.cognism,
        rate=given.rate,
        array=given.array,
        seconds=given.seconds,
        until_eof=given.until_eof,
    )
    return [await rollout.rollout(bench, crowd, label=given.label)]


def _sizes(given: argparse.Namespace) -> list[argparse.Namespace]:
    """The same load on installations of several sizes; `grow`: the same load per edge."""
    variants = []
    for gateways, edges in ((1, 1), (1, 2), (1, 4), (2, 1), (2, 2)):
        times = edges if given.grow else 1
        changes = {
            "gateways": gateways,
            "edges": edges,
            "rate": given.rate * times,
            "channels": given.channels * times,
            "label": f"{given.label} {gateways}g {edges}e",
        }
        variants.append(argparse.Namespace(**(vars(given) | changes)))
    return variants


SCENARIOS = {
    "sockets": Scenario("events at a rate to channels with sockets: latency", options.for_sockets, _sockets),
    "saturate": Scenario("events as fast as they are accepted: throughput", options.for_stream, _saturate),
    "native": Scenario(
        "events to channels whose owners are sockets of notify.v1, acked by frame: latency, or throughput",
        options.for_native,
        _native,
    ),
    "idle": Scenario("idle sockets: memory and CPU", options.for_idle, _idle),
    "connect": Scenario("sockets connect, and all reconnect at once", options.for_connect, _connect),
    "takeover": Scenario("takeovers under load", options.for_takeover, _takeover),
    "fanout": Scenario("every event to every channel, or to every reader", options.for_fanout, _fanout),
    "sse": Scenario("a stream for each reader: throughput, or latency at a rate", options.for_sse, _sse),
    "resume": Scenario("readers of streams are cut, and all come back", options.for_resume, _resume),
    "backlog": Scenario("sockets for full queues", options.for_backlog, _backlog),
    "tenants": Scenario(
        "one channel in each of many accounts, beside as many in one account", options.for_tenants, _tenants
    ),
    "neighbours": Scenario(
        "an account beside others that publish over their quota, fan out, flood, or have dead webhooks",
        options.for_neighbours,
        _neighbours,
        dispatchers=1,
    ),
    "rollout": Scenario(
        "clients that stay and publishers that repeat, while the installation is operated",
        options.for_rollout,
        _rollout,
        dispatchers=1,
    ),
    "webhooks": Scenario(
        "events to webhooks, some of which do not respond", options.for_webhooks, _webhooks, dispatchers=1
    ),
    "native-webhooks": Scenario(
        "webhooks of an account, alone and beside some of it that are dead, busy, slow, or in a replay",
        options.for_native_webhooks,
        _native_webhooks,
        dispatchers=1,
    ),
    "poll": Scenario("events to long polls", options.for_sockets, _poll),
    "mixed": Scenario("sockets, webhooks and polls at once", options.for_webhooks, _mixed, dispatchers=1),
    "scale": Scenario(
        "`sockets` on 1 to 4 edges and 1 to 2 gateways", options.for_scale, _sockets, variants=_sizes
    ),
}
