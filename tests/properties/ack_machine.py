"""The machine of channels with owners that acknowledge by frame, beside those whose pongs do."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from unittest.mock import patch

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from services.socket_edge.native.channel import NativeChannel
from shared.delivery.loop import DeliveryLoop
from shared.redis.pipeline import Script
from tests.harness.valkey import Valkey
from tests.properties.ack_client import FrameClient
from tests.properties.actors import Actor
from tests.properties.machine import HOLD_UP, WHICH, Notifications
from tests.properties.world import World

DELAY_S = st.sampled_from([0, 0, 5, 12])


class AckActor(Actor):
    """Its native owners are of these types."""

    channel_type: type[NativeChannel] = NativeChannel
    loop_type: type[DeliveryLoop] = DeliveryLoop


class FrameOwners(Notifications):
    """What happens to channels, and what clients of native sockets do besides."""

    def __init__(
        self, valkey: Valkey, *, scripts: Mapping[str, Script], actor: Callable[[World], Actor] = AckActor
    ) -> None:
        self._types = ExitStack()
        if isinstance(actor, type) and issubclass(actor, AckActor):
            of_actor = {
                "native.channels.NativeChannel": actor.channel_type,
                "native.channel.DeliveryLoop": actor.loop_type,
            }
            for name, its_type in of_actor.items():
                self._types.enter_context(patch(f"services.socket_edge.{name}", its_type))
        super().__init__(valkey, scripts=scripts, actor=actor)

    @initialize()
    def begin(self) -> None:
        """Starts with pending notifications and a native owner that was sent them."""
        self._there.publish(3)
        self._there.open_natively(self._edge(0), self._key(0))

    def _with_some_in_hand(self) -> list[FrameClient]:
        return [c for c in self._there.clients if isinstance(c, FrameClient) and c.in_hand]

    def _one_with_some_in_hand(self, which: int) -> FrameClient:
        clients = self._with_some_in_hand()
        return clients[which % len(clients)]

    @rule(which_edge=WHICH, which_key=WHICH, hold_up=HOLD_UP)
    def open_natively(self, which_edge: int, which_key: int, hold_up: int | None) -> None:
        """Opens a channel that may have an owner already, or be gone."""
        edge = self._edge(which_edge)
        if hold_up is not None:
            edge.actor.gate.close(after=hold_up)
        self._there.open_natively(edge, self._key(which_key))

    @precondition(lambda self: self._with_some_in_hand())
    @rule(which=WHICH, count=st.integers(1, 3), acks=st.booleans())
    def ack_some(self, which: int, count: int, acks: bool) -> None:
        client = self._one_with_some_in_hand(which)
        client.ack(min(count, len(client.in_hand)))
        self._there.run()
        if acks:
            self._there.flush_acks()

    @precondition(lambda self: self._with_some_in_hand())
    @rule(which=WHICH, which_entry=WHICH, delay_s=DELAY_S)
    def nack(self, which: int, which_entry: int, delay_s: float) -> None:
        self._one_with_some_in_hand(which).nack(which_entry, delay_s)
        self._there.run()

    @precondition(lambda self: self._there.redis_is_up and self._with_some_in_hand())
    @rule(which=WHICH, which_entry=WHICH, delay_s=DELAY_S, acks_first=st.booleans())
    def nack_during_a_read(self, which: int, which_entry: int, delay_s: float, acks_first: bool) -> None:
        """A read is under way when the nack comes; what it brings lies behind it."""
        client = self._one_with_some_in_hand(which)
        for edge in self._there.edges:
            edge.actor.gate.close(after=0)
        if acks_first:
            client.ack(1)
        self.publish(count=1, hold_up=None, heard=False)
        for edge in self._there.edges:
            self._there.run(edge.sweep())
        if client.in_hand:
            client.nack(which_entry, delay_s)
        self._there.run()
        self._there.open_gates()

    @rule(seconds=st.sampled_from([3, 6, 11]))
    def let_time_pass(self, seconds: int) -> None:
        """Delays end, and clients that were silent are sent what they have in hand again."""
        self._there.let_time_pass(seconds)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self._types.close()
