"""Who may drain a channel's queue. Every later write names the owner, and is refused to any other."""

from dataclasses import dataclass

from shared import telemetry
from shared.model.channels import Ending, Kind, Lease
from shared.model.errors import NoLongerOwner
from shared.store import keyspace
from shared.store.calls import Calls


@dataclass(frozen=True, slots=True)
class Claimed:
    """A lease, and what earlier sockets learnt of this client: the frame size it takes, and up to which
    entry it is to be sent one frame at a time."""

    lease: Lease
    frame_limit_bytes: int | None
    careful_until: str


class Leases:
    """Claims and gives back leases."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def claim(self, api_key_id: str, *, owner: str) -> Claimed:
        """Makes `owner` the owner of the channel, whoever was before.

        Raises NoLongerOwner(NO_CHANNEL or KEY_REVOKED).
        """
        i = api_key_id
        names = [keyspace.api_key(i), keyspace.channel(i), keyspace.lease(i)]
        with telemetry.claim_span(i):
            word, *found = await self._calls.script("lease_claim", names, owner, Kind.WEBSOCKET)
        if word != b"claimed":
            raise NoLongerOwner(ending=Ending.NO_CHANNEL if word == b"absent" else Ending.KEY_REVOKED)
        previous, incarnation, frame_limit, careful_until = (value.decode() for value in found)
        return Claimed(
            lease=Lease(channel=i, incarnation=incarnation, owner=owner, previous=previous),
            frame_limit_bytes=int(frame_limit) if frame_limit else None,
            careful_until=careful_until,
        )

    async def release(self, lease: Lease, *, now_ms: int) -> bool:
        """Gives the lease back, so that the channel is idle from now; tells whether it was still ours."""
        names = [keyspace.channel(lease.channel), keyspace.lease(lease.channel)]
        return bool(await self._calls.script("lease_release", names, lease.owner, now_ms))
