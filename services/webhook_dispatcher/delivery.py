"""One delivery: the front of a webhook's queue is sent in one request, and acked or put back."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from shared import telemetry
from shared.delivery.loop import DeliveryTracer
from shared.jobs import RetryJobs
from shared.model.backoff import backoff_s
from shared.model.channels import Kind, Lease
from shared.model.deliveries import Delivery
from shared.model.events import Notification
from shared.outbound import Attempt, Outbound
from shared.store.batches import AfterFailure, Batches, NoBatch, TakenBatch
from shared.store.channels import Channels
from shared.store.queues import Queues
from shared.wire.pelion.messages import Message, message
from shared.wire.pelion.serialization import stored
from shared.wire.signatures import signed_headers

logger = logging.getLogger(__name__)


def _trace_of(followed: list[Notification], *, of: int) -> dict[str, str]:
    """The header that continues a publisher's trace, where all of a request is of one."""
    traces = {n.trail.traceparent for n in followed if n.trail}
    if len(followed) < of or len(traces) != 1 or "" in traces:
        return {}
    return {"traceparent": traces.pop()}


class Outcome(Enum):
    """What came of looking at a channel."""

    NOTHING_TO_SEND = auto()
    NOT_YET = auto()
    """What is pending is somebody's later try."""
    TAKEN = auto()
    GIVEN_BACK = auto()
    """The lease is not ours any more, and the batch is somebody's later try."""
    GIVEN_BACK_FOR_NOW = auto()
    """The lease is not ours any more, but the channel is to be looked at again at once."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one request may hold, and for how long a webhook may fail."""

    count: int
    size_bytes: int
    expiry_ms: int


class Deliveries:
    """Makes deliveries, for whoever holds a channel's lease."""

    def __init__(
        self,
        *,
        batches: Batches,
        channels: Channels,
        queues: Queues,
        outbound: Outbound,
        tries: RetryJobs,
        limits: BatchLimits,
        now_ms: Callable[[], int],
    ) -> None:
        self._batches = batches
        self._channels = channels
        self._queues = queues
        self._outbound = outbound
        self._tries = tries
        self._limits = limits
        self._now_ms = now_ms

    async def deliver(self, lease: Lease) -> Outcome:
        """Sends what comes next, if anything may be sent now. Raises NoLongerOwner, StoreUnavailable."""
        limits = self._limits
        taken = await self._batches.take(lease, count=limits.count, size_bytes=limits.size_bytes)
        if isinstance(taken, NoBatch):
            return Outcome.NOT_YET if taken is NoBatch.NOT_DUE else Outcome.NOTHING_TO_SEND
        wanted = stored(taken.serialization)
        most = min(limits.count, wanted.chunk)
        body = message(taken.notifications, limit_bytes=limits.size_bytes, limit_count=most, wanted=wanted)
        assert body is not None, "what is taken holds one notification at least"
        webhook_id = f"msg_{lease.generation}_{body.last_entry_id}"
        sent = taken.notifications[: body.count]
        traced = DeliveryTracer(lease.channel)
        traced.record_sent(followed := [n for n in sent if n.trail], taken_ns=time.time_ns())
        attempt = await self._send(lease, taken, body, webhook_id=webhook_id, followed=followed)
        delivery = Delivery(
            at_ms=self._now_ms() - attempt.took_ms,
            webhook_id=webhook_id,
            count=body.count,
            status=attempt.status,
            error=attempt.error,
            took_ms=attempt.took_ms,
        )
        facts = {"channel": lease.channel, "outcome": attempt.outcome, "batch": body.count}
        level = logging.DEBUG if attempt.taken else logging.INFO
        logger.log(level, "delivery.attempted", extra={"facts": {**facts, "took_ms": attempt.took_ms}})
        if not attempt.taken:
            return await self._put_back(lease, taken, delivery)
        answered_ns = time.time_ns()
        outcome = await self._ack(lease, body, delivery)
        traced.record_acked(body.last_entry_id, acked_ns=answered_ns)
        return outcome

    async def _send(
        self, lease: Lease, taken: TakenBatch, body: Message, *, webhook_id: str, followed: list[Notification]
    ) -> Attempt:
        if receipts := [n for n in followed if n.trail and n.trail.receipt]:
            await self._queues.mark_sent(lease, receipts)
        signed = signed_headers(
            taken.signing_secret,
            webhook_id=webhook_id,
            timestamp_s=self._now_ms() // 1000,
            body=body.text,
        )
        headers = {**taken.callback.headers, **signed, **_trace_of(followed, of=body.count)}
        return await self._outbound.put(taken.callback.url, headers=headers, body=body.text)

    async def _ack(self, lease: Lease, body: Message, delivery: Delivery) -> Outcome:
        count = await self._batches.ack(lease, until=body.last_entry_id, delivery=delivery)
        telemetry.sent.add(body.count, {"dialect": "webhook"})
        if count is None:
            return Outcome.GIVEN_BACK
        telemetry.record_acked(body.last_entry_id, count)
        return Outcome.TAKEN

    async def _put_back(self, lease: Lease, taken: TakenBatch, delivery: Delivery) -> Outcome:
        failed = taken.failed_attempts + 1
        next_attempt_ms = self._now_ms() + backoff_s(failed) * 1000
        what_follows, lost = await self._batches.fail(
            lease,
            taken=taken,
            delivery=delivery,
            next_attempt_ms=next_attempt_ms,
            expiry_ms=self._limits.expiry_ms,
        )
        match what_follows:
            case AfterFailure.RETRY:
                await self._tries.later(lease.channel, number=failed, at_ms=next_attempt_ms)
            case AfterFailure.CONFIG_CHANGED:
                return Outcome.GIVEN_BACK_FOR_NOW
            case AfterFailure.ENDED:
                await self._ended(lease, lost)
        return Outcome.GIVEN_BACK

    async def _ended(self, lease: Lease, lost: int) -> None:
        """Every try has failed for too long: nobody is there to read what waits."""
        facts = {"channel": lease.channel, "lost": lost}
        logger.warning("webhook.ended", extra={"facts": facts})
        telemetry.expired.add(1)
        telemetry.dropped.add(lost, {"reason": "channel-expired"})
        whose = await self._channels.ref(lease.channel)
        if whose.account:
            await self._channels.unindex(
                whose.account, lease.channel, kind=Kind.WEBHOOK, generation=lease.generation
            )
