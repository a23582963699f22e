"""Planted bugs in routing: each breaks one rule by which publishes do without a clock."""

from typing import Any

from shared.model.errors import KeyRevoked
from shared.publish.matching import Matched
from shared.publish.round import Round
from shared.publish.single_append import SingleAppend
from shared.publish.state import Publish, counts_of
from shared.redis.pipeline import Argument
from shared.store import keyspace
from shared.store.routing import Routing, _key, names_for, new_version
from tests.properties.bugs import Bug, Steps, with_lines
from tests.properties.routing_installation import RoutingActor, WatchedPublisher
from tests.properties.routing_machine import ROUTING_BUDGET, RoutingChanges

_OUT_OF_ORDER = "out of order at a gateway"
_UNBOUND = "is queued without a binding|out of order at a gateway"
_MISSING = "is not queued for its|is queued after its answer"


class _HasNoBarrier(WatchedPublisher):
    """Publishes go on while a repair runs."""

    _running: Any = None

    def _match_now(self, publish: Publish) -> None:
        account = publish.account
        self._running, account.repair = account.repair, None
        super()._match_now(publish)
        if self._running is not None:
            account.repair, self._running = self._running, None

    def _repair_later(self, publish: Publish) -> None:
        # One repair at a time, as without the bug.
        if self._running is not None:
            publish.account.repair = self._running
        super()._repair_later(publish)


class _AnswersFirst(WatchedPublisher):
    """Answers a publish before it repairs it."""

    def _on_round(self, sent: Round | SingleAppend) -> None:
        publish = sent.publish
        on_end = publish.on_end

        def end_once(counts: list[int] | Exception) -> None:
            publish.on_end = lambda _: None
            on_end(counts)

        publish.on_end = end_once
        if not sent.record():
            end_once(counts_of(publish, sent.matched))
        super()._on_round(sent)


class _TrustsTheTable(WatchedPublisher):
    """Appends also where the channel may not have the version of the table yet."""

    def _send(self, publish: Publish, matched: Matched) -> None:
        matched.table.unconfirmed.clear()
        super()._send(publish, matched)


class _ConfirmsAll(WatchedPublisher):
    """Takes also those channels for confirmed that took their events before the table moved on."""

    def _end(self, publish: Publish, result: Matched | Exception) -> None:
        if isinstance(result, Matched):
            result.table.unconfirmed.difference_update(result.channels)
        super()._end(publish, result)


class _KeepsTheVersion(Routing):
    """A new channel takes the version of the one before."""

    async def _set(
        self, account_id: str, field: str, value: str | bytes, *, only_with: str, is_of_bindings: int = 0
    ) -> str:
        return await super()._set(account_id, field, value, only_with=only_with)


class _ConfirmsTooEarly(Routing):
    """Gives a new channel a version that was made before the table named the channel."""

    async def confirm_bindings(
        self, account_id: str, api_key_id: str, *, seen: str, version: str | None = None
    ) -> bool:
        if version is None:
            name = keyspace.routing(account_id)
            version = (await self._redis.command("HGET", name, _key(api_key_id)) or b"").decode()
        return await super().confirm_bindings(account_id, api_key_id, seen=seen, version=version)


class _ChannelBeforeTable(Routing):
    """Confirms bindings before it changes them."""

    async def _change_bindings(
        self, script: str, account_id: str, api_key_id: str, *arguments: Argument
    ) -> Any:
        names = names_for(script, account_id)
        before = await self._redis.command("HGET", names[0], _key(api_key_id)) or b""
        version = new_version()
        await self._redis.script("channel_bind", [keyspace.channel(api_key_id)], before, version)
        status, *_ = await self._redis.script(script, names, version, *arguments)
        if status == b"revoked":
            raise KeyRevoked
        return status


class HasNoBarrier(RoutingActor):
    publisher_type = _HasNoBarrier


class AnswersFirst(RoutingActor):
    publisher_type = _AnswersFirst


class TrustsTheTable(RoutingActor):
    publisher_type = _TrustsTheTable


class ConfirmsAll(RoutingActor):
    publisher_type = _ConfirmsAll


class KeepsTheVersion(RoutingActor):
    routing_type = _KeepsTheVersion


class ConfirmsTooEarly(RoutingActor):
    routing_type = _ConfirmsTooEarly


