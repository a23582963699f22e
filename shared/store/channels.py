"""The life of an API key's channel: made, looked at, deleted."""

import secrets

from shared.model.channels import ChannelState, Kind, boot_of
from shared.model.errors import KeyRevoked, KindConflict
from shared.store import keyspace
from shared.store.calls import Calls
from shared.store.nudges import Nudges
from shared.store.routes import Routing


class Channels:
    """Keeps channels. A channel's record is in its own slot, its mention in the account's routes."""

    def __init__(self, calls: Calls, routing: Routing, nudges: Nudges) -> None:
        self._calls = calls
        self._routing = routing
        self._nudges = nudges

    async def create(self, account_id: str, api_key_id: str, *, kind: Kind, now_ms: int) -> bool:
        """Makes the channel if there is none; tells whether it did.

        Raises KindConflict when one of another kind is there, KeyRevoked when the key is gone.
        """
        names = [keyspace.api_key(api_key_id), keyspace.channel(api_key_id)]
        word, *found = await self._calls.script("channel_create", names, kind, secrets.token_hex(8), now_ms)
        if word == b"revoked":
            raise KeyRevoked
        existing, incarnation = found[0].decode(), found[1].decode()
        if existing != kind:
            raise KindConflict(existing=existing)
        # Also when it existed: whoever made it may have died before this line.
        await self._routing.add_channel(account_id, api_key_id, incarnation=incarnation)
        return bool(word == b"created")

    async def state(self, api_key_id: str) -> ChannelState | None:
        """The channel as it is now; None when there is none."""
        kind = await self._calls.command("HGET", keyspace.channel(api_key_id), "kind")
        if kind is None:
            return None
        owner = await self._calls.command("GET", keyspace.lease(api_key_id))
        size = await self._calls.command("XLEN", keyspace.queue(api_key_id))
        connected = owner is not None and await self._is_live(owner.decode())
        return ChannelState(kind=Kind(kind.decode()), connected=connected, queue_size=int(size))

    async def _is_live(self, owner: str) -> bool:
        return bool(await self._calls.command("EXISTS", keyspace.heartbeat(boot_of(owner))))

    async def delete(self, account_id: str, api_key_id: str, *, kind: Kind) -> bool:
        """Ends the channel and its queue, and tells its socket's owner; False when there was none."""
        i = api_key_id
        names = [keyspace.channel(i), keyspace.lease(i), keyspace.queue(i)]
        word, *found = await self._calls.script("channel_delete", names, kind)
        if word == b"absent":
            return False
        if found[1]:
            self._nudges.send(found[1].decode(), i)
        # Should this step fail, the routes name a channel that is gone, and appends to it answer so.
        await self._routing.drop_channel(account_id, i, incarnation=found[0].decode())
        return True
