"""Who may drain a channel's queue. Every later write names the owner, and is refused to any other."""

from dataclasses import dataclass

from shared import telemetry
from shared.model.channels import CloseReason, Kind, Lease, instance_of
from shared.model.errors import HeldByAnother, NoLongerOwner
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.replicas import Replicas


@dataclass(frozen=True, slots=True)
class Claimed:
    """A lease, and what earlier sockets learnt of this client: the frame size it takes, and up to which
    entry it is to be sent one frame at a time."""

    lease: Lease
    frame_limit_bytes: int | None
    careful_until: str


class Leases:
    """Claims and gives back leases."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis
        self._replicas = Replicas(redis)

    async def claim(self, api_key_id: str, *, owner: str) -> Claimed:
        """Makes `owner` the owner of the channel, whoever was before.

        Raises NoLongerOwner(NO_CHANNEL or KEY_REVOKED).
        """
        i = api_key_id
        names = [keyspace.api_key(i), keyspace.channel(i), keyspace.lease(i)]
        with telemetry.claim_span(i):
            word, *found = await self._redis.script("lease_claim", names, owner, Kind.WEBSOCKET)
        if word != b"claimed":
            raise NoLongerOwner(
                close_reason=CloseReason.NO_CHANNEL if word == b"absent" else CloseReason.KEY_REVOKED
            )
        previous, generation, frame_limit, careful_until = (value.decode() for value in found)
        return Claimed(
            lease=Lease(channel=i, generation=generation, owner=owner, previous=previous),
            frame_limit_bytes=int(frame_limit) if frame_limit else None,
            careful_until=careful_until,
        )

    async def claim_unheld(self, api_key_id: str, *, owner: str, kind: Kind, silent: str = "") -> Lease:
        """Makes `owner` the owner of a channel of this kind that nobody live holds.

        `silent` is an owner that was asked and did not answer: it counts as gone, heartbeat or not.
        Raises HeldByAnother, NoLongerOwner(NO_CHANNEL or KEY_REVOKED).
        """
        i, seen = api_key_id, silent
        names = [keyspace.api_key(i), keyspace.channel(i), keyspace.lease(i)]
        with telemetry.claim_span(i):
            word, *found = await self._redis.script("lease_claim_unheld", names, owner, kind, seen)
            if word == b"held" and (holder := found[0].decode()) != seen:
                if holder and (await self._replicas.seen(instance_of(holder))).live:
                    raise HeldByAnother(owner=holder)
                word, *found = await self._redis.script("lease_claim_unheld", names, owner, kind, holder)
        if word == b"held":
            raise HeldByAnother(owner=found[0].decode())
        if word != b"claimed":
            raise NoLongerOwner(
                close_reason=CloseReason.NO_CHANNEL if word == b"absent" else CloseReason.KEY_REVOKED
            )
        previous, generation = (value.decode() for value in found)
        return Lease(channel=i, generation=generation, owner=owner, previous=previous)

    async def release(self, lease: Lease, *, now_ms: int) -> bool:
        """Gives the lease back, so that the channel is idle from now; tells whether it was still ours."""
        names = [keyspace.channel(lease.channel), keyspace.lease(lease.channel)]
        return bool(await self._redis.script("lease_release", names, lease.owner, now_ms))
