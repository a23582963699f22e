"""Every name in Redis: the data layout.

Each entry gives type, fields, writer and lifetime. A name either has a TTL or matches `PERMANENT`.

The part between braces is the hash tag: everything with one tag lies in one slot of a cluster, and a script
touches one slot. `{id}` is a channel's id (32 hex characters): that of the API key that has it, or its own.
`{session}` and `{account}` are ids of a session and an account.

API keys and channels

`{id}:key`      hash: account_id, name, scopes, created_at_ms, secret_hash; expires_at_ms if it expires;
                old_secret_hash and old_valid_until_ms after a rotation. Of its webhooks: signing_secret, and
                once there were two of them signing_secrets, which holds then: a line for each, newest first,
                `<id> <made in ms> <ends in ms, or -> <secret>`; signing_secret is then the newest HMAC one,
                for processes of an older release. Gateway. Until the key is revoked.
                Of a native channel: native ('1'), account_id, created_at_ms; name, customer, signing_secret,
                signing_secrets where it has them. Gateway. With its channel, in the same step.
`{id}:channel`  hash: kind, generation, created_at_ms, serialization (JSON, as it was put), dropped (count of
                notifications dropped); bindings_version, that of `key:<id>` in the routing table, written
                after it (absent before the first: the generation counts).
                Of its lease: owner, `replica/instance/claim`, absent without one; claimed_ms (when the owner
                claimed it; not of a webhook); released_at_ms (last release); contested_until_ms, while
                a second long poll waits for the owner to confirm it.
                Of its queue: tail (the last entry appended, absent before the first), total (sum of the sizes
                of all entries ever appended); first and first_total, lower bounds of the first pending entry
                and of the total before it, absent only while the queue is empty; receipts ('1' while some may
                be tracked).
                After a client refused a frame as too long: frame_limit_bytes, refused_until, refused_entry,
                refused_times. A webhook also has url, headers (JSON), config_version (random, changed by each
                PUT and each retry request), batch_until (last entry of the batch being delivered, or 0-0),
                acked_ms (time of the last ack), attempts (`<number> <bytes before the next> <ms>` of the
                last one in its stream); while it fails: failed_attempts, failing_since_ms, next_attempt_ms,
                timed_out (webhook-id of the batch whose last attempt timed out), refused_entry and
                refused_times (the single notification that it refused last with a 413). Of its receiver's
                limits: body_limit_bytes and body_limit_until_ms (after a 413, for a day), batch_limit
                (after time-outs, until it has grown beyond use), grows_from_ms (0 after it has grown; the
                time of the next growth after that was too much). A PUT removes all of these.
                With several requests at once: taken_until (the last entry ever taken), hurry ('1': everything
                that waits is due), anew_ms (failures before it do not count), planned_ms (for when the last
                retry was planned), hold_ms (until then no new entry is taken: the receiver seems to be down),
                asked_ms (until then the receiver wants no request); failed_attempts counts all in a row.
                A native webhook also has policy (JSON: method, format, times and bounds of its requests, and
                the names of its secret headers); rate_at_ms (before it no request, if it has a rate); head
                (the first entry of what fails, and since when in ms); disabled (the reason) and
                disabled_since_ms; notices (lines for events to its account, at most 16), noticed (how
                many there were) and trouble ('1' from a notice of a failure to the next success).
                paused ('1': nothing is delivered), and limits (`<bytes> <ms>` of its queue, each of which
                may be missing, a w behind them of a native webhook, and a p while it is paused or disabled).
                Of a native channel: idle_expiry_ms (0: never; other channels have their kind's), unfinished
                ('1' until its creation has ended; the reaper ends it after a minute). Of a native webhook
                with a client certificate: client_certificate (random, new with each), client_chain and
                client_key (PEM, as it is used), client_facts (JSON, what is shown). Of a native pull channel:
                ack_timeout_ms (unless it is the default), and of its last fetch that got something:
                fetch_lease (a random token), fetch_until (the last entry that is its own), ack_by_ms and
                fetched (how many) until all is acked or nacked; nacked (the first entry given back) and
                nacked_until_ms. Its released_at_ms is the last fetch, ack or nack.
                Gateway, edge, dispatcher. Until the channel or the key ends, or the channel expires.
`{id}:queue`    stream of pending notifications: id, topic, data, name, time, total (the channel's, with this
                entry), trail if it is traced or a CloudEvent: the traceparent, with an r before it (or alone)
                for a receipt, and attributes (JSON) of a CloudEvent. Gateway appends; the owner acks from
                the front. With the channel, and only with it: an empty stream remembers its last id, so a new
                entry comes behind the tail.
`{id}:taken`    sorted set, of a webhook with several requests at once: what is under way, or waits for a
                retry: `<entry> <failed attempts> <ms of the first failure> <refusals for its size> <ms for
                which the attempt was planned>` by the ms of the next attempt, or 9 * 10^15 while it is under
                way. At most 1,100. Dispatcher. A member goes with its entry, or when it is due; all of it
                with the queue, or once the webhook has one request at a time.
`{id}:receipts` stream: the entry ids of the queue that want a receipt; event (SHA-1 of the event's identity).
                At most 10,000 for long. Gateway appends; acks and drops remove. With the queue, or 1 h after
                the last append.
`{id}:receipt:<SHA-1 of the event's identity>`
                hash: entry (entry id in the queue), generation of the channel; queued, sent, acked, dropped
                (ms, as far as it got); reason of the drop. Gateway, edge, dispatcher. 1 h after it was
                queued.
`{id}:ended`    hash: generation of a channel that ended while receipts were tracked, with the time in ms and
                the reason; at most 64. They hold for its receipts that were neither acked nor dropped.
                `purged:<generation>`: `<ms> purged <entry>` of the last purge; holds up to that entry.
                Gateway, dispatcher, reaper. 1 h after the last end.
`{id}:attempts` stream, one entry for each of the last attempts of its webhook: head (its running number, the
                bytes before it, its own, success or failure, ms of the next attempt or -), by which it is
                bounded: 200, 512 KiB, 7 days; events (ids of its notifications between newlines, 4 KiB at
                most), facts (JSON), details (JSON of a failure: headers without secrets, 2 KiB of request and
                response). Dispatcher. 1 week and an hour after the last attempt; a native channel's ends
                with it.
`{id}:deliveries` list of JSON, newest first: 100 attempts, as releases before that stream wrote them. Read
                only. 1 week after the last one.
`{id}:running:<hash of the Idempotency-Key>`
                string: fingerprint of the request (16 bytes) and its runner. Gateway. While the request runs,
                at most 10 s without a renewal.
`{id}:idempotency:<number of six hours since 1970>` (both also of an account, for publishers by token)
                hash: 16 bytes of the SHA-256 of each Idempotency-Key whose request ended in that time to the
                fingerprint and the response. Gateway. 36 h; read for 24 to 30 h.
`{id}:replay`   hash, the last replay of the channel: replay (its id), state (running, done, cancelled,
                failed), account, since_ms, until_ms, topics (JSON), per_s, total (of events that it passes,
                at most), created_ms; cursor (`<offset>:<SHA-1 of the topic>`, of the last event that it
                passed), passed and done (how many were queued); runner and runner_until_ms, of the process
                that works at it; waits ('1' while the queue is too full); error and ended_ms.
                Gateway begins and cancels it, a dispatcher works at it; each step is made with its append.
                7 days after its end, with the channel, or after 90 days.
`{webhooks}:channels`
                set: `id:generation` of every webhook channel, for the dispatchers' sweep.
                Gateway adds; a member goes with its channel, or when the sweep finds it stale.
`{webhooks}:sweep` string: the instance that walks through them, or did so last. Dispatcher. TTL of seconds.

Sessions

`{session}:session` hash: dialect, account_id, owner (as in a lease), source, destination, connected_at_ms,
                bindings (JSON, as the client spelled them), name, metadata, accounts (whose routing tables
                name it), queued_bytes (of its queue, unless that is empty; gateway). The edge that holds its
                socket. Until the socket closes; the reaper drops those of dead edges.
`{session}:queue` stream: id, topic, data, name, time, account; at most 500 entries and 1 MiB. Gateway
                appends, edge takes. With the session.
`{session}:pushes` list: `<push id> <data>`. Gateway appends, edge takes. TTL of seconds.
`{session}:pushed:<push id>`
                string '1': the edge has written that push to the socket. Edge. TTL of seconds.
`{account}:sessions` set: ids of the account's sessions. Edge. A member goes with its session.

Accounts and routing

`{account}:account` hash: name, parent, master; `quota:<name>` and `key_quota:<name>`, the quotas that differ
                from the installation's; deleting, '1' from the DELETE on. Gateway. Until an hour after its
                deletion has ended.
`{account}:children` set: ids of the accounts whose parent it is. Gateway. A member goes with its account.
`{account}:rates`
                hash: events, bytes, copies: `<tokens in the bucket> <ms>`, by Redis' clock. Gateway. TTL
                until every bucket is full.
`{account}:rates:<API key id>`
                the same for events and bytes of one API key that has quotas of its own.
`{account}:counts`
                hash: channels (API keys and native ones) and bindings in the routing table. Written with it.
                Permanent; a field goes when it is 0.
`{account}:sockets`
                hash: `replica/instance` of an edge: `<sockets and polls it holds> <ms>`, by Redis' clock.
                Edge, once a second while the number changes, and every 20 minutes. A field goes when it is 0,
                or an hour after it was written. TTL of an hour.
`{account}:routing` hash, the routing table: version (random, new with each change);
                `key:<id>`, the version at which the key's bindings changed last;
                `channel:<id>:<generation>`, ''; `expires:<id>` of a key in ms;
                a key's `bindings:<id>` (presubscriptions) and `topics:<id>`, both JSON;
                `resources:<id>`, a line `device TAB path` for each;
                `native:<id>` of a native channel: its name and customer (JSON);
                `session:<id>`, the bindings of a session (JSON);
                `streams`, the rules of retained topics (JSON: patterns, count, age in ms).
                `{every}:routing` has only the sessions that want events of all accounts, and credentials:
                random, new after each revocation and each new secret of an API key. Each publish reads it,
                and each edge once a second. And quotas: random, new after each change of an account's quotas.
                Gateway, edge, reaper. Permanent; a key's fields go with the key.
`{account}:routing-changes`
                list, newest first: `<version before> <version> <field>...` of the last changes to the table;
                an eighth as many as it has fields, between 64 and 4,096.
                Written with the table. 1 h after the last change.
`{account}:channel-ids`
                sorted set, all scores 0: `<id>:<generation>` of each channel in the routing table. Written
                with it, in the same step. Permanent.
`{account}:channel-names`
                sorted set, all scores 0: `<name> NUL <id>` of each native channel with a name. Gateway,
                before the record. A member goes with its channel, or when the next one that wants the name,
                or the reaper, finds it stale.
`{account}:device-types`, `{account}:device-types:old`
                hash: 16 bytes of the SHA-256 of a device's name to the first 65 characters of its type,
                learned from registrations. The first becomes the second when it is full, or after 30 days.
                Gateway. A field goes with the device's de-registration; each hash after 60 days.
`{account}:usage` hash: bytes that the account has stored: queues, sessions, device_types, streams;
                `receipts:<ten minutes since 1970>` and `responses:<six hours>`; recounted_at_ms, recounted.
                Gateway. 48 h after the last report.
`{account}:recount` string: a random token of the process that recounts. Gateway. TTL of 10 s, renewed.
`{account}:has-receipts`
                string '1': some receipt of the account may exist. Gateway. 90 minutes.
`{account}:receipt:<SHA-1 of the event's identity>`
                string, JSON: topic, published_at_ms, channels (the first 1,000), channels_total.
                Gateway. 1 h.

Tokens: their names are in `token_names.py`.

Streams

Their names are in `stream_names.py`. Of replays of them into channels:

`{replays}:channels`
                sorted set: the channels with a replay, by the ms at which it began, or was put off because
                its queue was too full. Gateway; dispatcher, which removes one whose replay has ended.
`{account}:replays`
                sorted set: the channels of the account with a replay, by the ms at which their place ends, an
                hour after a dispatcher worked at it. Gateway, dispatcher. TTL of an hour.

`{accounts}:names` sorted set, all scores 0: `<name> NUL <id>` of every account.
                Gateway. A member goes with its account, or when the reaper finds it stale.
`{accounts}:audit`, `{account}:audit`
                stream: by, action, target, name, address, request_id of each change by an administrator; the
                first of the accounts themselves, the others of what the account owns. About 1,000 entries.
                Gateway. 90 days after the last entry, or with the account.
`{accounts}:deleting` set: ids of the accounts whose deletion has not ended. Gateway.

Replicas

`{replicas}:heartbeat:<replica/instance>` string '1': the instance is live. Edge, dispatcher. TTL.
`{replicas}:last-seen` sorted set: `replica/instance` by the ms of its last heartbeat.
                Edge, dispatcher.
                A member moves to `{replicas}:stopped` at shutdown, or goes when the reaper forgets it.
`{replicas}:stopped`
                sorted set: `replica/instance` by the ms of its shutdown. Edge, dispatcher. A member goes when
                the reaper forgets it.
`{replica/instance}:held-sessions`
                set: ids of the sessions whose sockets the instance holds, so that the reaper finds those of a
                dead edge. Edge, before the session itself. A member goes with its session.
`{due:0}:channels` to `{due:7}:channels`
                sorted sets, by a hash of the id: every API key id with a channel, by the ms at which
                something of the channel may be due, a lower bound (`due_channels.py`). With a fraction of a
                half, the last visit found no channel. Several slots, so that a cluster's primaries share the
                memory, about 95 bytes for each channel; not the channels' own slots, or a reaper would
                have to ask thousands of them what is due.
                Gateway, edge, reaper. A member goes a minute after its channel, or with the key.
`{reaper}:round` hash: token and until_ms of the reaper's round, ended_ms of the last one, steady_since_ms
                (rounds have followed each other since), back_since_ms (the end of the last gap of minutes).
                Reaper. Permanent.
`{reaper}:notes` hash: the lifetimes by which due times were written (expiry:<kind>, lifetime);
                cleaned_until_ms, the last heartbeat of the last dead edge whose sessions were dropped; of
                reconciliation walk_began_ms, walk_runs, and while it runs walk_cursor (of SCAN), walk_after
                (last name done in that page) and walk_fields (cursor in the routing table under way).
                Reaper. Permanent.
`{layout}:version` string: LAYOUT_VERSION of the release that first used this Redis. Every process checks it
                before it touches anything else. Whatever starts first. Permanent.
`{tokens}:signing-key` string: the key that signs the tokens of all replicas. Gateway, edge. Permanent.
`notify:jobs`, `notify:retries`
                sorted sets of arq: the reaper's jobs, and the retries of webhooks.
                arq's other names begin with `arq:` and have a TTL.

Pub/sub

`wakeup:<replica/instance>` to one process, `wakeup:edges` to every edge, `wakeup:dispatchers` to every
dispatcher (for webhooks without an owner). The payload is a list of items, separated by blanks:
  `<id>` of a channel or session: it may have something to deliver, or its lease is contested; read its
  queue.
  `key:<id>`: the API key's record has changed; check the credentials of its sockets.
  `webhook:<id>`: the webhook was put, deleted or revoked; end a request that goes to an older URL.
A payload that begins with + has inline entries: `queue_append.lua` writes them, `inline_entries.py` parses
them.
"""