class ChannelBeforeTable(RoutingActor):
    routing_type = _ChannelBeforeTable


# A scenario for each bug, in the machine's rules. Each begins with a binding of the first key to the topic a,
# which both gateways know.


def _publish_during_a_repair(machine: RoutingChanges) -> Steps:
    """Two publishes need a repair. It has reached the first one when a third one arrives."""
    yield machine.publish_around_a_change(gateway=0, which=1, what="bind a", after=0, count=13)


def _publish_after_a_removal(machine: RoutingChanges) -> Steps:
    yield machine.change(admin=0, which=0, what="unbind", hold_up=None)
    yield machine.publish(gateway=0, account=0, subjects=["a"], hold_up=None)


def _publish_after_a_change(machine: RoutingChanges) -> Steps:
    yield machine.change(admin=0, which=1, what="bind a", hold_up=None)
    yield machine.publish(gateway=0, account=0, subjects=["a"], hold_up=None)


def _publish_in_a_removal(machine: RoutingChanges) -> Steps:
    """A gateway that still has the binding publishes in the middle, another one afterwards."""
    yield machine.change(admin=0, which=0, what="unbind", hold_up=2)
    yield machine.publish(gateway=0, account=0, subjects=["a"], hold_up=None)
    yield machine.let_through(which=0, count=None)
    yield machine.publish(gateway=1, account=0, subjects=["a"], hold_up=None)


def _publish_after_a_late_change(machine: RoutingChanges) -> Steps:
    yield machine.publish_after_a_late_change(gateway=0, which=0, what="bind device", then="unbind")


def _publish_in_a_change(machine: RoutingChanges) -> Steps:
    """The channel gets the version of the table between two publishes."""
    yield machine.publish_in_a_change(gateway=0, which=0, what="bind device", done=1, after=2)


def _change_between_two_rounds(machine: RoutingChanges) -> Steps:
    """The first key takes a publish that goes on to the second key, and its table moves on meanwhile.

    Before that: an append with two versions, the versions again, the changes. After it: the other append with
    the versions, the versions again, the changes, and the versions of the last round.
    """
    yield machine.publish_in_rounds(gateway=0, which=0, other=1, before=6, between=8)


def _publish_to_a_new_channel(machine: RoutingChanges) -> Steps:
    yield machine.publish_to_a_new_channel(gateway=0, which=0, before=0, between=3, done=None)


def _confirm_during_a_creation(machine: RoutingChanges) -> Steps:
    """The table still names the old channel, and the new one refuses a publish. Another gateway goes on."""
    yield machine.publish_to_a_new_channel(gateway=0, which=0, before=0, between=3, done=1)


def _bug(name: str, found_as: str, scenario: Any, **how: Any) -> Bug:
    how = {"actor": RoutingActor, **how}
    return Bug(
        name, found_as, scenario, correct=RoutingActor, machine=RoutingChanges, budget=ROUTING_BUDGET, **how
    )


BUGS = [
    _bug("no barrier", _OUT_OF_ORDER, _publish_during_a_repair, actor=HasNoBarrier),
    _bug("answer before repair", _MISSING, _publish_after_a_change, actor=AnswersFirst),
    _bug("unconfirmed ignored", _OUT_OF_ORDER, _publish_in_a_change, actor=TrustsTheTable),
    _bug("confirmed with an older version", _OUT_OF_ORDER, _change_between_two_rounds, actor=ConfirmsAll),
    _bug("version kept by a new channel", _OUT_OF_ORDER, _publish_to_a_new_channel, actor=KeepsTheVersion),
    _bug("confirmed too early", _OUT_OF_ORDER, _confirm_during_a_creation, actor=ConfirmsTooEarly),
    _bug("channel before table", _UNBOUND, _publish_in_a_removal, actor=ChannelBeforeTable),
    _bug(
        "no refusal",
        _UNBOUND,
        _publish_after_a_removal,
        scripts=with_lines("queue_append", {"if ARGV[4] ~= ''": ""}),
    ),
    _bug(
        "confirmed without compare",
        _UNBOUND,
        _publish_after_a_late_change,
        scripts=with_lines(
            "channel_bind", {"if version ~= ARGV[1]": "if not version then return version end\n"}
        ),
    ),
]
