"""Every name in Redis, and the data layout.

What belongs to one API key's channel carries the hash tag `{id}` (the API key's id, 32 hex characters), so
that a script which judges revocation, ownership and the queue together touches one slot.

`{id}:key`      hash: account_id, name, scopes, created_at_ms, secret_hash; if it expires expires_at_ms;
                after a rotation old_secret_hash and old_valid_until_ms; signing_secret of its webhooks.
                Written by the gateway; goes when the key is revoked.
`{id}:channel`  hash: kind, generation, created_at_ms, released_at_ms (when its last socket or poll went),
                serialization (JSON, as it was put), dropped (how many notifications were); and after a client
                refused a frame as too long: frame_limit_bytes, refused_until, refused_entry, refused_times.
                Of a webhook: url, headers (JSON), setup (random, new with each PUT and each wish for a
                retry); batch_until (where the batch under way ends); acked_ms (when the last was); while
                its tries fail tries, failing_since_ms and next_attempt_ms.
                Written by gateway, edge and dispatcher; goes with the channel or the key, or when it expires.
`{id}:lease`    string: replica/instance/claim, who may drain the queue.
                Written by the edge; goes on release, with the channel or the key.
`{id}:queue`    stream: id, topic, data, name, time, total (bytes up to and including the entry);
                and if its publisher wants it followed, trail: r for a receipt, a traceparent, or both.
                Written by the gateway, acked from the front by the edge; goes with the channel or the key.
`{id}:receipts` stream: the places in the queue of what wants a receipt; event (SHA-1 of the event's id).
                At most 10,000. Written with the queue, and goes with it, or an hour after the last was added.
`{id}:receipt:<SHA-1 of the event's id>`
                hash: entry (the place in the queue); queued, sent, acked, dropped (ms, as far as it got);
                why it was dropped. Written by gateway and edge; goes an hour after it was queued.
`{id}:deliveries` list of JSON, newest first: the last 100 attempts to deliver to its webhook.
                Written by the dispatcher; goes a week after the last.
`{id}:idempotency:<SHA-256 of the Idempotency-Key>`
                hash: fingerprint; runner while the request runs, with a TTL of seconds that is renewed; then
                answer, with a TTL of a day. Written by the gateway; goes by itself, or if the request fails.
`{session}:session` hash: dialect, account_id, owner (as in a lease), source, destination, connected_at_ms,
                bindings (JSON, as the client spelt them), name, metadata, accounts (whose table mention it).
                Written by the edge that holds its socket; goes with it, or when that edge is found dead.
`{session}:queue` stream: id, topic, data, name, time, account. Written by the gateway, taken by the edge.
`{session}:pushes` list: `id of a push, blank, its data`. Written by the gateway, taken by the edge;
                goes after seconds.
`{session}:pushed:<id>` string '1': that push was taken. Written by the edge; goes after seconds.
`{account}:sessions`      set: the ids of the account's sessions. Written by the edge with each.
`{account}:account`       hash: name, parent. Written by the gateway; stays.
`{account}:routing`        hash: version; key:<id> and channel:<id>:<generation> are '';
                          expires:<id> when a key does, in ms; what a key wants:
                          bindings:<id> its presubscriptions and topics:<id> its plain topics, both JSON,
                          resources:<id> single resources of devices, a line `device TAB path` for each;
                          session:<id> what a session asks for, JSON. `{every}:routing` has only these, of
                          sessions that ask for the events of all accounts.
                          Written by the gateway; stays, but what is an API key's goes with the key.
`{account}:routing-changes` list, newest first: `version before, version after, field...` between blanks, of the
                          last changes to the table: an eighth of their fields, at least 64, at most 4096.
                          Written with the routes; goes an hour after the last change.
`{account}:device-types`  hash: device to type, learnt from registrations.
                          Written by the gateway; a field goes with its device's de-registration.
`{webhooks}:channels`     set: id:generation of every webhook channel, for dispatchers to visit.
                          Written by the gateway; a member goes with its channel, or is found stale.
`{account}:receipt:<SHA-1 of the event's id>`
                          string, JSON: topic, published_at_ms, channels (the first 1,000), channels_total.
                          Written by the gateway; goes after an hour.
`{tokens}:signing-key`    string: what signs the tokens of all replicas. Written by whoever needs it first;
                          stays.
`{replicas}:heartbeat:<replica/instance>`  string '1' with a TTL: this instance is live. Written by the edge.
`{replicas}:last-seen`    sorted set: replica/instance by the ms of its last heartbeat. Written by the edge;
                          a member goes when its instance stops in good order, or the reaper forgets it.
`notify:jobs`, `notify:retries`  sorted sets: arq's queues of the reaper's jobs, and of later tries of webhooks;
                          arq's other names begin with `arq:` and have a TTL.

Pub/sub: `wakeup:<replica/instance>` carries API key ids separated by blanks: look at these channels again;
or, behind a +, what an append queued for one channel: `queue_append.lua` writes it, `carried.py` reads it.
`wakeup:dispatchers` does so to every dispatcher, for webhook channels that nobody holds.
`wakeup:edges` does so to every edge, of sockets that an API key's record may end.
`key:<id>` among them: the record of this key has changed, look by which secret its socket was opened.
`held?<owner>?<id>?<asker>`: how does the owner's long poll stand? `held:<asker>:<standing>` answers.
"""