import hashlib
import re
import zlib
from collections.abc import Callable

PERMANENT = re.compile(
    rb"\{[0-9a-f]{32}\}:(key|channel|queue|taken|account|children|routing|counts|session|sessions"
    rb"|channel-ids|channel-names|token-keys)"
    rb"|\{every\}:(routing|counts)|\{tokens\}:signing-key|\{replicas\}:(last-seen|stopped)|\{(webhooks|replays)\}:channels"
    rb"|notify:(jobs|retries)|\{layout\}:version|\{accounts\}:(deleting|names)"
    rb"|\{due:[0-7]\}:channels|\{reaper\}:(round|notes)|\{[^{}/]+/[^{}/]+\}:held-sessions"
)

# Raise it with each change that a release before it cannot share.
LAYOUT_VERSION = 2
LAYOUT = "{layout}:version"

LAST_SEEN = "{replicas}:last-seen"
STOPPED = "{replicas}:stopped"
WEBHOOKS = "{webhooks}:channels"
DUE = tuple(f"{{due:{slot}}}:channels" for slot in range(8))
REAPER_ROUND = "{reaper}:round"
REAPER_NOTES = "{reaper}:notes"
REPLAYS = "{replays}:channels"
SWEEP = "{webhooks}:sweep"
SIGNING_KEY = "{tokens}:signing-key"
DELETING = "{accounts}:deleting"
ACCOUNT_NAMES = "{accounts}:names"
# The tag of what concerns all accounts as such.
ACCOUNTS = "accounts"
# Takes the place of an account id for what concerns all accounts.
EVERY = "every"


