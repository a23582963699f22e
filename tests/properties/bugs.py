"""Six bugs, to be put in on purpose: each breaks one rule that the engine's safety rests on."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from shared.delivery.loop import DeliveryLoop
from shared.model.channels import Lease
from shared.model.events import Notification
from shared.redis.pipeline import Pipeline, Script
from shared.store import keyspace
from shared.store.inline_entries import InlineEntries
from shared.store.leases import Claimed
from shared.store.queues import BEGINNING, Batch, notification_of
from shared.store.scripts import load_scripts
from tests.properties.actors import Actor, ToldLeases, ToldQueues
from tests.properties.machine import Notifications
from tests.properties.world import World

Steps: TypeAlias = Iterator[None]


@dataclass(frozen=True)
class Bug:
    """The engine with one thing wrong, and what the machine says of it (a regular expression)."""

    name: str
    found_as: str
    scenario: Callable[[Notifications], Steps]
    scripts: Mapping[str, Script] = field(default_factory=load_scripts)
    actor: Callable[[World], Actor] = Actor


def _with(name: str, changes: Mapping[str, str]) -> Mapping[str, Script]:
    """The scripts, where one has something else instead of the lines that begin so."""
    scripts = load_scripts()
    lines = scripts[name].source.splitlines(keepends=True)
    for beginning, instead in changes.items():
        [place] = [place for place, line in enumerate(lines) if line.startswith(beginning)]
        lines[place] = instead
    return scripts | {name: Script(name, "".join(lines))}


class _Ahead:
    """What was read before the claim, by the owner who then claimed."""

    def __init__(self) -> None:
        self.batches: dict[str, list[Notification]] = {}


class _LooksThenClaims(ToldLeases):
    def __init__(self, calls: Pipeline, world: World, ahead: _Ahead) -> None:
        super().__init__(calls, world)
        self._ahead = ahead

    async def claim(self, api_key_id: str, *, owner: str) -> Claimed:
        # The script would ask for the lease: so early only the plain command reads.
        found = await self._redis.command("XRANGE", keyspace.queue(api_key_id), "-", "+")
        self._ahead.batches[owner] = [notification_of(entry, values) for entry, values in found]
        return await super().claim(api_key_id, owner=owner)


class _TrustsWhatItSaw(ToldQueues):
    def __init__(self, calls: Pipeline, world: World, ahead: _Ahead) -> None:
        super().__init__(calls, world)
        self._ahead = ahead

    async def read(self, lease: Lease, *, after: str, count: int, size_bytes: int) -> Batch:
        seen = self._ahead.batches.pop(lease.owner, None)
        if seen is None or after != BEGINNING:
            return await super().read(lease, after=after, count=count, size_bytes=size_bytes)
        return Batch(seen[:count], more=len(seen) > count)


class ReadsBeforeClaiming(Actor):
    """Its first look at a queue comes before its claim. What is appended in between wakeups nobody, or the old
    owner, and waits for the next wakeup; what the old owner acks in between is sent again."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        ahead = _Ahead()
        self.leases = _LooksThenClaims(self.calls, world, ahead)
        self.queues = _TrustsWhatItSaw(self.calls, world, ahead)


class NeverLooksBack(Actor):
    """Passes on whatever a wakeup carries, as if nothing could stand between it and what was sent."""

    def offers(self, drain: DeliveryLoop, carried: InlineEntries) -> None:
        drain.deliver_inline(replace(carried, previous=""))


# One way to each bug, in the machine's own rules. It begins with three notifications that are pending to each of
# two channels, and a socket of the first, on the first edge, that has been sent two of them.


def _an_old_owner_hears_a_pong(machine: Notifications) -> Steps:
    yield machine.take_over(which=0, which_edge=1, hold_up=None, old_leaves=False)
    yield machine.pong(which=0, leaves=False, acks=True)


def _an_old_owner_lets_go(machine: Notifications) -> Steps:
    yield machine.take_over(which=0, which_edge=1, hold_up=None, old_leaves=True)


def _a_publish_meets_a_handshake(machine: Notifications) -> Steps:
    yield machine.pong(which=0, leaves=False, acks=True)
    yield machine.pong(which=0, leaves=False, acks=True)
    yield machine.leave(which=0)
    yield machine.connect(which_edge=1, which_key=0, hold_up=2)
    yield machine.publish(count=1, hold_up=None, heard=True)
    yield machine.let_through(which=0, count=None)


def _a_socket_comes_while_its_channel_expires(machine: Notifications) -> Steps:
    yield machine.leave(which=0)
    yield machine.expire(which=0, old=False, late=True, hours=25)
    yield machine.connect(which_edge=1, which_key=0, hold_up=None)
    yield machine.let_through(which=0, count=None)


def _a_wakeup_is_lost_and_the_next_is_not(machine: Notifications) -> Steps:
    yield machine.publish_in_a_row(lost=True, answered=True)


def _a_key_is_revoked_behind_a_publisher(machine: Notifications) -> Steps:
    yield machine.publish(count=1, hold_up=1, heard=False)
    yield machine.revoke(which=0)
    yield machine.let_through(which=0, count=None)


BUGS = [
    Bug(
        "ack without owner check",
        "somebody acked who is not the owner",
        _an_old_owner_hears_a_pong,
        scripts=_with("queue_ack", {"if redis.call('GET', KEYS[1]) ~= ARGV[1]": ""}),
    ),
    Bug(
        "release without compare",
        "a release by no owner",
        _an_old_owner_lets_go,
        scripts=_with("lease_release", {"if redis.call('GET', KEYS[2]) ~= ARGV[1]": ""}),
    ),
    Bug(
        "read before claim",
        "was sent and is not pending|a client that confirms all is pending nothing",
        _a_publish_meets_a_handshake,
        actor=ReadsBeforeClaiming,
    ),
    # The reaper looked at the owner before; a socket that has claimed since loses its channel.
    Bug(
        "expire without re-check",
        "a channel was expired that was not due",
        _a_socket_comes_while_its_channel_expires,
        scripts=_with("channel_expire", {"if (redis.call('GET', KEYS[2]) or '') ~= ARGV[2]": ""}),
    ),
    Bug(
        "offer without compare",
        "was sent before its turn",
        _a_wakeup_is_lost_and_the_next_is_not,
        actor=NeverLooksBack,
    ),
    # A revocation ends the channel too: to forget the key alone would still find that one absent.
    Bug(
        "append after revoke",
        "something was queued after the key was revoked",
        _a_key_is_revoked_behind_a_publisher,
        scripts=_with(
            "queue_append",
            {
                "if redis.call('EXISTS', KEYS[1]) == 0": "local key = redis.call('EXISTS', KEYS[1])\n",
                "if not channel[1]": "if key == 1 and not channel[1] then return {'absent'} end\n",
            },
        ),
    ),
]
