"""Planted bugs in native channels: each breaks one of their rules."""

from dataclasses import replace
from typing import Any

from shared.model.account_channels import AccountChannel, ChannelRecord
from shared.publish.request import Posted
from shared.publish.state import OnEnd
from shared.store.account_channels import AccountChannels
from shared.store.channel_names import ChannelNames
from shared.store.routing import Routing
from tests.properties.bugs import Bug, Steps, with_lines
from tests.properties.native_installation import NativeActor
from tests.properties.native_machine import NATIVE_BUDGET, NativeChannels
from tests.properties.routing_installation import WatchedPublisher
from tests.properties.world import World


class _IgnoresCustomers(WatchedPublisher):
    """Matches an event for one customer as if it were for all."""

    def begin(self, posted: Posted, on_end: OnEnd, **more: Any) -> None:
        events = [event._replace(customer=None) for event in posted.events]
        super().begin(replace(posted, events=events), on_end, **more)


class _LeavesNames(ChannelNames):
    """A channel keeps the names that it had before."""

    async def drop_former(self, account_id: str, name: str, channel: str) -> None:
        pass


class _LeavesTable(Routing):
    """The routing table goes on with the old name and customer."""

    async def set_native(self, record: ChannelRecord) -> bool:
        return True


class _SkipsWhatItHas(AccountChannels):
    """Takes what the record has for done."""

    async def change(self, channel: AccountChannel, *, name: str | None = None, **more: Any) -> None:
        await super().change(channel, name=None if name == channel.record.name else name, **more)


class SkipsWhatItHas(NativeActor):
    account_channels_type = _SkipsWhatItHas


class IgnoresCustomers(NativeActor):
    publisher_type = _IgnoresCustomers


class LeavesNames(NativeActor):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.account_channels.names = _LeavesNames(self.calls)


class LeavesTable(NativeActor):
    routing_type = _LeavesTable


# The calls of a renaming up to its record: it reads the channel, takes the name, and writes.
_WRITTEN = 7

# A scenario for each bug, in the machine's rules. Each begins with a channel that has the name n, the
# customer c, a socket on the first edge and three pending notifications, and with one without either.


def _claim_while_paused(machine: NativeChannels) -> Steps:
    yield machine.change(admin=0, which=1, what="pause", hold_up=None)
    yield machine.connect(edge=1, which=1, hold_up=None)


def _read_while_paused(machine: NativeChannels) -> Steps:
    """The owner lost the wakeup of the pause."""
    yield machine.pong(which=0, acks=True)
    yield machine.change(admin=0, which=0, what="pause", hold_up=None)
    yield machine.publish(gateway=0, how="id", which=0, count=1, hold_up=None, heard=False)
    yield machine.sweep()


def _publish_for_a_customer(machine: NativeChannels) -> Steps:
    yield machine.publish(gateway=0, how="customer c", which=1, count=1, hold_up=None, heard=False)


def _rename(machine: NativeChannels) -> Steps:
    yield machine.change(admin=0, which=0, what="name m", hold_up=None)


def _publish_after_a_renaming(machine: NativeChannels) -> Steps:
    yield machine.change(admin=0, which=0, what="name m", hold_up=None)
    yield machine.publish(gateway=0, how="name n", which=0, count=1, hold_up=None, heard=False)


def _repeat_a_renaming(machine: NativeChannels) -> Steps:
    """Its first administrator died with the record written."""
    yield machine.change_again_after_a_crash(which=0, what="name m", done=_WRITTEN, how="name m")


def _rename_at_once(machine: NativeChannels) -> Steps:
    """A slow administrator writes the table last, with an older revision of the record."""
    yield machine.change_during_a_change(
        which=0, what="name m", done=_WRITTEN, same=True, other=1, then="no customer", how="customer c"
    )


def _purge(machine: NativeChannels) -> Steps:
    yield machine.change(admin=0, which=0, what="purge", hold_up=None)


def _bug(name: str, found_as: str, scenario: Any, **how: Any) -> Bug:
    how = {"actor": NativeActor, **how}
    return Bug(
        name, found_as, scenario, correct=NativeActor, machine=NativeChannels, budget=NATIVE_BUDGET, **how
    )


_WITHOUT_TAIL = "redis.call('HDEL', KEYS[1], 'first', 'first_total', 'tail')\n"
BUGS = [
    _bug(
        "claim of a paused channel",
        "a paused channel was claimed",
        _claim_while_paused,
        scripts=with_lines("lease_claim", {"if paused": ""}),
    ),
    _bug(
        "read of a paused channel",
        "while its channel was paused|the socket of a paused channel|a paused channel was reclaimed",
        _read_while_paused,
        scripts=with_lines("queue_read", {"if paused": ""}),
    ),
    _bug(
        "customer ignored",
        "for a channel that it is not for|has the count",
        _publish_for_a_customer,
        actor=IgnoresCustomers,
    ),
    _bug(
        "former name kept",
        "names are those of the channels|the index has their names|a deleted channel has a name",
        _rename,
        actor=LeavesNames,
    ),
    _bug(
        "table not renamed",
        "for a channel that it is not for|was refused|unknown addressee|the table has|names are those",
        _publish_after_a_renaming,
        actor=LeavesTable,
    ),
    _bug(
        "repeated change skipped",
        "for a channel that it is not for|was refused|not queued|unknown addressee",
        _repeat_a_renaming,
        actor=SkipsWhatItHas,
    ),
    _bug(
        "older revision written",
        "for a channel that it is not for|not queued|the table has|has the count",
        _rename_at_once,
        scripts=with_lines("routing_native", {"if old and tonumber": ""}),
    ),
    _bug(
        "purge without the tail",
        "the tail went back",
        _purge,
        scripts=with_lines(
            "queue_purge",
            {"redis.call('HDEL', KEYS[1], 'first'": _WITHOUT_TAIL},
        ),
    ),
]
