"""Every name in Redis, and the data layout.

What belongs to one API key's channel carries the hash tag `{api_key_id}`, so that a script which judges
revocation, ownership and the queue together touches one slot. `id` is 32 hex characters.

| name | type | fields | written by | goes |
|---|---|---|---|---|
| {id}:key | hash | account_id name scopes created_at_ms secret_hash | gateway | when revoked |
| {id}:channel | hash | kind incarnation created_at_ms; after a frame was refused as too long: frame_limit_bytes, refused_until, refused_entry, refused_times | gateway, edge | with the channel or the key |
| {id}:lease | string | replica/boot/claim: who may drain the queue | edge | on release, with the channel or the key |
| {id}:queue | stream | id topic data name time total (bytes up to and including it) | gateway; edge settles | from the front as it is settled; with the channel or the key |
| {account}:account | hash | name parent | gateway | never |
| {account}:routes | hash | version; key:<id> → ''; channel:<id> → incarnation; bindings:<id> → JSON | gateway | never |
| {account}:device-types | hash | device → type, learnt from registrations | gateway | with the device's de-registration |
| {replicas}:heartbeat:<replica/boot> | string | '1', with a TTL: this boot is live | edge | by its TTL |
| {replicas}:last-seen | sorted set | replica/boot → ms of the last heartbeat | edge | on a stop in good order |

Pub/sub: `nudge:<replica/boot>` carries API key ids separated by blanks: look at these channels again.
"""

import re

_PERMANENT = re.compile(
    rb"\{[0-9a-f]{32}\}:(key|channel|lease|queue|account|routes|device-types)|\{replicas\}:last-seen"
)

LAST_SEEN = "{replicas}:last-seen"


def is_permanent(name: bytes) -> bool:
    """May this name stand in Redis without a TTL?"""
    return _PERMANENT.fullmatch(name) is not None


def api_key(api_key_id: str) -> str:
    return f"{{{api_key_id}}}:key"


def channel(api_key_id: str) -> str:
    return f"{{{api_key_id}}}:channel"


def lease(api_key_id: str) -> str:
    return f"{{{api_key_id}}}:lease"


def queue(api_key_id: str) -> str:
    return f"{{{api_key_id}}}:queue"


def account(account_id: str) -> str:
    return f"{{{account_id}}}:account"


def routes(account_id: str) -> str:
    return f"{{{account_id}}}:routes"


def device_types(account_id: str) -> str:
    return f"{{{account_id}}}:device-types"


def heartbeat(boot: str) -> str:
    return f"{{replicas}}:heartbeat:{boot}"


def nudge(boot: str) -> str:
    return f"nudge:{boot}"
