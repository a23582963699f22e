"""What follows a failed attempt of a native webhook: a retry by its own backoff, or an end of trying.

What has failed for too long is given up, and a webhook whose receiver is gone is disabled. Its account
gets a notice of both (notices.py).
"""

import logging
from dataclasses import dataclass

import orjson

from services.composition import Stores
from services.webhook_dispatcher.notices import NoticePublisher
from services.webhook_dispatcher.retry_pace import RetryPace
from shared import telemetry
from shared.clock import now_ms
from shared.jobs import RetryJobs
from shared.model.batch_limits import Lesson, failed_attempts_after
from shared.model.channels import Lease
from shared.model.deliveries import Delivery
from shared.model.topics import is_system
from shared.model.webhook_answers import Answer, Verdict
from shared.model.webhooks import WebhookPolicy
from shared.store.batches import AfterAttempt, AfterFailure, Failure, TakenBatch
from shared.wire.messages import Message

logger = logging.getLogger(__name__)

# A notice names so many events that were given up, and counts the others.
_NAMED = 20
WITH_NOTICE = (AfterFailure.DROPPED, AfterFailure.EXHAUSTED, AfterFailure.DISABLED)
"""After these the dispatcher publishes the notices of the channel."""


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt that failed: what was sent, what came back, and what that teaches."""

    delivery: Delivery
    lesson: Lesson
    answer: Answer
    message: Message


class NativeFailures:
    """Records failed attempts of native webhooks, for the owner of a channel's lease."""

    def __init__(self, stores: Stores, retries: RetryJobs, pace: RetryPace, notices: NoticePublisher) -> None:
        self._stores = stores
        self._retries = retries
        self._pace = pace
        self._notices = notices

    async def fail(self, lease: Lease, batch: TakenBatch, failed: Failed, *, account: str) -> bool:
        """Whether the webhook has changed meanwhile: then the next attempt is due at once.

        Releases the lease. Raises StoreUnavailable.
        """
        policy, lesson = batch.policy, failed.lesson
        assert policy is not None, "a native webhook has a policy"
        failed_attempts, now = failed_attempts_after(batch.failed_attempts, batch.limits, lesson), now_ms()
        wait_ms = wait_ms_after(policy, failed.answer, failed_attempts)
        next_attempt_ms = self._pace.plan(account, now_ms=now, earliest_ms=now + wait_ms)
        after = await self._stores.batches.fail_native(
            lease,
            taken=batch,
            delivery=failed.delivery,
            backoff_ms=next_attempt_ms - now,
            failure=Failure(
                is_gone=failed.answer.verdict is Verdict.GONE,
                backoff_after_ms=wait_ms_after(policy, failed.answer, 1),
                first=batch.notifications[0].entry_id,
                last=failed.message.last_entry_id,
                notice=notice_of(batch, failed),
            ),
            lesson=lesson,
            account=account,
        )
        log_after(lease, batch, lesson, after)
        if after.next_ms:
            await self._retries.schedule(lease.channel, failed_attempts=failed_attempts, at_ms=after.next_ms)
        if after.result in WITH_NOTICE:
            await self._notices.publish(lease.channel)
        return after.result is AfterFailure.CONFIG_CHANGED


def wait_ms_after(policy: WebhookPolicy, answer: Answer, failed_attempts: int) -> int:
    """A receiver that says when to come back is believed, but for the first step of the backoff: a 0 must not
    make a loop."""
    if answer.retry_after_ms is None:
        return policy.delay_ms(failed_attempts)
    return max(answer.retry_after_ms, policy.delay_ms(1))


def notice_of(batch: TakenBatch, failed: Failed) -> str:
    """The account's notice if this is given up. None of our own events: a webhook that cannot take a notice
    would get one of it for ever."""
    sent = batch.notifications[: failed.message.count]
    events = [each.event_id for each in sent if not is_system(each.topic)]
    if not events:
        return ""
    reason = "too-large" if failed.lesson.drops else "failed-for-too-long"
    return orjson.dumps({"reason": reason, "count": len(events), "event_ids": events[:_NAMED]}).decode()


def log_after(lease: Lease, batch: TakenBatch, lesson: Lesson, after: AfterAttempt) -> None:
    channel = {"channel": lease.channel}
    match after.result:
        case AfterFailure.EXHAUSTED:
            telemetry.dropped.add(after.lost, {"reason": "exhausted"})
            logger.warning("notifications.exhausted", extra={"facts": {**channel, "count": after.lost}})
        case AfterFailure.DISABLED:
            telemetry.webhooks_disabled.add(1, {"reason": after.reason})
            logger.warning("webhook.disabled", extra={"facts": {**channel, "reason": after.reason}})
        case AfterFailure.RETRY | AfterFailure.DROPPED:
            log_lesson(lease, batch, lesson, is_dropped=after.result is AfterFailure.DROPPED)


def log_lesson(lease: Lease, batch: TakenBatch, lesson: Lesson, *, is_dropped: bool) -> None:
    """What a failed attempt has changed; counts a notification that was dropped."""
    if is_dropped:
        telemetry.dropped.add(1, {"reason": "too-long-for-webhook"})
        dropped = {"channel": lease.channel, "event": batch.notifications[0].event_id}
        logger.warning("notification.dropped", extra={"facts": dropped})
    if lesson.is_smaller:
        limits = {"body_limit_bytes": lesson.body_limit_bytes, "batch_limit": lesson.batch_limit}
        logger.info("batch.made-smaller", extra={"facts": {"channel": lease.channel, **limits}})
