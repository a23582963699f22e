"""The attempts that a channel keeps, as they are in Redis."""

from typing import Any

import orjson

from shared.store import keyspace


def recorded(direct: Any, channel: str) -> list[dict[str, Any]]:
    """Facts, next attempt, events and details of each, newest first."""
    return [_attempt(fields) for _, fields in direct.xrevrange(keyspace.attempts(channel))]


def _attempt(fields: dict[bytes, bytes]) -> dict[str, Any]:
    *_, outcome, next_ms = fields[b"head"].decode().split()
    return {
        **orjson.loads(fields[b"facts"]),
        "outcome": outcome,
        "next_attempt_ms": None if next_ms == "-" else int(next_ms),
        "events": fields[b"events"].decode().split(),
        "details": orjson.loads(fields[b"details"]) if fields[b"details"] else None,
    }
