"""Receipts: which channels an event was for, and what became of it in each.

This module writes the account's part. The scripts that append, ack and drop write the rest in each channel's
slot (`lua/included/receipts.lua`), so a receipt always agrees with its queue.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson

from shared.model.account_channels import id_shown
from shared.model.events import Event
from shared.model.idempotency import Deadline
from shared.model.receipts import ChannelReceipt, Receipt
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.event_identity import identity, identity_of
from shared.store.queues import parse_entry_id

# A receipt is one response: it lists at most so many channels.
MOST_CHANNELS = 1000
_TTL_MS = 60 * 60 * 1000
_FIELDS = ("queued", "sent", "acked", "dropped", "entry", "generation", "reason")


class Receipts:
    """Receipts of the last hour."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis

    def open(
        self,
        account_id: str,
        event: Event,
        *,
        channels: Sequence[str],
        now_ms: int,
        deadline: Deadline | None = None,
    ) -> asyncio.Future[Any]:
        """Records which channels the event is queued for, by the ids that their account sees.

        Replaces an older receipt of its id.

        The reply is LATE when the deadline has passed: nothing is recorded then.
        """
        record = {
            "topic": event.topic,
            "published_at_ms": now_ms,
            "channels": channels[:MOST_CHANNELS],
            "channels_total": len(channels),
        }
        name = keyspace.receipt(account_id, identity_of(event))
        if deadline is None:
            return self._redis.command("SET", name, orjson.dumps(record), "PX", _TTL_MS)
        return self._redis.script("receipt_open", [name], orjson.dumps(record), _TTL_MS, deadline.ms)

    async def find(self, account_id: str, event_id: str, *, source: str = "") -> Receipt | None:
        """What became of the event; None when it asked for no receipt, or is over an hour old.

        `source` is that of a CloudEvent.
        """
        event = identity(event_id, source)
        stored = await self._redis.command("GET", keyspace.receipt(account_id, event))
        if stored is None:
            return None
        record = orjson.loads(stored)
        receipts = await asyncio.gather(*(self._of_channel(each, event) for each in record["channels"]))
        return Receipt(
            event_id=event_id,
            topic=record["topic"],
            published_ms=record["published_at_ms"],
            channels=[receipt for receipt in receipts if receipt is not None],
            channels_total=record["channels_total"],
        )

    async def _of_channel(self, shown: str, event: str) -> ChannelReceipt | None:
        channel = id_shown(shown) or shown
        *times, entry, generation, reason = await self._redis.command(
            "HMGET", keyspace.receipt(channel, event), *_FIELDS
        )
        queued_ms, sent_ms, acked_ms, dropped_ms = (None if ms is None else int(ms) for ms in times)
        if queued_ms is None:
            return None
        if acked_ms is None and dropped_ms is None and generation is not None:
            # The end of a channel and a purge mark no receipts: they may be many.
            purged, ended = await self._redis.command(
                "HMGET", keyspace.ended(channel), b"purged:" + generation, generation
            )
            if purged is not None and _is_within(entry, purged.rpartition(b" ")[2]):
                ended = purged.rpartition(b" ")[0]
            if ended is not None:
                at_ms, _, reason = ended.partition(b" ")
                dropped_ms = int(at_ms)
        return ChannelReceipt(
            channel=shown,
            queued_ms=queued_ms,
            sent_ms=sent_ms,
            acked_ms=acked_ms,
            dropped_ms=dropped_ms,
            reason=(reason or b"").decode(),
        )


def _is_within(entry: bytes | None, last: bytes) -> bool:
    """Whether an entry of a queue is `last`, or before it."""
    return parse_entry_id((entry or b"0-0").decode()) <= parse_entry_id(last.decode())
