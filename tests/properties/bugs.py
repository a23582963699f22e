"""Planted bugs in delivery: each breaks one of its rules."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias

from hypothesis import settings

from shared.delivery.loop import DeliveryLoop
from shared.model.channels import Lease
from shared.model.events import Notification
from shared.redis.pipeline import Pipeline, Script
from shared.store import keyspace
from shared.store.inline_entries import InlineEntries
from shared.store.leases import Claimed
from shared.store.queues import BEGINNING, Batch, notification_of
from shared.store.scripts import load_scripts
from tests.properties.actors import Actor, ReportingLeases, ReportingQueues
from tests.properties.machine import BUDGET, Notifications
from tests.properties.world import World

Steps: TypeAlias = Iterator[None]


class Machine(Protocol):
    """A state machine, for scenarios in its rules."""

    def begin(self) -> None: ...
    def invariants_hold(self) -> None: ...
    def teardown(self) -> None: ...


@dataclass(frozen=True)
class Bug:
    """A fault in scripts or actors, and a regular expression for the violation that it causes.

    `correct` is the actor without the fault. Random steps may meet the violation `or_as` first.
    """

    name: str
    found_as: str
    scenario: Callable[[Any], Steps]
    scripts: Mapping[str, Script] = field(default_factory=load_scripts)
    actor: Callable[..., Any] = Actor
    correct: Callable[..., Any] = Actor
    or_as: str = "^$"
    machine: Callable[..., Any] = Notifications
    budget: settings = BUDGET


def with_lines(name: str, changes: Mapping[str, str]) -> Mapping[str, Script]:
    """The scripts, with lines of one replaced: those that begin with the keys of `changes`."""
    scripts = load_scripts()
    lines = scripts[name].source.splitlines(keepends=True)
    for start, replacement in changes.items():
        [index] = [i for i, line in enumerate(lines) if line.startswith(start)]
        lines[index] = replacement
    return scripts | {name: Script(name, "".join(lines))}


class _EarlyReads:
    """What was read before each claim, by the claim's owner."""

    def __init__(self) -> None:
        self.batches: dict[str, list[Notification]] = {}


class _ReadsThenClaims(ReportingLeases):
    def __init__(self, calls: Pipeline, world: World, early: _EarlyReads) -> None:
        super().__init__(calls, world)
        self._early = early

    async def claim(self, api_key_id: str, *, owner: str) -> Claimed:
        # Read with a plain command: the script refuses an owner without a lease.
        entries = await self._redis.command("XRANGE", keyspace.queue(api_key_id), "-", "+")
        self._early.batches[owner] = [notification_of(entry, values) for entry, values in entries]
        return await super().claim(api_key_id, owner=owner)


class _TrustsEarlyRead(ReportingQueues):
    def __init__(self, calls: Pipeline, world: World, early: _EarlyReads) -> None:
        super().__init__(calls, world)
        self._early = early

    async def read(self, lease: Lease, *, after: str, count: int, size_bytes: int) -> Batch:
        seen = self._early.batches.pop(lease.owner, None)
        if seen is None or after != BEGINNING:
            return await super().read(lease, after=after, count=count, size_bytes=size_bytes)
        tail = seen[-1].entry_id if seen else BEGINNING
        return Batch(seen[:count], more=len(seen) > count, tail=tail)


class ReadsBeforeClaiming(Actor):
    """Reads a queue before it claims. An append in between wakes the old owner or none, so it waits; what the
    old owner acks in between is sent again."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        early = _EarlyReads()
        self.leases = _ReadsThenClaims(self.calls, world, early)
        self.queues = _TrustsEarlyRead(self.calls, world, early)


class NeverComparesPrevious(Actor):
    """Delivers all inline entries, also when entries before them were not sent."""

    def offer(self, loop: DeliveryLoop, inline: InlineEntries) -> None:
        loop.deliver_inline(replace(inline, previous=loop._cursor))


# A scenario for each bug, in the machine's rules. Each begins with three pending notifications in two
# channels, and a socket of the first channel on the first edge that has been sent two of them.


def _pong_to_a_stale_owner(machine: Notifications) -> Steps:
    yield machine.take_over(which=0, which_edge=1, hold_up=None, old_leaves=False)
    yield machine.pong(which=0, leaves=False, acks=True)


def _stale_owner_releases(machine: Notifications) -> Steps:
    yield machine.take_over(which=0, which_edge=1, hold_up=None, old_leaves=True)


def _publish_during_a_handshake(machine: Notifications) -> Steps:
    yield machine.pong(which=0, leaves=False, acks=True)
    yield machine.pong(which=0, leaves=False, acks=True)
    yield machine.leave(which=0)
    yield machine.connect(which_edge=1, which_key=0, hold_up=3)
    yield machine.publish(count=1, hold_up=None, heard=True)
    yield machine.let_through(which=0, count=None)


def _socket_opens_during_expiry(machine: Notifications) -> Steps:
    yield machine.leave(which=0)
    yield machine.expire(which=0, old=False, late=True, hours=25)
    yield machine.connect(which_edge=1, which_key=0, hold_up=None)
    yield machine.let_through(which=0, count=None)


def _one_wakeup_is_lost(machine: Notifications) -> Steps:
    yield machine.publish_in_a_row(lost=True, answered=True)


def _key_is_revoked_during_a_publish(machine: Notifications) -> Steps:
    yield machine.publish(count=1, hold_up=0, heard=False)
    yield machine.revoke(which=0)
    yield machine.let_through(which=0, count=None)


BUGS = [
    Bug(
        "ack without owner check",
        "a stale owner acked",
        _pong_to_a_stale_owner,
        scripts=with_lines("queue_ack", {"if channel[1] ~= ARGV[1]": ""}),
    ),
    Bug(
        "release without compare",
        "a release by a stale owner",
        _stale_owner_releases,
        scripts=with_lines("lease_release", {"if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1]": ""}),
    ),
    Bug(
        "read before claim",
        # Or the claim is on a channel that has ended since the read.
        "was sent and is not pending|pending without an open ping|a socket that lost its lease is closed",
        _publish_during_a_handshake,
        actor=ReadsBeforeClaiming,
    ),
    # A socket that claims after the reaper has read the owner loses its channel.
    Bug(
        "expire without re-check",
        "a channel expired before its time",
        _socket_opens_during_expiry,
        scripts=with_lines("channel_expire", {"if (channel[4] or '') ~= ARGV[2]": ""}),
    ),
    Bug(
        "offer without compare",
        "was sent before its turn",
        _one_wakeup_is_lost,
        actor=NeverComparesPrevious,
    ),
    # A revocation deletes the channel: the append has to check for that alone.
    Bug(
        "append after revoke",
        "an append after the revocation",
        _key_is_revoked_during_a_publish,
        scripts=with_lines(
            "queue_append",
            {
                "if not kind": "local key = string.gsub(KEYS[1], 'channel$', 'key')\n"
                "if not kind and redis.call('EXISTS', key) == 1 then return {'absent'} end\n",
                "if ARGV[4] ~= ''": "if kind and ARGV[4] ~= version then return {'stale', version} end\n",
            },
        ),
    ),
]
