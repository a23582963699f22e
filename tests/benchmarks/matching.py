"""The cost of routing one event as an account's bindings grow: `python -m tests.benchmarks.matching`.

The same ten bindings match at every size. Exits with 1 if the largest account costs over three times the
smallest.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import orjson

from shared.model import matching
from shared.model.bindings import Source
from shared.model.events import Event
from shared.model.routing_table import RoutingTable
from shared.redis.client import connect
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.commands import commands_to
from shared.store.routing import Routing
from shared.wire.pelion.subscriptions import compiled
from tests.harness.valkey import Valkey
from tests.store.routing import table_of

SIZES = (10, 1_000, 100_000)
LIMIT = 3.0
MATCHING = 10
_ROUNDS = 1_000
_CHANGES = 100
_REPEATS = 5


@dataclass(frozen=True)
class Case:
    """One kind of binding, as stored: ten that match the event, and any number that do not."""

    name: str
    source: Source
    event: Event
    match: tuple[object, ...]
    others: Callable[[int], object]
    sizes: tuple[int, ...] = SIZES

    def bindings(self, count: int) -> Iterator[tuple[str, bytes]]:
        """`count` API keys with a binding each; the matching ones are spread evenly."""
        step = count // MATCHING
        for number in range(count):
            binding = self.others(number) if number % step else self.match[number // step]
            yield f"{number:032x}", json.dumps([binding]).encode()

    def fields_of(self, owner: str, stored: bytes) -> tuple[str | bytes, ...]:
        """The stored fields of one binding and its owner, an API key or a session."""
        binding = (f"{self.source}:{owner}", stored)
        if self.source is Source.SESSION:
            return binding
        return (f"key:{owner}", "", f"channel:{owner}:1", "", *binding)

    def find(self, table: RoutingTable) -> Collection[str]:
        """The receivers of the event, with the time to parse its data if that is needed."""
        matching._remembered.clear()
        if self.source is Source.SESSION:
            return table.sessions_for(self.event, json.loads(self.event.data))
        return table.channels_for(self.event)


def _other_topic(number: int) -> str:
    forms = ("orders.region-{}.created", "audit.{}.#", "*.region-{}.*", "#.never-{}", "orders.eu.created.{}")
    return forms[number % len(forms)].format(number)


def _other_subscription(number: int) -> dict[str, object]:
    forms: tuple[dict[str, object], ...] = (
        {"endpoint-name": f"device-{number}"},
        {"endpoint-name": f"device-{number}*", "resource-path": ["/3303/*"]},
        {"endpoint-name": "sensor-1", "resource-path": [f"/other-{number}/0"]},
        {"resource-path": [f"/other-{number}/*"]},
    )
    return forms[number % len(forms)]


def _other_data(number: int) -> dict[str, object]:
    forms: tuple[dict[str, object], ...] = (
        {"org": [f"org-{number}"]},
        {"type": ["job-join"], "org": [f"org-{number}", f"other-{number}"]},
        {"type": ["job-join"], "employee.title": [f"title-{number}*"]},
        {"type": ["*"], f"employee.field-{number}": ["*"]},
        {"tags": ["it"], "id": [f"id-{number}"]},
    )
    return {"data": forms[number % len(forms)]}


TOPICS = Case(
    name="plain topics",
    source=Source.TOPICS,
    event=Event(id="1", topic="orders.eu.created", data=b"1"),
    match=(
        *("orders.eu.created", "orders.*.created", "orders.#", "#.created", "*.eu.*"),
        *("orders.eu.#", "#.eu.created", "orders.eu.*", "*.*.created", "#"),
    ),
    others=_other_topic,
)
PRESUBSCRIPTIONS = Case(
    name="presubscriptions",
    source=Source.PRESUBSCRIPTIONS,
    event=Event(
        id="1",
        topic="device.notifications",
        data=b"{}",
        fields={"ep": "sensor-1", "path": "/3303/0/5700"},
    ),
    match=(
        *({"endpoint-name": name} for name in ("sensor-1", "sensor-*", "sensor*", "s*", "*")),
        *({"resource-path": [path]} for path in ("/3303/0/5700", "/3303/*", "*")),
        {"endpoint-name": "sensor-1", "resource-path": ["/3303/0/5700"]},
        {"endpoint-name": "sensor-*", "resource-path": ["/1", "/3303/*"]},
    ),
    others=_other_subscription,
)
SESSIONS = Case(
    name="patterns of Cognism sockets",
    source=Source.SESSION,
    event=Event(
        id="1",
        topic="trigger.job-join",
        data=b'{"type":"job-join","org":"IBM","employee":{"title":"CTO"},"tags":["it","usa"]}',
    ),
    match=tuple(
        {"data": fields}
        for fields in (
            *(
                {},
                {"type": ["job-join"]},
                {"type": ["job-leave", "job-join"]},
                {"org": ["I*"]},
                {"org": ["*BM"]},
            ),
            *({"tags": ["usa"]}, {"employee.title": ["C*O"]}, {"tags": ["it"], "org": ["IBM"]}),
            *({"type": ["job-*"], "org": ["IBM", "Apple"]}, {"type": ["*"], "employee.title": ["CTO"]}),
        )
    ),
    others=_other_data,
    # Fewer: these are sockets of people and pages, not of devices.
    sizes=(10, 1_000, 10_000),
)
CASES = (TOPICS, PRESUBSCRIPTIONS, SESSIONS)


def routing_table(case: Case, count: int) -> RoutingTable:
    """The table of an account with so many bindings."""
    table = RoutingTable(orjson.loads)
    for owner, stored in case.bindings(count):
        if case.source is Source.SESSION:
            table.listen(owner, compiled(case.source, stored))
            continue
        table.add_key(owner, bindings_version="1")
        table.add_channel(owner, "1")
        table.bind(owner, case.source, compiled(case.source, stored))
    return table


@dataclass(frozen=True)
class Costs:
    """Medians; `first_ms` is reading and compiling the whole table, once for each gateway."""

    match_us: float
    route_us: float
    change_us: float
    first_ms: float


async def _measure(case: Case, count: int, routing: Routing, calls: RedisCommands) -> Costs:
    account_id = f"{count:032x}"
    await _fill(case, count, calls, account_id)
    started = time.perf_counter()
    table = await table_of(routing, account_id)
    first_ms = (time.perf_counter() - started) * 1e3
    assert len(case.find(table)) == MATCHING

    async def match() -> None:
        case.find(table)

    async def route() -> None:
        case.find(await table_of(routing, account_id))

    async def route_after_a_change() -> None:
        # The time of the change itself is subtracted below.
        await change()
        await route()

    async def change() -> None:
        await routing.add_key(account_id, f"{time.perf_counter_ns():032x}")

    return Costs(
        match_us=await _median_us(match, _ROUNDS),
        route_us=await _median_us(route, _ROUNDS),
        change_us=await _median_us(route_after_a_change, _CHANGES) - await _median_us(change, _CHANGES),
        first_ms=first_ms,
    )


async def _fill(case: Case, count: int, calls: RedisCommands, account_id: str) -> None:
    name = keyspace.routing(account_id)
    await calls.command("HSET", name, "version", f"filled-{count}")
    bindings = case.bindings(count)
    while batch := list(islice(bindings, 1_000)):
        await calls.command(
            "HSET",
            name,
            *(part for owner, stored in batch for part in case.fields_of(owner, stored)),
        )


async def _median_us(act: Callable[[], Awaitable[None]], rounds: int) -> float:
    """The lowest median of a few rounds, so that other load on the machine counts less."""
    medians = []
    for _ in range(_REPEATS):
        took = []
        for _ in range(rounds // _REPEATS):
            started = time.perf_counter_ns()
            await act()
            took.append(time.perf_counter_ns() - started)
        medians.append(statistics.median(took))
    return min(medians) / 1e3


async def _run(url: str) -> bool:
    within = True
    for case in CASES:
        print(f"\n{case.name}: {MATCHING} of them match\n")
        print("  bindings   match µs  ratio   route µs  ratio   after a change µs   first read ms")
        first: Costs | None = None
        for size in case.sizes:
            async with connect(url) as redis:
                await redis.flushall()
                calls = commands_to(redis)
                costs = await _measure(case, size, Routing(calls, compiled), calls)
            first = first or costs
            ratios = (costs.match_us / first.match_us, costs.route_us / first.route_us)
            print(
                f"  {size:8,} {costs.match_us:10.1f} {ratios[0]:6.2f} {costs.route_us:10.1f} {ratios[1]:6.2f}"
                f" {costs.change_us:19.1f} {costs.first_ms:15.1f}"
            )
        within = within and max(ratios) <= LIMIT
    print(f"\nthe largest is {'within' if within else 'OVER'} {LIMIT:.0f} times the smallest")
    return within


def main() -> int:
    """Measures on a Valkey of its own. Returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="notify-") as folder:
        valkey = Valkey(Path(folder))
        try:
            valkey.start()
            valkey.wait_ready()
            return 0 if asyncio.run(_run(valkey.url)) else 1
        finally:
            valkey.close()


if __name__ == "__main__":
    sys.exit(main())
