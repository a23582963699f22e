"""The names of streams, whose layout is in `keyspace.py`: sixteen places of each account, by topic."""

from shared.store import keyspace

# Changes where every stream is.
PLACES = 16


def places(account_id: str) -> list[str]:
    """The topics of each place."""
    return [f"{{{account_id}/{digit}}}:streams" for digit in "0123456789abcdef"]


def names(account_id: str, topic: str) -> list[str]:
    """Stream, state, and the topics of its place: KEYS of scripts, in this order."""
    hashed = keyspace.hash_of(topic)
    tag = f"{{{account_id}/{hashed[0]}}}:stream"
    return [f"{tag}:{hashed}", f"{tag}-state:{hashed}", f"{tag}s"]


def events(account_id: str, event: str) -> list[str]:
    """The names by which an event is found, one at each place. `event` is its identity."""
    hashed = keyspace.hash_of(event)
    return [f"{place[:-1]}-event:{hashed}" for place in places(account_id)]
