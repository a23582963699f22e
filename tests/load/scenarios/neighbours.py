"""`neighbours`: what others do to a measured account's sockets and webhooks."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from tests.load.attackers import Attackers
from tests.load.bench import Bench
from tests.load.hooks import Hooks
from tests.load.measurement import Measurement, combined, result_of
from tests.load.messages import Target
from tests.load.rest import ApiKeys
from tests.load.result import Result
from tests.load.scenarios.mixed import figures_by_kind, open_sockets, register_webhooks
from tests.load.scenarios.sockets import Stream, warn_if_late
from tests.load.sockets import Sockets
from tests.load.workers import Worker

ALONE = "alone"
_ALL_CHANNELS = 99_999
_LANES = 4
_GREEDY_EVENTS_PER_S = 200
_FLOODING_SOCKETS = 5
_KINDS = {"sockets": Sockets, "webhooks": Hooks}
Attack = Callable[[], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each attacker has: channels of a fan-out, and webhooks that do not respond."""

    fan: int
    dead: int


@dataclass(slots=True)
class _Attacks:
    """The attackers, each in an account of its own; `counts` says how the requests of each ended."""

    bench: Bench
    worker: Worker
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    async def prepare(self, sizes: Sizes) -> Mapping[str, Attack]:
        screen = self.bench.screen
        with screen.stage("creating the attackers", total=3 * sizes.fan + 2 * sizes.dead):
            greedy = await self._account(0)
            await self.bench.rest.call(
                "PATCH",
                f"/v1/accounts/{greedy.account}",
                json={"quotas": {"events_per_s": _GREEDY_EVENTS_PER_S}},
                want=(200,),
            )
            wide = await self._account(sizes.fan)
            await wide.register(range(sizes.fan))
            await wide.subscribe(range(sizes.fan), to=lambda _: _ALL_CHANNELS)
            slow = await self._account(sizes.dead)
            await self._register_dead(slow, sizes.dead)
        return {
            "over its quota": lambda: self._publishing("over its quota", greedy, pause_s=0.0),
            "fan-out": lambda: self._publishing("fan-out", wide, pause_s=0.0),
            "flood": self._flooding,
            "dead webhooks": lambda: self._publishing("dead webhooks", slow, pause_s=0.05),
        }

    async def _account(self, receivers: int) -> ApiKeys:
        keys = ApiKeys(self.bench.rest, each=self.bench.screen.step)
        await keys.create(receivers)
        return keys

    async def _register_dead(self, keys: ApiKeys, count: int) -> None:
        hooks = self.bench.start_helper(Hooks)
        url = await hooks.call("listen")
        await keys.register_webhooks({number: f"{url}{number}" for number in range(count)})
        await keys.subscribe(range(count), to=lambda _: _ALL_CHANNELS)
        await hooks.call("stop_responding", channels=list(range(count)))

    @contextlib.asynccontextmanager
    async def _publishing(self, label: str, keys: ApiKeys, *, pause_s: float) -> AsyncIterator[None]:
        await self.worker.call(
            "publish",
            gateway=self.bench.installation.gateways[0],
            secret=keys.publisher.secret,
            target=Target(_ALL_CHANNELS),
            size=self.bench.options.size,
            lanes=_LANES,
            pause_s=pause_s,
        )
        async with self._until_left(label):
            yield

    @contextlib.asynccontextmanager
    async def _flooding(self) -> AsyncIterator[None]:
        edges = self.bench.installation.edges
        await self.worker.call("flood", edges=edges, sockets=_FLOODING_SOCKETS)
        async with self._until_left("flood"):
            yield

    @contextlib.asynccontextmanager
    async def _until_left(self, label: str) -> AsyncIterator[None]:
        try:
            yield
        finally:
            counts = self.counts.setdefault(label, {})
            for what, count in (await self.worker.call("end")).items():
                counts[what] = counts.get(what, 0) + count


async def neighbours(bench: Bench, stream: Stream, *, sizes: Sizes, rounds: int, label: str) -> list[Result]:
    """The measured account alone, and beside each attacker: a result for each.

    The phases alternate, so that a machine that becomes slower does so for all. The attackers are clients of
    the same machine: what their own processes cost the services is part of the figures.
    """
    await _create(bench, stream)
    attacks = _Attacks(bench, bench.start_helper(Attackers))
    begin = {ALONE: _no_attack, **await attacks.prepare(sizes)}
    phases: dict[str, list[Measurement]] = {name: [] for name in begin}
    for number in range(rounds):
        for name, attack in begin.items():
            async with attack():
                with bench.screen.stage(f"warming up: {name}"):
                    await bench.warm_up(stream.plan(stream.warm_up_s))
                total = int((stream.rate or 0) * stream.seconds)
                stage = f"measuring, round {number + 1}: {name}"
                with bench.screen.stage(stage, total=total or None, start=bench.received):
                    phases[name].append(await bench.measure(stream.plan(stream.seconds)))
    whole = await bench.count()
    results = []
    for name, measured in phases.items():
        result = result_of(f"{label}: {name}", combined(measured, whole=whole))
        result.figures = figures_by_kind(bench, measured, _KINDS) | result.figures
        result.figures |= _of_attacker(attacks.counts.get(name, {}))
        warn_if_late(result, stream.rate)
        results.append(result)
    for result in results[1:]:
        result.figures = ratios(result, results[0]) | result.figures
    return results


def ratios(attacked: Result, alone: Result) -> dict[str, float]:
    """Each p99 beside the attacker, divided by that of the account alone."""
    return {
        f"{kind}_p99_ratio": round(attacked.figures[f"{kind}_p99_ms"] / alone.figures[f"{kind}_p99_ms"], 2)
        for kind in _KINDS
        if alone.figures.get(f"{kind}_p99_ms") and f"{kind}_p99_ms" in attacked.figures
    }


async def _create(bench: Bench, stream: Stream) -> None:
    """Half of the measured channels have a socket, half a webhook."""
    with bench.screen.stage("creating API keys", total=stream.channels):
        await bench.keys.create(stream.channels)
    everyone = range(stream.channels)
    bench.channels = {number: number for number in everyone}
    await open_sockets(bench, range(0, stream.channels, 2))
    await register_webhooks(bench, range(1, stream.channels, 2), dead=0)
    await bench.keys.subscribe(everyone)
    await bench.start_publishers([Target(number) for number in everyone])


@contextlib.asynccontextmanager
async def _no_attack() -> AsyncIterator[None]:
    yield


def _of_attacker(counts: Mapping[str, int]) -> dict[str, float]:
    return {f"attacker_{what}": float(count) for what, count in sorted(counts.items())}
