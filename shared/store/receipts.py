"""Receipts: which channels an event was for, and what became of it in each.

What an account is told of begins here. The rest is written in each channel's slot, by the same scripts that
queue, ack and drop (`lua/included/receipts.lua`), so a receipt and what it tells of cannot disagree.
"""

import asyncio
from collections.abc import Sequence

import orjson

from shared.model.events import Event
from shared.model.receipts import ChannelReceipt, Receipt
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace

# Of an event for more channels only so many are told, however long the list: it is one answer.
MOST_CHANNELS = 1000
_TTL_MS = 60 * 60 * 1000
_FIELDS = ("queued", "sent", "acked", "dropped", "why")


class Receipts:
    """Keeps receipts for an hour."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis

    async def open(self, account_id: str, event: Event, *, channels: Sequence[str], now_ms: int) -> None:
        """Remembers which channels the event is to be queued for; an older receipt of its id is replaced."""
        told = {
            "topic": event.topic,
            "published_at_ms": now_ms,
            "channels": channels[:MOST_CHANNELS],
            "channels_total": len(channels),
        }
        name = keyspace.receipt(account_id, event.id)
        await self._redis.command("SET", name, orjson.dumps(told), "PX", _TTL_MS)

    async def find(self, account_id: str, event_id: str) -> Receipt | None:
        """What became of the event; None when no receipt was asked for, or it is over an hour old."""
        kept = await self._redis.command("GET", keyspace.receipt(account_id, event_id))
        if kept is None:
            return None
        told = orjson.loads(kept)
        found = await asyncio.gather(*(self._of_channel(channel, event_id) for channel in told["channels"]))
        return Receipt(
            event_id=event_id,
            topic=told["topic"],
            published_ms=told["published_at_ms"],
            channels=[receipt for receipt in found if receipt is not None],
            channels_total=told["channels_total"],
        )

    async def _of_channel(self, channel: str, event_id: str) -> ChannelReceipt | None:
        *times, why = await self._redis.command("HMGET", keyspace.receipt(channel, event_id), *_FIELDS)
        queued_ms, sent_ms, acked_ms, dropped_ms = (None if ms is None else int(ms) for ms in times)
        if queued_ms is None:
            return None
        return ChannelReceipt(
            channel=channel,
            queued_ms=queued_ms,
            sent_ms=sent_ms,
            acked_ms=acked_ms,
            dropped_ms=dropped_ms,
            reason=(why or b"").decode(),
        )
