"""Attempts of a webhook: the last 200, of seven days and 512 KiB at most (`lua/included/attempts.lua`).

The scripts that end an attempt write it, in the same step. An older release wrote a list: what it has left is
read until its TTL ends.
"""

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import orjson

from shared.model.deliveries import AttemptOutcome, Delivery, Excerpt, Exchange
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace
from shared.store.queues import parse_entry_id

MOST = 200
_IN_LIST = 100
_ID = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")


class Attempts:
    """Reads attempts. They outlive the webhook of an API key by days, and end with a native channel."""

    def __init__(self, redis: RedisCommands) -> None:
        self._redis = redis

    async def page(
        self,
        channel: str,
        *,
        count: int = MOST,
        after: str = "",
        outcome: AttemptOutcome | None = None,
        event_id: str = "",
    ) -> tuple[list[Delivery], str | None]:
        """Attempts without their exchanges, newest first, and the last one's id if there are more behind it.

        `after` is such an id, or "". Raises ValueError when it is none, StoreUnavailable.
        """
        before = _id_of(after) if after else None
        event = f"\n{event_id}\n" if event_id else ""
        of_stream, of_list = await asyncio.gather(
            self._redis.script(
                "attempts_read",
                [keyspace.attempts(channel)],
                f"({after}" if after else "+",
                count + 1,
                outcome or "",
                event,
            ),
            self._older(channel),
        )
        older = [
            each
            for each in of_list
            if not event
            and outcome in (None, each.outcome)
            and (before is None or parse_entry_id(each.id) < before)
        ]
        found = sorted((*(_delivery(*each) for each in of_stream), *older), key=_place, reverse=True)
        more = found[count - 1].id if len(found) > count else None
        return found[:count], more

    async def one(self, channel: str, attempt_id: str) -> Delivery | None:
        """One attempt with its exchange; None when there is none. Raises ValueError, StoreUnavailable."""
        _id_of(attempt_id)
        of_stream, of_list = await asyncio.gather(
            self._redis.command("XRANGE", keyspace.attempts(channel), attempt_id, attempt_id),
            self._older(channel),
        )
        if of_stream:
            return _whole(*of_stream[0])
        return next((each for each in of_list if each.id == attempt_id), None)

    async def _older(self, channel: str) -> list[Delivery]:
        """Those of an older release. They have no ids, so they get one from the time of their ends."""
        stored = await self._redis.command("LRANGE", keyspace.deliveries(channel), 0, _IN_LIST - 1)
        return [_older(orjson.loads(each)) for each in stored]


def fields_of(delivery: Delivery, outcome: AttemptOutcome) -> tuple[str, str, bytes, bytes]:
    """What a script adds: outcome, event ids, facts and details."""
    facts: dict[str, Any] = {
        "at_ms": delivery.at_ms,
        "webhook_id": delivery.webhook_id,
        "count": delivery.count,
        "took_ms": delivery.took_ms,
        "url": delivery.url,
        "method": delivery.method,
    }
    # One by one: a loop over all names takes four times as long, and each attempt pays for it.
    if delivery.status is not None:
        facts["status"] = delivery.status
    if delivery.error:
        facts["error"] = delivery.error
    if delivery.detail:
        facts["detail"] = delivery.detail
    if delivery.again:
        facts["again"] = delivery.again
    events = "".join(f"\n{each}" for each in delivery.events) + "\n" if delivery.events else ""
    details = orjson.dumps(delivery.exchange) if delivery.exchange is not None else b""
    return outcome.value, events, orjson.dumps(facts), details


def _older(facts: dict[str, Any]) -> Delivery:
    is_success = facts["status"] in (200, 204)
    outcome = AttemptOutcome.SUCCESS if is_success else AttemptOutcome.FAILURE
    return Delivery(**facts, id=f"{facts['at_ms'] + facts['took_ms']}-0", outcome=outcome)


def _whole(id_: bytes, pairs: Sequence[bytes]) -> Delivery:
    values = dict(zip(pairs[::2], pairs[1::2], strict=True))
    shown = (values[name] for name in (b"head", b"events", b"facts"))
    return _delivery(id_, *shown, details=values[b"details"])


def _delivery(id_: bytes, head: bytes, events: bytes, facts: bytes, *, details: bytes = b"") -> Delivery:
    known: dict[str, Any] = {"status": None, "error": "", **orjson.loads(facts)}
    *_, outcome, next_ms = head.decode().split()
    return Delivery(
        **known,
        id=id_.decode(),
        outcome=AttemptOutcome(outcome),
        next_attempt_ms=None if next_ms == "-" else int(next_ms),
        events=tuple(events.decode().strip("\n").split("\n")) if events else (),
        exchange=_exchange(orjson.loads(details)) if details else None,
    )


def _exchange(stored: dict[str, Any]) -> Exchange:
    body, answer = Excerpt(**stored.pop("body")), Excerpt(**stored.pop("answer"))
    return Exchange(**stored, body=body, answer=answer)


def _id_of(text: str) -> tuple[int, int]:
    """Raises ValueError."""
    if not _ID.fullmatch(text):
        raise ValueError("not the id of an attempt")
    return parse_entry_id(text)


def _place(delivery: Delivery) -> tuple[int, int]:
    return parse_entry_id(delivery.id)
