"""`tenants`: one channel in each of many accounts, beside as many channels in one account."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tests.load.bench import Bench
from tests.load.measurement import Measurement, combined, result_of
from tests.load.messages import Target
from tests.load.processes import ROLES
from tests.load.publishers import Plan
from tests.load.result import Result
from tests.load.scenarios.sockets import endpoints, warn_if_late
from tests.load.sockets import Sockets
from tests.load.workers import Worker

_AT_ONCE = 100


@dataclass(slots=True)
class _Group:
    """Channels with the publishers of their events, and what was measured of them."""

    label: str
    accounts: int
    channels: range
    publishers: list[Worker]
    phases: list[Measurement] = field(default_factory=list)

    async def result(self, bench: Bench, rate: float | None) -> Result:
        measured = combined(self.phases, whole=await bench.count(self.channels))
        result = result_of(self.label, measured)
        result.figures = {"accounts": float(self.accounts)} | result.figures
        warn_if_late(result, rate)
        return result


async def tenants(
    bench: Bench, *, accounts: int, plan: Plan, warm_up_s: float, rounds: int, label: str
) -> list[Result]:
    """What a notification costs with many accounts, and with one: a result for each, the ratio in the first.

    All sockets stay open, and both groups have the same lanes, rate and number of channels. Their phases
    alternate, so that a machine that becomes slower does so for both.
    """
    groups = await _create(bench, accounts=accounts, label=label)
    for number in range(rounds):
        for group in groups:
            with bench.screen.stage(f"warming up: {group.label}"):
                await bench.warm_up(replace(plan, seconds=warm_up_s), by=group.publishers)
            total = int((plan.rate or 0) * (plan.seconds or 0))
            stage = f"measuring, round {number + 1}: {group.label}"
            with bench.screen.stage(stage, total=total or None, start=bench.received):
                group.phases.append(await bench.measure(plan, by=group.publishers))
    many, one = [await group.result(bench, plan.rate) for group in groups]
    many.figures |= ratios(many, one) | _extremes(*(group.phases for group in groups))
    return [many, one]


async def _create(bench: Bench, *, accounts: int, label: str) -> list[_Group]:
    """The channels of one account come first, then those of the others; all get a socket."""
    one, many = range(accounts), range(accounts, 2 * accounts)
    with bench.screen.stage("creating accounts and channels", total=6 * accounts):
        await bench.keys.create(accounts)
        secrets = [key.secret for key in await bench.keys.add_accounts(accounts)]
        everyone = range(2 * accounts)
        await bench.keys.register(everyone)
        await bench.keys.subscribe(everyone)
    bench.channels = {number: number for number in everyone}
    workers, ends = bench.start_workers(Sockets), endpoints(bench)
    with bench.screen.stage("connecting"):
        await asyncio.gather(
            *(
                worker.call("open", endpoints=ends[number :: len(workers)], at_once=_AT_ONCE)
                for number, worker in enumerate(workers)
            )
        )
    of_many = [Target(number, secret=secret) for number, secret in zip(many, secrets, strict=True)]
    return [
        _Group(label, accounts, many, await bench.start_publishers(of_many)),
        _Group(
            f"{label}, one account", 1, one, await bench.start_publishers([Target(number) for number in one])
        ),
    ]


def ratios(many: Result, one: Result) -> dict[str, float]:
    """CPU per notification with many accounts, divided by that with one, by process."""
    found = {}
    for role in (*ROLES, "all"):
        name = f"cpu_{role}_us"
        if name in many.figures and one.figures.get(name):
            found[f"cpu_{role}_ratio"] = round(many.figures[name] / one.figures[name], 3)
    return found


def _extremes(many: Sequence[Measurement], one: Sequence[Measurement]) -> dict[str, float]:
    """The lowest and the highest ratio of a round: how far apart they are tells what the ratio is worth."""
    rounds = [
        found["cpu_all_ratio"]
        for first, second in zip(many, one, strict=True)
        if "cpu_all_ratio" in (found := ratios(result_of("", first), result_of("", second)))
    ]
    return {"cpu_all_ratio_lowest": min(rounds), "cpu_all_ratio_highest": max(rounds)} if rounds else {}
