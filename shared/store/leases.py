"""Leases: which owner may deliver from a channel's queue.

Every later write names the owner, and Redis refuses it to any other (fencing).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from shared import telemetry
from shared.model.channels import CloseReason, Kind, Lease, instance_of
from shared.model.errors import HeldByAnother, NoLongerOwner
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.replicas import Replicas

# How long a poll waits between two looks at a contested lease.
_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.25
# By then a response that stalled was aborted; one that is still being read belongs to an open poll.
_LONGEST_WAIT_S = 8.0


@dataclass(frozen=True, slots=True)
class Claimed:
    """A lease, and what earlier sockets learned about this client: its frame limit, and the entry up to which
    each notification is sent in a frame of its own.

    `caught_up_at` is the last entry appended if nothing is pending, else ''.
    """

    lease: Lease
    frame_limit_bytes: int | None
    careful_until: str
    caught_up_at: str = ""
    serialization: bytes = b""


class Leases:
    """Claims and releases leases."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis
        self._replicas = Replicas(redis)

    async def claim(self, api_key_id: str, *, owner: str) -> Claimed:
        """Makes `owner` the owner of a WebSocket channel, in place of any other.

        Raises NoLongerOwner(NO_CHANNEL, KEY_REVOKED or PAUSED).
        """
        with telemetry.claim_span(api_key_id):
            return await self._claim(api_key_id, owner, Kind.WEBSOCKET)

    async def claim_unheld(self, api_key_id: str, *, owner: str, silent: str = "") -> Lease:
        """Makes `owner` the owner of a webhook channel that has no live owner.

        `silent` is an owner that the caller knows to be dead in spite of its heartbeat.
        Raises HeldByAnother, NoLongerOwner(NO_CHANNEL, KEY_REVOKED or PAUSED).
        """
        with telemetry.claim_span(api_key_id):
            try:
                claimed = await self._claim(api_key_id, owner, Kind.WEBHOOK, silent)
            except HeldByAnother as held:
                if held.owner and (await self._replicas.state(instance_of(held.owner))).live:
                    raise
                claimed = await self._claim(api_key_id, owner, Kind.WEBHOOK, held.owner)
        return claimed.lease

    async def claim_poll(self, api_key_id: str, *, owner: str) -> Lease:
        """Makes `owner` the owner of a channel of long polls that no open poll has.

        Waits for an earlier poll that is ending, and for one whose edge is gone. A poll is open when it has
        confirmed its lease twice: the first read may have been under way when its client went, and the next
        is sent only after the reply to it.
        Raises HeldByAnother, NoLongerOwner(NO_CHANNEL, KEY_REVOKED or PAUSED).
        """
        names = keyspace.channel_names(api_key_id)[:2]
        contested, confirmed, waited_s, pause_s = "", "", 0.0, _FIRST_PAUSE_S
        with telemetry.claim_span(api_key_id):
            while waited_s < _LONGEST_WAIT_S:
                status, *fields = await self._redis.script("lease_contest", names, owner, contested)
                if status == b"held" and (holder := fields[0].decode()) != confirmed:
                    confirmed, contested, pause_s = holder, "", _FIRST_PAUSE_S
                    continue
                if status != b"contested":
                    previous, generation, claimed_ms = _claimed(status, fields)
                    return _lease(api_key_id, owner, previous, generation, claimed_ms)
                contested = fields[0].decode()
                await asyncio.sleep(pause_s)
                waited_s += pause_s
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        raise HeldByAnother(owner=contested)

    async def _claim(self, api_key_id: str, owner: str, kind: Kind, *only_from: str) -> Claimed:
        names = keyspace.channel_names(api_key_id)[:3]
        status, *fields = await self._redis.script("lease_claim", names, owner, kind, *only_from)
        previous, generation, frame_limit, careful_until, claimed_ms, tail, serialization = _claimed(
            status, fields
        )
        return Claimed(
            lease=_lease(api_key_id, owner, previous, generation, claimed_ms),
            frame_limit_bytes=int(frame_limit) if frame_limit else None,
            careful_until=careful_until.decode(),
            caught_up_at=tail.decode(),
            serialization=serialization,
        )

    async def release(self, lease: Lease) -> bool:
        """Releases the lease; the channel's idle time begins. False when another owner has it."""
        names = [keyspace.channel(lease.channel)]
        return bool(await self._redis.script("lease_release", names, lease.owner))


def _lease(api_key_id: str, owner: str, previous: bytes, generation: bytes, claimed_ms: bytes) -> Lease:
    return Lease(
        channel=api_key_id,
        generation=generation.decode(),
        owner=owner,
        previous=previous.decode(),
        claimed_ms=int(claimed_ms),
    )


_REFUSED = {
    b"absent": CloseReason.NO_CHANNEL,
    b"revoked": CloseReason.KEY_REVOKED,
    b"paused": CloseReason.PAUSED,
}


def _claimed(status: bytes, fields: Sequence[bytes]) -> Sequence[bytes]:
    """The fields of a claim's reply. Raises HeldByAnother, NoLongerOwner."""
    if status == b"held":
        raise HeldByAnother(owner=fields[0].decode())
    if status != b"claimed":
        raise NoLongerOwner(close_reason=_REFUSED[status])
    return fields
