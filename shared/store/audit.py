"""Audit logs: one for each account, and one for the accounts themselves."""

from dataclasses import asdict

from shared.model.audit import Action, AuditEntry, Change
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace

# How many entries are kept, and for how long.
MOST_ENTRIES = 1000
_TTL_MS = 90 * 24 * 3600 * 1000
_FIRST, _LAST = "-", "+"


class AuditLog:
    """Adds and reads entries. `of` is an account's id, or `keyspace.ACCOUNTS`."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis

    async def add(self, change: Change, *, of: str) -> None:
        fields = [part for name, value in asdict(change).items() if value for part in (name, str(value))]
        await self._redis.script("audit_add", [keyspace.audit(of)], MOST_ENTRIES, _TTL_MS, *fields)

    async def page(
        self, *, of: str, before: str, count: int, now_ms: int
    ) -> tuple[list[AuditEntry], str | None]:
        """At most `count` entries before this one ('' for the end), newest first.

        Also returns the `before` of the next page, None on the last. Leaves out what is over 90 days old.
        """
        newest, oldest = f"({before}" if before else _LAST, f"{max(0, now_ms - _TTL_MS)}-0"
        found = await self._redis.command("XREVRANGE", keyspace.audit(of), newest, oldest, "COUNT", count + 1)
        entries = [_entry(entry_id.decode(), fields) for entry_id, fields in found[:count]]
        return entries, entries[-1].entry_id if len(found) > count else None


def _entry(entry_id: str, fields: list[bytes]) -> AuditEntry:
    stored = {name.decode(): value.decode() for name, value in zip(fields[::2], fields[1::2], strict=True)}
    change = Change(
        action=Action(stored["action"]),
        by=stored.get("by", ""),
        target=stored["target"],
        name=stored.get("name", ""),
        address=stored.get("address", ""),
        request_id=stored.get("request_id", ""),
    )
    return AuditEntry(entry_id, int(entry_id.partition("-")[0]), change)
