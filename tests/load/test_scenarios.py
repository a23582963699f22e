"""Every scenario on a small scale: it ends, loses nothing, and has its figures.

`mixed` covers the parts of `webhooks` and `poll`, and the smoke test runs `sockets`.
"""

from collections.abc import Iterator

import pytest

from tests.harness.stack import Stack, running_stack
from tests.load import command_line
from tests.load.bench import Bench, RunOptions
from tests.load.installation import Installation
from tests.load.processes import Watched
from tests.load.result import Result
from tests.load.scenarios import SCENARIOS
from tests.load.screen import Screen
from tests.load.sequences import Count

_STREAM = ("--channels", "4", "--seconds", "0.5", "--warm-up", "0.2")

CASES = {
    "sockets": ("--rate", "100", *_STREAM),
    "saturate": ("--array", "10", "--together", *_STREAM),
    "native": ("--publisher", "websocket", "--window", "4", *_STREAM),
    "idle": ("--channels", "5", "--seconds", "0.5"),
    "connect": ("--channels", "10"),
    "takeover": ("--channels", "2", "--takeovers", "5", "--pause", "0.05", "--rate", "100"),
    "fanout": ("--channels", "10", "--rate", "10", "--seconds", "0.5", "--warm-up", "0.2"),
    "sse": ("--readers", "4", "--rate", "100", *_STREAM[2:]),
    "resume": ("--readers", "8", "--topics", "2", "--missed", "40"),
    "backlog": ("--waiting", "500"),
    "tenants": ("--accounts", "5", "--rate", "100", "--rounds", "2", *_STREAM[2:]),
    "neighbours": ("--rate", "50", "--fan", "20", "--dead", "3", "--rounds", "1", *_STREAM),
    "rollout": ("--sockets", "4", "--polls", "2", "--array", "2", "--rate", "50", "--seconds", "0.5"),
    "webhooks": ("--rate", "50", *_STREAM),
    "native-webhooks": ("--rate", "50", "--rounds", "1", "--replayed", "100", *_STREAM),
    "poll": ("--rate", "50", *_STREAM),
    "mixed": ("--rate", "50", "--channels", "6", *_STREAM[2:]),
}
LONG = ("sockets", "webhooks", "native-webhooks", "poll", "neighbours", "tenants")
FIGURES = {
    "sockets": {"latency_p99_ms", "cpu_gateway_us", "cpu_edge_us", "cpu_redis_us", "cpu_all_us"},
    "saturate": {"delivered_per_s", "redis_scripts_per_notification", "redis_commands_per_notification"},
    "native": {"delivered_per_s", "latency_p50_ms", "cpu_edge_us"},
    "idle": {"memory_each_kib", "redis_commands_per_s"},
    "connect": {"connected_per_s", "storm_acked_s"},
    "takeover": {"takeover_p50_ms", "latency_max_ms"},
    "fanout": {"delivered_per_s", "latency_p50_ms"},
    "sse": {"delivered_per_s", "latency_p50_ms", "cpu_edge_us"},
    "resume": {"resumed_per_s", "caught_up_s", "resume_p99_ms", "cpu_edge_each_us", "recovered"},
    "backlog": {"drained_after_s", "frames"},
    "tenants": {"cpu_all_us", "cpu_all_ratio", "cpu_all_ratio_lowest", "redis_commands_per_notification"},
    "neighbours": {"sockets_p99_ms", "webhooks_p99_ms", "latency_p99_ms"},
    "rollout": {"gap_max_ms", "reconnects_per_socket", "repeated_more_than_once"},
    "webhooks": {"cpu_dispatcher_us", "latency_p50_ms"},
    "native-webhooks": {"latency_p99_ms", "cpu_dispatcher_us"},
    "poll": {"latency_p50_ms"},
    "mixed": {"sockets_p50_ms", "webhooks_p50_ms", "polls_p50_ms"},
}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack(edges=2, dispatchers=1, tcp=True, ALLOW_PRIVATE_CALLBACKS=1) as running:
        yield running