import hashlib
import re

_PERMANENT = re.compile(
    rb"\{[0-9a-f]{32}\}:(key|channel|lease|queue|account|routing|device-types|session|sessions)|\{every\}:routing"
    rb"|\{tokens\}:signing-key|\{replicas\}:last-seen|\{webhooks\}:channels|notify:(jobs|retries)"
)

LAST_SEEN = "{replicas}:last-seen"
WEBHOOKS = "{webhooks}:channels"
SIGNING_KEY = "{tokens}:signing-key"
# Stands where an account's id does, for what concerns all of them.
EVERY = "every"


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


def receipts(api_key_id: str) -> str:
    return f"{{{api_key_id}}}:receipts"


def session(session_id: str) -> str:
    return f"{{{session_id}}}:session"


def sessions(account_id: str) -> str:
    return f"{{{account_id}}}:sessions"


def pushes(session_id: str) -> str:
    return f"{{{session_id}}}:pushes"


def pushed(session_id: str, push_id: str) -> str:
    return f"{{{session_id}}}:pushed:{push_id}"


def deliveries(api_key_id: str) -> str:
    return f"{{{api_key_id}}}:deliveries"


def of_a_queue(api_key_id: str) -> list[str]:
    """All that judges, holds and tells of a channel's queue."""
    i = api_key_id
    return [api_key(i), channel(i), lease(i), queue(i), receipts(i)]


def receipt(channel_or_account: str, event_id: str) -> str:
    """What became of an event."""
    return f"{{{channel_or_account}}}:receipt:{hash_of(event_id)}"


def hash_of(event_id: str) -> str:
    """The publisher may have chosen characters that would make a name look like another."""
    return hashlib.sha1(event_id.encode(), usedforsecurity=False).hexdigest()


def id_in(name: bytes) -> str:
    """The id between the braces of a name."""
    return name.decode().partition("{")[2].partition("}")[0]


def idempotency(api_key_id: str, idempotency_key: str) -> str:
    """Hashed: the publisher may have chosen any characters, and more of them than a name should have."""
    return f"{{{api_key_id}}}:idempotency:{hashlib.sha256(idempotency_key.encode()).hexdigest()}"


def account(account_id: str) -> str:
    return f"{{{account_id}}}:account"


def routing(account_id: str) -> str:
    return f"{{{account_id}}}:routing"


def routing_changes(account_id: str) -> str:
    return f"{{{account_id}}}:routing-changes"


def device_types(account_id: str) -> str:
    return f"{{{account_id}}}:device-types"


def heartbeat(instance: str) -> str:
    return f"{{replicas}}:heartbeat:{instance}"


def wakeup(instance: str) -> str:
    return f"wakeup:{instance}"
