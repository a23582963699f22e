"""Types of devices, which an account learns from registrations.

A binding that names a type may come at any later time, so every type is kept: for 30 to 60 days by Redis'
clock, and at most so many of an account. Devices that register again stay; the others go first.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from shared.model.idempotency import Deadline
from shared.redis.pipeline import Argument, RedisCommands
from shared.store import keyspace
from shared.store.idempotency import LATE

MOST_DEVICES = 100_000
_TTL_MS = 60 * 24 * 3600 * 1000
_DEVICES_A_CALL = 250
# A pattern has at most 64 characters: a longer type matches the same patterns as its beginning.
_TYPE_CHARACTERS = 65


class DeviceTypes:
    """Keeps at most `most_devices` of an account. `on_grown` gets the account, and by how many bytes."""

    def __init__(
        self,
        redis: RedisCommands,
        *,
        most_devices: int = MOST_DEVICES,
        on_grown: Callable[[str, int], None] = lambda *_: None,
    ) -> None:
        self._redis = redis
        self._on_grown = on_grown
        # Two hashes share the bound.
        self._most_in_one = max(1, most_devices // 2)

    def learn(
        self, account_id: str, types: Mapping[str, str | None], *, deadline: Deadline | None = None
    ) -> list[asyncio.Future[Any]]:
        """Stores the type of each device; None deletes it. Each reply is by how many bytes it has grown.

        A reply is LATE when the deadline has passed: nothing is stored then.
        """
        parts: list[Argument] = []
        for device, kind in types.items():
            parts += (_field(device), (kind or "")[:_TYPE_CHARACTERS])
        names = [keyspace.account(account_id), *keyspace.device_types(account_id)]
        until_ms = "" if deadline is None else deadline.ms
        replies = []
        for start in range(0, len(parts), 2 * _DEVICES_A_CALL):
            some = parts[start : start + 2 * _DEVICES_A_CALL]
            reply = self._redis.script(
                "device_types_learn", names, self._most_in_one, _TTL_MS, until_ms, *some
            )
            reply.add_done_callback(partial(self._on_reply, account_id))
            replies.append(reply)
        return replies

    def _on_reply(self, account_id: str, reply: asyncio.Future[Any]) -> None:
        if reply.cancelled() or reply.exception() is not None:
            return
        grown = reply.result()
        if grown and grown != LATE:
            self._on_grown(account_id, grown)

    async def find(self, account_id: str, devices: Sequence[str]) -> dict[str, str]:
        """The known types of these devices."""
        found: dict[str, str] = {}
        for start in range(0, len(devices), _DEVICES_A_CALL):
            page = devices[start : start + _DEVICES_A_CALL]
            fields = [*map(_field, page)]
            young, old = await asyncio.gather(
                *(self._redis.command("HMGET", name, *fields) for name in keyspace.device_types(account_id))
            )
            for device, kind, older in zip(page, young, old, strict=True):
                if (known := kind or older) is not None:
                    found[device] = known.decode()
        return found


def _field(device: str) -> bytes:
    """Hashed: the publisher chooses the name's length."""
    return hashlib.sha256(device.encode()).digest()[:16]