def _names(suffix: str) -> Callable[[str], str]:
    """Names that differ in the id between the braces."""
    return lambda tag: f"{{{tag}}}:{suffix}"


api_key = _names("key")
channel = _names("channel")
queue = _names("queue")
receipts = _names("receipts")
ended = _names("ended")
deliveries = _names("deliveries")
replay = _names("replay")
replays = _names("replays")
attempts = _names("attempts")
taken = _names("taken")
session = _names("session")
pushes = _names("pushes")
account = _names("account")
children = _names("children")
has_receipts = _names("has-receipts")
usage = _names("usage")
recount = _names("recount")
rates = _names("rates")
sessions = _names("sessions")
held_sessions = _names("held-sessions")
routing = _names("routing")
routing_changes = _names("routing-changes")
counts = _names("counts")
audit = _names("audit")
sockets = _names("sockets")
channel_ids = _names("channel-ids")
names_of_channels = _names("channel-names")
token_keys = _names("token-keys")
token_cut_offs = _names("token-cut-offs")
tickets = _names("tickets")
ticket_ends = _names("ticket-ends")
ticket_subjects = _names("ticket-subjects")


def device_types(account_id: str) -> list[str]:
    """The younger hash of device types, and the older one."""
    name = f"{{{account_id}}}:device-types"
    return [name, f"{name}:old"]


