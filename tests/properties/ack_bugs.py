"""Planted bugs in what native owners send again: each breaks one of its rules."""

from collections.abc import Callable
from typing import Any

from services.socket_edge.native.channel import NativeChannel
from shared.delivery.loop import DeliveryLoop
from shared.store.queues import Batch
from tests.properties.ack_machine import AckActor, FrameOwners
from tests.properties.bugs import Bug, Steps


class _LosesItsPlace(DeliveryLoop):
    """A resync goes on behind the last entry that was ever sent."""

    def go_on_behind(self, entry: str) -> None:
        sent = self._sent
        super().go_on_behind(entry)
        self._sent = sent


class _TrustsItsRead(DeliveryLoop):
    """Delivers what a read brings, also if it was moved back meanwhile."""

    async def _ack_and_read(self) -> Batch:
        cursor = self._cursor
        batch = await super()._ack_and_read()
        self._cursor = cursor
        return batch


class _ForgetsDelays(NativeChannel):
    """Sends what was given back at once."""

    def nack(self, entry: str, *, delay_s: float) -> bool:
        return super().nack(entry, delay_s=0)


class LosesItsPlace(AckActor):
    loop_type = _LosesItsPlace


class TrustsItsRead(AckActor):
    loop_type = _TrustsItsRead


class ForgetsDelays(AckActor):
    channel_type = _ForgetsDelays


# A scenario for each bug, in the machine's rules. Each begins with three notifications that a native client
# has in hand.


def _redis_crashes_during_a_delay(machine: FrameOwners) -> Steps:
    yield machine.ack_some(which=0, count=1, acks=True)
    yield machine.nack(which=0, which_entry=0, delay_s=5)
    yield machine.crash_of_redis()
    yield machine.redis_is_back()
    yield machine.let_time_pass(seconds=6)


def _nack_during_a_read(machine: FrameOwners) -> Steps:
    yield machine.nack_during_a_read(which=0, which_entry=0, delay_s=0, acks_first=True)


def _publish_during_a_delay(machine: FrameOwners) -> Steps:
    yield machine.nack(which=0, which_entry=1, delay_s=12)


def _bug(name: str, found_as: str, scenario: Callable[[Any], Steps], actor: type[AckActor]) -> Bug:
    return Bug(name, found_as, scenario, actor=actor, correct=AckActor, machine=FrameOwners)


BUGS = [
    _bug(
        "place lost by a resync",
        "was sent before|pending without an open ping|was sent out of order|still pending in the end",
        _redis_crashes_during_a_delay,
        LosesItsPlace,
    ),
    _bug(
        "read from before a nack",
        "was sent out of order|was sent before|with redelivered|was sent twice",
        _nack_during_a_read,
        TrustsItsRead,
    ),
    _bug("delay of a nack ignored", "before its delay was over", _publish_during_a_delay, ForgetsDelays),
]
