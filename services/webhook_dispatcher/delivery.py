"""One attempt: sends the front of a webhook's queue in one request, then acks it or schedules a retry."""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Any

from services.composition import Stores
from services.webhook_dispatcher.entry_delivery import EntryDeliveries
from services.webhook_dispatcher.known_webhooks import KnownWebhook, RequestUnderWay
from services.webhook_dispatcher.native_failures import Failed, NativeFailures, log_lesson
from services.webhook_dispatcher.notices import NoticePublisher
from services.webhook_dispatcher.outcomes import Made, Outcome
from services.webhook_dispatcher.retry_pace import RetryPace
from services.webhook_dispatcher.signing import sign
from shared import telemetry
from shared.clock import now_ms
from shared.delivery.tracing import DeliveryTracer
from shared.jobs import RetryJobs
from shared.model.backoff import backoff_s
from shared.model.batch_limits import Lesson, failed_attempts_after, lesson_of
from shared.model.channels import Kind, Lease
from shared.model.client_certificates import ClientCertificate
from shared.model.deliveries import Delivery, events_kept, exchange
from shared.model.events import Notification
from shared.model.webhook_answers import SUCCESS, Answer, Verdict, judged
from shared.model.webhooks import Method, WebhookPolicy
from shared.outbound.client import Attempt, Outbound
from shared.outbound.names import Resolved
from shared.runtime.settings import Settings
from shared.store.batches import AfterFailure, NoBatch, Paced, TakenBatch
from shared.store.webhooks import Setup
from shared.wire.messages import Message
from shared.wire.pelion.serialization import stored
from shared.wire.webhook_bodies import BodyLimits, body_of, with_content_type

logger = logging.getLogger(__name__)


_WITHOUT_BATCH = {
    NoBatch.EMPTY: Outcome.NOTHING_TO_SEND,
    NoBatch.NOT_DUE: Outcome.BACKOFF,
    NoBatch.PARALLEL: Outcome.PARALLEL,
}


@dataclass(slots=True)
class _Request:
    """One request: its body, those of its notifications that have a receipt or a trace, and what was sent."""

    webhook_id: str
    message: Message
    with_trail: list[Notification]
    headers: dict[str, str] = field(repr=False)
    """Those of every request to the webhook."""
    varying: dict[str, str] = field(default_factory=dict, repr=False)
    """Those of this one."""

    @property
    def trace_headers(self) -> dict[str, str]:
        """Continues the publisher's trace, if all notifications of the request belong to one."""
        if not self.with_trail:
            return {}
        traces = {n.trail.traceparent for n in self.with_trail if n.trail}
        if len(self.with_trail) < self.message.count or len(traces) != 1 or "" in traces:
            return {}
        return {"traceparent": traces.pop()}


