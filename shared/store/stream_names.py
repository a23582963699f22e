"""The names of streams in Redis: the rest of the data layout that `keyspace.py` has.

The topics of an account lie at 16 places, by the first digit of the topic's SHA-1: so a cluster spreads them,
and an event is found by its id with one read at each place. `{place}` is `{<account>/<digit>}`.

`{place}:stream:<SHA-1 of the topic>`
                stream, the retained log of a topic: id, data, name, time, hash (SHA-1 of the id), and more
                (JSON: to, customer, attributes) if there is any. A reader who has only the topic gets none of
                those with `to` or `customer`. Gateway. Its entries go by the count and the age of the
                account's rule; all of it goes by that age after the last one, or a part of it later.
`{place}:stream:<SHA-1 of the topic>:purged`
                the same, what a purge has taken out of it and is about to drop. Gateway. By that age if the
                purge was cut off, or with the next one.
`{place}:stream-state:<SHA-1 of the topic>`
                hash: topic, epoch (of this log alone; after purges also their number, and a random part of
                the last one), last (offset of the last entry ever), trimmed (of the last one that is gone),
                reason (trimmed, expired, purged), first_ms (a lower bound of the first entry's time), bytes
                (of all entries), count (of the entries, a hint: a gateway of an older
                release counts none), age_ms (of the rule), kept_ms (when the ends of log and state were set).
                Gateway. 30 days longer than the log.
`{place}:stream-event:<SHA-1 of the event id>`
                string: `<SHA-1 of the topic> <offset>` of the newest event of that id. Gateway. With its
                entry.
`{place}:stream-readers:<SHA-1 of the topic>`
                hash: `replica/instance` of an edge: `<readers of the topic> <ms>`, by Redis' clock. Edge,
                when the number changes, at most once a second, and every 30 s. TTL of 90 s.
`{place}:streams` sorted set: `<SHA-1> <topic>` of this place by the ms at which its state ends. Those that
                would end first make room when there are too many. Gateway. 30 days longer than the longest
                log.

Pub/sub, sharded: `{place}:stream-live:<SHA-1 of the topic>`, to the edges with readers of the topic: each
append and each purge. Parts between NULs: + and the epoch, the offset before, the last offset, and of each
event offset, id, data, name, time and more; with - instead of + it carries no events. `stream_append.lua`
writes them, `stream_wakeups.py` parses them.
"""

from functools import lru_cache

from shared.store import keyspace

# Changes where every stream is.
PLACES = 16


def places(account_id: str) -> list[str]:
    """The topics of each place."""
    return [f"{{{account_id}/{digit}}}:streams" for digit in "0123456789abcdef"]


@lru_cache(maxsize=4096)
def names(account_id: str, topic: str) -> tuple[str, str, str]:
    """Stream, state, and the topics of its place: KEYS of scripts, in this order."""
    hashed = keyspace.hash_of(topic)
    tag = f"{{{account_id}/{hashed[0]}}}:stream"
    return f"{tag}:{hashed}", f"{tag}-state:{hashed}", f"{tag}s"


def events(account_id: str, event: str) -> list[str]:
    """The names by which an event is found, one at each place. `event` is its identity."""
    hashed = keyspace.hash_of(event)
    return [f"{place[:-1]}-event:{hashed}" for place in places(account_id)]


def live(account_id: str, topic: str) -> str:
    """The name to which live wakeups of the topic are published, in the slot of its stream."""
    hashed = keyspace.hash_of(topic)
    return f"{{{account_id}/{hashed[0]}}}:stream-live:{hashed}"


def readers(account_id: str, topic: str) -> str:
    hashed = keyspace.hash_of(topic)
    return f"{{{account_id}/{hashed[0]}}}:stream-readers:{hashed}"


def purged(account_id: str, topic: str) -> str:
    """What a purge has taken out of the stream, and drops lot by lot."""
    [stream, *_] = names(account_id, topic)
    return f"{stream}:purged"