def installation_of(stack: Stack) -> Installation:
    roles = {"gateway": stack.gateways, "edge": stack.edges, "dispatcher": stack.dispatchers}
    watched = [Watched(each.name, role, each.pid) for role, services in roles.items() for each in services]
    return Installation(
        gateways=[each.url for each in stack.gateways],
        edges=[each.url for each in stack.edges],
        admin_token=stack.admin_token,
        watched=(*watched, Watched("redis", "redis", stack.valkey.pid)),
        stack=stack,
    )


async def run(stack: Stack, name: str, *more: str) -> list[Result]:
    arguments = command_line.arguments([name, *CASES[name], "--lanes", "2", "--label", "small", *more])
    options = RunOptions(lanes=arguments.lanes, publisher=arguments.publisher, window=arguments.window or 1)
    bench = Bench(installation_of(stack), options, Screen())
    try:
        return await SCENARIOS[name].run(bench, arguments)
    finally:
        await bench.keys.revoke_all()
        await bench.close()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name in LONG else ()) for name in CASES]
)
async def test_a_scenario_loses_nothing_and_has_its_figures(stack: Stack, name: str) -> None:
    results = await run(stack, name)
    for result in results:
        assert result.count.passed, result
        assert (result.count.received > 0) == (name != "idle")
    assert results[0].figures.keys() >= FIGURES[name]


async def test_tenants_has_a_result_for_many_accounts_and_one_for_one_account(stack: Stack) -> None:
    many, one = await run(stack, "tenants")
    # Two rounds of 0.7 s at 100 events per second each.
    assert many.count == one.count == Count(published=140, received=140)
    assert (many.figures["accounts"], one.figures["accounts"]) == (5, 1)
    assert (many.label, one.label) == ("small", "small, one account")
    assert many.redis is not None
    assert many.redis.calls["xadd"] == 100, "the warm-ups and the other group do not count"
    assert "cpu_all_ratio" not in one.figures


async def test_all_readers_of_a_stream_get_every_event(stack: Stack) -> None:
    [result] = await run(stack, "fanout", "--stream", "--readers", "30")
    assert result.count.passed, result
    # 0.7 s at 10 events per second, of which 0.2 s are the warm-up.
    assert result.count == Count(published=7 * 30, received=7 * 30)
    assert result.figures["readers"] == 30
    assert "cpu_edge_us" in result.figures


async def test_readers_come_back_without_a_hole(stack: Stack) -> None:
    [result] = await run(stack, "resume", "--keep", "1000")
    # By two lanes: an event to each topic before, two requests of 10 to each meanwhile, an event after it.
    assert result.count == Count(published=44 * 8, received=44 * 8)
    assert result.figures["recovered"] == 8
    assert not [warning for warning in result.warnings if "readers" in warning or "closed" in warning]


async def test_readers_are_told_of_what_their_streams_keep_no_longer(stack: Stack) -> None:
    [result] = await run(stack, "resume", "--keep", "15")
    assert result.count == Count(published=44 * 8, received=19 * 8, told=25 * 8)
    assert (result.figures["recovered"], result.figures["told_trimmed"]) == (0, 8)


def test_every_scenario_but_scale_has_a_case() -> None:
    assert set(CASES) == set(FIGURES) == set(SCENARIOS) - {"scale"}


def test_scale_is_the_same_load_on_several_sizes() -> None:
    parsed = command_line.arguments(["scale", "--rate", "100", "--channels", "10", "--label", "s"])
    variants = SCENARIOS["scale"].variants(parsed)
    assert {(each.gateways, each.edges) for each in variants} == {(1, 1), (1, 2), (1, 4), (2, 1), (2, 2)}
    assert {(each.rate, each.channels) for each in variants} == {(100, 10)}
    assert len({each.label for each in variants}) == len(variants)
    parsed.grow = True
    grown = {(each.gateways, each.edges): each for each in SCENARIOS["scale"].variants(parsed)}
    assert (grown[1, 4].rate, grown[1, 4].channels, grown[1, 1].rate) == (400, 40, 100)