class Deliveries:
    """Makes attempts, for the owner of a channel's lease."""

    def __init__(
        self,
        stores: Stores,
        outbound: Outbound,
        retries: RetryJobs,
        settings: Settings,
        *,
        notices: NoticePublisher,
    ) -> None:
        self._stores = stores
        self._outbound = outbound
        # Kept: on Python 3.11 it is a system call to ask for it.
        self._loop = asyncio.get_running_loop()
        self.retries = retries
        self._settings = settings
        self._pace = RetryPace()
        self._notices = notices
        self._native = NativeFailures(stores, retries, self._pace, notices)
        self.entries = EntryDeliveries(stores, settings, self.attempt, pace=self._pace, notices=notices)

    async def deliver(self, lease: Lease, webhook: KnownWebhook, resolved: Resolved) -> Outcome:
        """Sends the next batch, if one may be sent now, to the addresses of `webhook.url`.

        Records in `webhook` how it went. Raises NoLongerOwner, StoreUnavailable.
        """
        batch = await self._stores.batches.take(
            lease, count=self._settings.batch_limit, size_bytes=self._settings.webhook_batch_bytes
        )
        if isinstance(batch, NoBatch):
            return _WITHOUT_BATCH[batch]
        if isinstance(batch, Paced):
            webhook.paced_ms = batch.wait_ms
            return Outcome.PACED
        if batch.callback.url != webhook.url:
            webhook.url = batch.callback.url
            return Outcome.MOVED
        made = await self.attempt(lease, batch, webhook, resolved)
        if made is None:
            return Outcome.MOVED
        if made.failed is not None:
            if batch.policy is None:
                failed = made.failed
                return await self._fail(lease, batch, failed.delivery, failed.lesson, account=webhook.account)
            is_changed = await self._native.fail(lease, batch, made.failed, account=webhook.account)
            return Outcome.CHANGED if is_changed else Outcome.RELEASED
        acked_ns = time.time_ns()
        outcome = await self._ack(lease, batch, made.message, made.delivery, account=webhook.account)
        made.tracer.record_acked(made.message.last_entry_id, acked_ns=acked_ns)
        return outcome

    async def attempt(
        self, lease: Lease, batch: TakenBatch, webhook: KnownWebhook, resolved: Resolved
    ) -> Made | None:
        """Makes one request, and records in `webhook` how it went.

        None when the webhook has changed meanwhile. Writes nothing of the batch. Raises StoreUnavailable.
        """
        request = self._request(lease, batch, account=webhook.account)
        tracer = DeliveryTracer(lease.channel)
        if request.with_trail:
            tracer.record_sent(request.with_trail, read_ns=time.time_ns())
        attempt = await self._send(lease, batch, request, webhook, resolved)
        if attempt is None:
            logger.info("delivery.outdated", extra={"facts": {"channel": lease.channel}})
            return None
        answer = _answer(batch, attempt)
        webhook.record(attempt, is_accepted=answer.is_accepted)
        delivery = self._record(lease, batch, request, attempt, answer, account=webhook.account)
        if answer.is_accepted:
            return Made(request.message, delivery, tracer, None)
        lesson = lesson_of(
            batch.limits,
            delivery,
            body_bytes=len(request.message.text),
            last_entry_id=request.message.last_entry_id,
            was_reached=attempt.was_reached,
        )
        failed = Failed(delivery, lesson, answer, request.message)
        return Made(request.message, delivery, tracer, failed)

    def _request(self, lease: Lease, batch: TakenBatch, *, account: str) -> _Request:
        most_bytes = self._settings.webhook_batch_bytes
        if batch.policy is not None:
            most_bytes = min(most_bytes, batch.policy.max_body_bytes)
        limits = BodyLimits(batch.limits.bytes_of(most_bytes), batch.limits.count_of(self._most(batch)))
        body = body_of(
            batch.notifications,
            batch.policy,
            account_id=account,
            limits=limits,
            wanted=stored(batch.serialization),
        )
        with_trail = [n for n in batch.notifications[: body.count] if n.trail]
        # With the first one: the rest of a batch that was made smaller ends where that batch did.
        first = batch.notifications[0].entry_id
        headers = with_content_type(batch.callback.headers, batch.policy)
        return _Request(f"msg_{lease.generation}_{first}_{body.last_entry_id}", body, with_trail, headers)

    def _most(self, batch: TakenBatch) -> int:
        """The most notifications of a request to a receiver that has no trouble with them."""
        if batch.policy is not None:
            return min(self._settings.batch_limit, batch.policy.most_in_request)
        return min(self._settings.batch_limit, stored(batch.serialization).max_chunk_size)

    def _timeout_s(self, batch: TakenBatch) -> float:
        return self._settings.callback_timeout_s if batch.policy is None else batch.policy.timeout_s

    async def _send(
        self, lease: Lease, batch: TakenBatch, request: _Request, webhook: KnownWebhook, resolved: Resolved
    ) -> Attempt | None:
        if receipts := [n for n in request.with_trail if n.trail and n.trail.receipt]:
            await self._stores.queues.mark_sent(lease, receipts)
        body = request.message.text
        signature = await sign(
            batch.signing_secrets,
            webhook_id=request.webhook_id,
            timestamp_s=now_ms() // 1000,
            body=body,
        )
        request.varying.update({**signature, **request.trace_headers})
        # What we say of a request counts: the owner may have set a traceparent.
        for name in request.headers.keys() & request.varying.keys():
            del request.headers[name]
        call = self._outbound.send(
            _method_of(batch),
            batch.callback.url,
            headers=request.headers,
            varying=request.varying,
            body=body,
            account=webhook.account,
            resolved=resolved,
            certificate=await self._certificate(lease, batch),
            **_by_policy(batch.policy),
        )
        under_way = RequestUnderWay(Setup(lease.generation, batch.callback), self._loop)
        webhook.requests.add(under_way)
        try:
            return await under_way.attempt(call)
        finally:
            webhook.requests.discard(under_way)

    async def _certificate(self, lease: Lease, batch: TakenBatch) -> ClientCertificate | None:
        """The channel's own; the webhooks of API keys have none."""
        if batch.policy is None:
            return None
        certificates = self._stores.client_certificates
        return await certificates.current(lease.channel, config_version=batch.config_version)

    def _record(
        self,
        lease: Lease,
        batch: TakenBatch,
        request: _Request,
        attempt: Attempt,
        answer: Answer,
        *,
        account: str,
    ) -> Delivery:
        """Logs the attempt. Returns what the channel keeps of it.

        That is also what was sent and answered, if it failed, while the account has room.
        """
        count, took_ms = request.message.count, attempt.took_ms
        level = logging.DEBUG if answer.is_accepted else logging.INFO
        if logger.isEnabledFor(level):
            facts = {"channel": lease.channel, "outcome": attempt.outcome, "batch": count, "took_ms": took_ms}
            logger.log(level, "delivery.attempted", extra={"facts": facts})
        found = None
        if not answer.is_accepted and self._stores.attempt_bytes.has_room(account):
            found = exchange(
                {**request.headers, **request.varying},
                request.message.text,
                attempt.response_body,
                answer_headers=attempt.response_headers,
                secret_headers=batch.policy.secret_headers if batch.policy else (),
            )
        sent = batch.notifications[:count]
        return Delivery(
            at_ms=now_ms() - took_ms,
            webhook_id=request.webhook_id,
            count=count,
            status=attempt.status,
            error=attempt.error,
            took_ms=took_ms,
            url=batch.callback.url,
            method=_method_of(batch),
            detail=answer.words or attempt.detail,
            again=next((each.again for each in sent if each.again), ""),
            events=events_kept(each.event_id for each in sent),
            exchange=found,
        )

    async def _ack(
        self, lease: Lease, batch: TakenBatch, body: Message, delivery: Delivery, *, account: str
    ) -> Outcome:
        batch_limit = batch.limits.after_success(
            body.count,
            took_ms=delivery.took_ms,
            timeout_ms=round(self._timeout_s(batch) * 1000),
            most=self._most(batch),
        )
        acked = await self._stores.batches.ack(
            lease, until=body.last_entry_id, delivery=delivery, batch_limit=batch_limit, account=account
        )
        telemetry.sent.add(body.count, {"dialect": "webhook"})
        if acked is None:
            return Outcome.RELEASED
        telemetry.record_acked(body.last_entry_id, acked.count)
        if batch.is_in_trouble:
            await self._notices.publish(lease.channel)
        return Outcome.EMPTIED if acked.is_empty else Outcome.ACCEPTED

    async def _fail(
        self, lease: Lease, batch: TakenBatch, delivery: Delivery, lesson: Lesson, *, account: str
    ) -> Outcome:
        failed_attempts, now = failed_attempts_after(batch.failed_attempts, batch.limits, lesson), now_ms()
        next_attempt_ms = self._pace.plan(
            account, now_ms=now, earliest_ms=now + round(backoff_s(failed_attempts) * 1000)
        )
        result, found = await self._stores.batches.fail(
            lease,
            taken=batch,
            delivery=delivery,
            backoff_ms=round(next_attempt_ms - now),
            expiry_ms=round(self._settings.webhook_expiry_s * 1000),
            lesson=lesson,
            account=account,
        )
        match result:
            case AfterFailure.RETRY | AfterFailure.DROPPED:
                log_lesson(lease, batch, lesson, is_dropped=result is AfterFailure.DROPPED)
                await self.retries.schedule(lease.channel, failed_attempts=failed_attempts, at_ms=found)
            case AfterFailure.CONFIG_CHANGED:
                return Outcome.CHANGED
            case AfterFailure.ENDED:
                await self._end(lease, found, account=account)
        return Outcome.RELEASED

    async def _end(self, lease: Lease, lost: int, *, account: str) -> None:
        """The webhook has failed for longer than its expiry: the script has deleted the channel."""
        logger.warning("webhook.ended", extra={"facts": {"channel": lease.channel, "lost": lost}})
        telemetry.expired.add(1)
        telemetry.dropped.add(lost, {"reason": "channel-expired"})
        await self._stores.channels.unindex(
            account, lease.channel, kind=Kind.WEBHOOK, generation=lease.generation
        )


def _by_policy(policy: WebhookPolicy | None) -> dict[str, Any]:
    """How a request of a native webhook differs from others."""
    return {} if policy is None else {"timeout_s": policy.timeout_s, "success": SUCCESS}


def _method_of(batch: TakenBatch) -> Method:
    return Method.PUT if batch.policy is None else batch.policy.method


def _answer(batch: TakenBatch, attempt: Attempt) -> Answer:
    if batch.policy is None:
        return Answer(Verdict.ACCEPTED if attempt.accepted else Verdict.FAILED)
    return judged(attempt.status, location=attempt.location, retry_after=attempt.retry_after, now_ms=now_ms())
