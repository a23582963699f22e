"""One request of a webhook that has several at once: sends one entry, then acks it or plans its retry."""

import time
from collections.abc import Awaitable, Callable

from services.composition import Stores
from services.webhook_dispatcher.known_webhooks import KnownWebhook
from services.webhook_dispatcher.native_failures import (
    WITH_NOTICE,
    Failed,
    log_after,
    notice_of,
    wait_ms_after,
)
from services.webhook_dispatcher.notices import NoticePublisher
from services.webhook_dispatcher.outcomes import Made, Outcome
from services.webhook_dispatcher.retry_pace import RetryPace
from shared import telemetry
from shared.clock import now_ms
from shared.model.batch_limits import failed_attempts_after
from shared.model.channels import Lease
from shared.model.webhook_answers import Verdict
from shared.outbound.names import Resolved
from shared.runtime.settings import Settings
from shared.store.batches import AfterFailure, NoBatch, Paced, TakenBatch
from shared.store.parallel_batches import EntryFailure, Waiting

Attempting = Callable[[Lease, TakenBatch, KnownWebhook, Resolved], Awaitable[Made | None]]


class EntryDeliveries:
    """Takes and delivers entries, for the owner of a channel's lease."""

    def __init__(
        self,
        stores: Stores,
        settings: Settings,
        attempt: Attempting,
        *,
        pace: RetryPace,
        notices: NoticePublisher,
    ) -> None:
        self._stores = stores
        self._settings = settings
        self._attempt = attempt
        self._pace = pace
        self._notices = notices

    async def take(
        self, lease: Lease, *, count: int, retries: int, is_fresh: bool
    ) -> list[TakenBatch] | NoBatch | Paced | Waiting:
        """As `ParallelBatches.take`."""
        return await self._stores.parallel_batches.take(
            lease,
            count=count,
            retries=retries,
            size_bytes=self._settings.webhook_batch_bytes,
            is_fresh=is_fresh,
        )

    async def deliver(
        self, lease: Lease, batch: TakenBatch, webhook: KnownWebhook, resolved: Resolved
    ) -> Outcome:
        """ACCEPTED, or BACKOFF after a failure; MOVED when its result is unknown, RELEASED without the lease.

        Raises StoreUnavailable.
        """
        made = await self._attempt(lease, batch, webhook, resolved)
        if made is None:
            return Outcome.MOVED
        if made.failed is not None:
            return await self._fail(lease, batch, made.failed, account=webhook.account)
        acked_ns, entry_id = time.time_ns(), made.message.last_entry_id
        count = await self._stores.parallel_batches.ack(
            lease, batch, delivery=made.delivery, account=webhook.account
        )
        telemetry.sent.add(1, {"dialect": "webhook"})
        made.tracer.record_acked(entry_id, acked_ns=acked_ns)
        if count is None:
            return Outcome.RELEASED
        telemetry.record_acked(entry_id, count)
        if batch.is_in_trouble:
            await self._notices.publish(lease.channel)
        return Outcome.ACCEPTED

    async def _fail(self, lease: Lease, batch: TakenBatch, failed: Failed, *, account: str) -> Outcome:
        policy, lesson, answer = batch.policy, failed.lesson, failed.answer
        assert policy is not None, "a native webhook has a policy"
        failed_attempts, now = failed_attempts_after(batch.failed_attempts, batch.limits, lesson), now_ms()
        wait_ms = wait_ms_after(policy, answer, failed_attempts)
        next_ms = self._pace.plan(account, now_ms=now, earliest_ms=now + wait_ms)
        in_a_row = batch.failed_in_a_row + 1
        after = await self._stores.parallel_batches.fail(
            lease,
            batch,
            delivery=failed.delivery,
            backoff_ms=next_ms - now,
            failure=EntryFailure(
                is_gone=answer.verdict is Verdict.GONE,
                asked_ms=None if answer.retry_after_ms is None else wait_ms,
                # All that are under way fail before the pause grows.
                hold_ms=policy.delay_ms(in_a_row // policy.max_in_flight),
                notice=notice_of(batch, failed),
            ),
            lesson=lesson,
            account=account,
        )
        log_after(lease, batch, lesson, after)
        if after.result is AfterFailure.NOT_OWNER:
            return Outcome.RELEASED
        if after.result in WITH_NOTICE:
            await self._notices.publish(lease.channel)
        return Outcome.BACKOFF
