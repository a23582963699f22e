"""The durable channels of one native socket: open, ack, nack, close (docs/protocols/native.md)."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from functools import partial
from typing import Any, cast

from services.socket_edge.channel_rights import channel_for, is_granted
from services.socket_edge.claims import Claim, claim_channel, hold_claimed
from services.socket_edge.native.channel import NativeChannel
from services.socket_edge.native.parts import Handled, Handler, Part, Said
from services.socket_edge.native.refusals import Refusal
from services.socket_edge.native.socket import MOST_CHANNELS, NativeSocket
from shared.model.account_channels import ChannelRecord, id_shown
from shared.model.api_keys import ApiKey
from shared.model.channels import CloseReason, Kind
from shared.model.errors import GatewayError, NoLongerOwner, NoSuchChannel, StoreUnavailable
from shared.model.grants import Grant
from shared.wire.close_reasons import CLOSE_ROWS
from shared.wire.native import replies
from shared.wire.native.frames import Ack, Close, Nack, Open, Request
from shared.wire.native.replies import ErrorCode

logger = logging.getLogger(__name__)

_ACK_TIMEOUT_S = 30.0
_IN_FLIGHT = 256
_PAUSED_S = 5.0


class NativeChannels(Part):
    """The channels that one socket has open, by their ids."""

    def __init__(self, socket: NativeSocket) -> None:
        super().__init__(socket)
        self._edge = socket.edge
        self._open: dict[str, NativeChannel] = {}
        self._claiming: asyncio.Task[Claim] | None = None
        # Of channels that end, and of a refreshed token.
        self._tasks: set[asyncio.Task[None]] = set()
        self._without_room: list[NativeChannel] = []
        self._looking: asyncio.Task[None] | None = None

    # Requests

    async def open(self, wanted: Open) -> Said:
        """Makes the socket the owner of a channel, in place of any other.

        Raises Refusal, NotGranted, MissingScope, NoSuchChannel, QuotaExceeded, StoreUnavailable.
        """
        if self.socket.is_draining:
            raise Refusal(ErrorCode.UNAVAILABLE, "this replica shuts down: connect again, and open it there")
        if len(self._open) >= MOST_CHANNELS:
            raise Refusal(ErrorCode.TOO_MANY, f"a socket has {MOST_CHANNELS} channels at most; close one")
        caller = cast(ApiKey | Grant, self.socket.caller)
        record = await channel_for(self._edge, caller, wanted.channel)
        if not record.is_native and record.id != caller.id:
            raise Refusal(ErrorCode.CONFLICT, "it is the channel of an API key: only that API key opens it")
        if record.id in self._open:
            raise Refusal(ErrorCode.CONFLICT, "the channel is open on this socket already")
        claim = await self._claimed(record)
        self._open[record.id] = channel = NativeChannel(
            self._edge,
            claim,
            record,
            socket=self.socket,
            ack_timeout_s=wanted.ack_timeout_s or _ACK_TIMEOUT_S,
            in_flight=wanted.in_flight or _IN_FLIGHT,
            on_closed=self._on_closed,
            wait_for_room=self._wait_for_room,
        )
        # What it delivers comes in later turns, behind the answer.
        hold_claimed(self._edge, channel, claim, None)
        name = {"name": record.name} if record.name else {}
        return "opened", {"channel": channel.shown_id, **name}

    def ack(self, request: Request, done: Ack) -> Said | None:
        """Acknowledges. Who asks for an answer gets it when Redis has removed it all. Raises Refusal."""
        channel, said = self._of(done.channel), ("acked", {"channel": done.channel, "entry": done.entry})
        if not channel.ack(done.entry):
            raise _unknown_entry(done.entry)
        if request.ref is None:
            return said
        channel.when_removed(done.entry, partial(self._answer_ack, request, said))
        return None

    def _answer_ack(self, request: Request, said: Said, is_removed: bool) -> None:
        if is_removed:
            self.socket.answer(request, said)
        else:
            message = "the channel is no longer this socket's, and had not acked it: it may come again"
            self.socket.refuse(request, Refusal(ErrorCode.CONFLICT, message))

    def nack(self, given_back: Nack) -> Said:
        """Raises Refusal."""
        channel, entry = given_back.channel, given_back.entry
        if not self._of(channel).nack(entry, delay_s=given_back.delay_s or 0):
            raise _unknown_entry(entry)
        return "nacked", {"channel": channel, "entry": entry}

    async def close(self, channel: str) -> Said:
        """Gives the channel back: its next owner gets what is not acknowledged. Raises Refusal."""
        left = self._of(channel)
        del self._open[left.id]
        left.leave()
        # In a task: should the socket end meanwhile, the lease is released all the same.
        await asyncio.shield(self._start(self._leave(left)))
        return "closed", {"channel": channel}

    def _of(self, channel: str) -> NativeChannel:
        """The open channel with this id, as `opened` has it. Raises Refusal."""
        found = self._open.get(id_shown(channel) or "")
        if found is None:
            raise Refusal(ErrorCode.NOT_FOUND, "the channel is not open on this socket: open it first")
        return found

    async def _claimed(self, record: ChannelRecord) -> Claim:
        # Should the socket end meanwhile, `end` finds the claim here.
        claiming = self._claiming = asyncio.create_task(
            claim_channel(self._edge, record.account_id, record.id, is_native=record.is_native)
        )
        try:
            claim = await asyncio.shield(claiming)
        except NoLongerOwner as lost:
            self._claiming = None
            raise await self._refusal_of(lost, record) from None
        except GatewayError:
            self._claiming = None
            raise
        self._claiming = None
        return claim

    async def _refusal_of(self, lost: NoLongerOwner, record: ChannelRecord) -> GatewayError:
        if lost.close_reason is CloseReason.PAUSED:
            message = "the channel is paused; open it again later"
            return Refusal(ErrorCode.UNAVAILABLE, message, retry_after_s=_PAUSED_S)
        found = await self._edge.stores.channels.state(record.id)
        if found is None or found.kind is Kind.WEBSOCKET:
            return NoSuchChannel()
        return Refusal(ErrorCode.CONFLICT, f"the channel is of the kind {found.kind}, and no websocket")

    # What happens by itself

    def _on_closed(self, channel: NativeChannel) -> None:
        """The channel is another owner's, has ended, or is not the socket's any more: tells the client."""
        reason = channel.close_reason
        assert reason is not None
        del self._open[channel.id]
        self.socket.write(
            replies.closed(channel.shown_id, reason.replace("-", "_"), reconnect=CLOSE_ROWS[reason].reconnect)
        )
        self._start(self._leave(channel))

    async def _leave(self, channel: NativeChannel) -> None:
        """Acks what was acknowledged, and releases the lease."""
        channel.leave()
        await self._edge.drop(channel)
        logger.info("channel.closed", extra={"facts": {"session": self.socket.id, **channel.facts}})

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _wait_for_room(self, channel: NativeChannel) -> None:
        self._without_room.append(channel)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_for_room())

    async def _look_for_room(self) -> None:
        while self._without_room:
            await self.socket.until_room()
            waiting, self._without_room = self._without_room, []
            self._without_room += [each for each in waiting if each.is_held and not each.has_room()]
        self._looking = None

    def on_refreshed(self) -> None:
        self._start(self._end_forbidden())

    async def _end_forbidden(self) -> None:
        for channel in list(self._open.values()):
            record = channel.record
            # It may have another name by now.
            with contextlib.suppress(StoreUnavailable):
                record = await self._edge.stores.account_channels.record(record.id) or record
            caller = self.socket.caller
            if isinstance(caller, Grant) and not is_granted(caller, record):
                channel.let_go(CloseReason.FORBIDDEN)

    # The end of the socket

    async def drain(self) -> None:
        await asyncio.gather(*(channel.until_acked() for channel in self._open.values()))

    async def end(self) -> None:
        channels, self._open = self._open, {}
        for channel in channels.values():
            channel.leave()
            self._start(self._leave(channel))
        if self._looking is not None:
            self._looking.cancel()
        if self._claiming is not None:
            self._start(self._give_up(self._claiming))
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _give_up(self, claiming: asyncio.Task[Claim]) -> None:
        """The socket ended while a channel was opened for it."""
        with contextlib.suppress(GatewayError):
            claim = await claiming
            self._edge.socket_quota.leave(claim.account_id)
            self._edge.wake_previous(claim.claimed.lease)
            await self._edge.heartbeat.release_by(
                partial(self._edge.stores.leases.release, claim.claimed.lease)
            )


def _unknown_entry(entry: str) -> Refusal:
    return Refusal(
        ErrorCode.INVALID,
        f"entry: {entry} is none that this socket was sent and may answer: it was not sent since the channel"
        " was opened, was given back, or is acknowledged",
    )


def _open(socket: NativeSocket, request: Request) -> Handled:
    assert isinstance(request.body, Open)
    return socket.part(NativeChannels).open(request.body)


def _ack(socket: NativeSocket, request: Request) -> Handled:
    assert isinstance(request.body, Ack)
    return socket.part(NativeChannels).ack(request, request.body)


def _nack(socket: NativeSocket, request: Request) -> Handled:
    assert isinstance(request.body, Nack)
    return socket.part(NativeChannels).nack(request.body)


def _close(socket: NativeSocket, request: Request) -> Handled:
    assert isinstance(request.body, Close)
    return socket.part(NativeChannels).close(request.body.channel)


CHANNEL_HANDLERS: dict[str, Handler] = {"open": _open, "ack": _ack, "nack": _nack, "close": _close}
