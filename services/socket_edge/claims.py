"""How a connection becomes the owner of a WebSocket channel: the newest wins, whatever its dialect."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from services.socket_edge.held import LeaseHolder
from shared.store.leases import Claimed

if TYPE_CHECKING:
    from services.socket_edge.credential_watcher import Credential
    from services.socket_edge.edge import Edge


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease with a place in its account's quota, which no connection has yet.

    `missed` are the wakeups that had reached no connection before it; None if that says nothing.
    """

    account_id: str
    claimed: Claimed
    missed: int | None


async def claim_channel(edge: "Edge", account_id: str, channel: str, *, is_native: bool) -> Claim:
    """Raises NoLongerOwner (NO_CHANNEL, KEY_REVOKED, PAUSED), QuotaExceeded, StoreUnavailable."""
    async with edge.place_on_channel(account_id, channel):
        edge.flush_acks(channel)
        # A wakeup behind the claim may reach an older owner here, and `missed` does not count it.
        missed = None if edge.registry.of(channel) else edge.wakeups.missed
        claimed = await edge.stores.leases.claim(channel, owner=edge.new_owner())
    if is_native:
        claimed = replace(claimed, lease=replace(claimed.lease, is_native=True))
    return Claim(account_id, claimed, missed)


def hold_claimed(edge: "Edge", holder: LeaseHolder, claim: Claim, credential: "Credential | None") -> None:
    """From now on the connection owns its channel. Without a credential it ends with what holds it."""
    claimed = claim.claimed
    holder.counted_for = claim.account_id
    if is_caught_up := bool(claimed.caught_up_at) and edge.wakeups.missed == claim.missed:
        holder.loop.begin_caught_up(claimed.caught_up_at, claimed.serialization)
    edge.hold(holder, credential, wakes=not is_caught_up)
