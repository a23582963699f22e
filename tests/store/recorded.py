"""The attempts that a channel keeps, as they are in Redis."""

from typing import Any

import orjson

from shared.store import keyspace


def recorded(direct: Any, channel: str) -> list[dict[str, Any]]:
    """Facts, next attempt, events and details of each, newest first."""
    return [_attempt(fields) for _, fields in direct.xrevrange(keyspace.attempts(channel))]


def _attempt(fields: dict[bytes, bytes]) -> dict[str, Any]:
    return {
        **orjson.loads(fields[b"facts"]),
        "outcome": fields[b"outcome"].decode(),
        "next_attempt_ms": int(fields[b"next"]) if fields[b"next"] else None,
        "events": fields[b"events"].decode().split(),
        "details": orjson.loads(fields[b"details"]) if fields[b"details"] else None,
    }
