"""Which channels a native socket may open (docs/protocols/native.md, docs/protocols/channels.md).

A token names channels of its account, by name or id. An API key with the scope `channels` or `admin` has
those of its account, one with `receive` its own. The channel of an API key is opened by that key only. What
is forbidden is checked first: a caller cannot learn which channels there are.
"""

from typing import TYPE_CHECKING

from shared.authentication import require_scope
from shared.model.account_channels import ChannelRecord, id_shown, name_error, shown_id
from shared.model.api_keys import ApiKey, Scope
from shared.model.errors import MissingScope, NoSuchChannel, NotGranted
from shared.model.grants import Grant

if TYPE_CHECKING:
    from services.socket_edge.edge import Edge

CLAIM = "channels"


async def channel_for(edge: "Edge", caller: ApiKey | Grant, wanted: str) -> ChannelRecord:
    """The channel with this id or name. Raises NotGranted, MissingScope, NoSuchChannel, StoreUnavailable."""
    if isinstance(caller, ApiKey):
        _check_scopes(caller, id_shown(wanted))
        record = await _find(edge, caller.account_id, wanted)
    else:
        record = await _find(edge, caller.account_id, wanted)
        if not (caller.may_open(wanted) if record is None else is_granted(caller, record)):
            raise NotGranted(CLAIM, f"the channel {wanted}")
    if record is None:
        raise NoSuchChannel
    return record


def is_granted(grant: Grant, record: ChannelRecord) -> bool:
    """Whether a token names the channel as it is now."""
    id = shown_id(record.id)
    return grant.may_open(id, record.name) if record.name else grant.may_open(id)


def _check_scopes(key: ApiKey, channel: str | None) -> None:
    """Raises MissingScope."""
    if not key.scopes.isdisjoint((Scope.CHANNELS, Scope.ADMIN)):
        return
    if channel != key.id:
        raise MissingScope(Scope.CHANNELS)
    require_scope(key.scopes, Scope.RECEIVE)


async def _find(edge: "Edge", account_id: str, wanted: str) -> ChannelRecord | None:
    channels, channel = edge.stores.account_channels, id_shown(wanted)
    is_named = channel is None
    if is_named and name_error(wanted) is None:
        channel = await channels.names.find(account_id, wanted)
    record = None if channel is None else await channels.record(channel)
    if record is None or record.account_id != account_id or (is_named and record.name != wanted):
        return None
    return record