def channel_names(api_key_id: str) -> list[str]:
    """Key, channel, queue and receipts. Scripts take a part of them as KEYS, in this order."""
    tag = f"{{{api_key_id}}}:"
    return [tag + "key", tag + "channel", tag + "queue", tag + "receipts"]


def leftovers(api_key_id: str) -> list[str]:
    """What an API key leaves behind when it is revoked: attempts, receipts, prefix of responses."""
    names = (attempts, deliveries, receipts, ended, idempotency_prefix)
    return [name(api_key_id) for name in names]


def names_of_account(account_id: str) -> list[str]:
    """Every name in the account's slot that has no id in it; its record is the first."""
    of_routing = (routing, routing_changes, counts, sessions)
    of_usage = (usage, recount, rates, sockets, has_receipts)
    of_channels = (channel_ids, names_of_channels, replays)
    of_tokens = (token_keys, token_cut_offs, tickets, ticket_ends, ticket_subjects)
    names = (account, children, audit, *of_routing, *of_channels, *of_usage, *of_tokens)
    return [*(name(account_id) for name in names), *device_types(account_id)]


def due(api_key_id: str) -> str:
    """The one of `DUE` that has the channel."""
    return DUE[zlib.crc32(api_key_id.encode()) % len(DUE)]


def receipt(channel_or_account: str, event: str) -> str:
    """`event` is its identity (event_identity.py)."""
    return f"{{{channel_or_account}}}:receipt:{hash_of(event)}"


