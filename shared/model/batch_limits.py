"""The size of a webhook's batches: a receiver that refuses a batch for its size, or does not respond in time,
gets a smaller one (docs/protocols/callbacks.md).

Two limits. That of bytes comes from a 413: later bodies keep to it. That of the number comes from time-outs,
and grows again with what is accepted: a receiver that was slow for a while must not stay so.
"""

from dataclasses import dataclass

from shared.model.deliveries import Delivery

_TIMED_OUT = "timed-out"
_TOO_LARGE = 413
_REFUSALS = 3
# Twice as many must be in time too, with room for a slower moment.
_QUICK_PART = 3


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What the channel's record keeps. `batch_limit`: the most notifications of a request.

    `timed_out`: the batch whose last attempt timed out. `refused_entry`: the last notification that was
    refused although it was alone, with the number of refusals; they end with the next success.
    """

    body_limit_bytes: int | None = None
    batch_limit: int | None = None
    timed_out: str = ""
    refused_entry: str = ""
    refused_times: int = 0

    def bytes_of(self, limit_bytes: int) -> int:
        return min(limit_bytes, self.body_limit_bytes or limit_bytes)

    def count_of(self, limit: int) -> int:
        return min(limit, self.batch_limit or limit)

    def after_success(self, count: int, *, took_ms: int, timeout_ms: int, most: int) -> int | None:
        """The new limit of the number, 0 for none; None when it stays as it is.

        It doubles when a batch that it has limited was accepted quickly. `most`: what limits a batch anyway.
        """
        if self.batch_limit is None or count < self.batch_limit or took_ms * _QUICK_PART > timeout_ms:
            return None
        return 2 * self.batch_limit if 2 * self.batch_limit < most else 0


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a failed attempt teaches. `body_limit_bytes` and `batch_limit`: new ones, which are lower.

    `refused_entry`: the batch was this notification alone, and was refused for its size.
    """

    body_limit_bytes: int | None = None
    batch_limit: int | None = None
    timed_out: str = ""
    refused_entry: str = ""
    refused_times: int = 0

    @property
    def is_smaller(self) -> bool:
        """The next batch has a part of the notifications of this one."""
        return self.body_limit_bytes is not None or self.batch_limit is not None

    @property
    def drops(self) -> bool:
        """Nothing behind the notification would ever be sent."""
        return self.refused_times >= _REFUSALS


def lesson_of(
    limits: BatchLimits, delivery: Delivery, *, body_bytes: int, last_entry_id: str, was_reached: bool
) -> Lesson:
    """A failed attempt and the limits that it kept to. `was_reached`: a connection carried the request."""
    if delivery.status == _TOO_LARGE:
        if delivery.count > 1:
            return Lesson(body_limit_bytes=max(1, body_bytes // 2))
        times = limits.refused_times if limits.refused_entry == last_entry_id else 0
        return Lesson(refused_entry=last_entry_id, refused_times=times + 1)
    if delivery.error != _TIMED_OUT or not was_reached or delivery.count == 1:
        return Lesson()
    if limits.timed_out != delivery.webhook_id:
        return Lesson(timed_out=delivery.webhook_id)
    return Lesson(batch_limit=delivery.count // 2)


def failed_attempts_after(failed_before: int, limits: BatchLimits, lesson: Lesson) -> int:
    """The number by which the backoff grows.

    It begins anew for a smaller batch, and for the first notification that is refused alone since the last
    success: the receiver responds. It grows for those that follow: a receiver that refuses everything must
    not be asked, nor lose one, every few seconds.
    """
    is_first_refusal = bool(lesson.refused_entry) and not limits.refused_entry
    return 1 if lesson.is_smaller or is_first_refusal else failed_before + 1