def rates_of_key(account_id: str, api_key_id: str) -> str:
    """In the account's slot: its record has the quotas of its API keys."""
    return f"{rates(account_id)}:{api_key_id}"


def hash_of(event: str) -> str:
    """The publisher chooses the identity: its characters could make one name look like another."""
    return hashlib.sha1(event.encode(), usedforsecurity=False).hexdigest()


def running(api_key_id: str, idempotency_field: bytes) -> str:
    return f"{{{api_key_id}}}:running:{idempotency_field.hex()}"


def idempotency_field(idempotency_key: str) -> bytes:
    """Hashed: the publisher chooses the key's characters and its length."""
    return hashlib.sha256(idempotency_key.encode()).digest()[:16]


def idempotency_prefix(api_key_id: str) -> str:
    """The script adds the number of six hours since 1970, by Redis' clock."""
    return f"{{{api_key_id}}}:idempotency:"


def pushed(session_id: str, push_id: str) -> str:
    return f"{{{session_id}}}:pushed:{push_id}"


def heartbeat(instance: str) -> str:
    return f"{{replicas}}:heartbeat:{instance}"


def wakeup(instance: str) -> str:
    return f"wakeup:{instance}"


def id_in(name: bytes) -> str:
    """The id between the braces of a name."""
    return name.decode().partition("{")[2].partition("}")[0]
