"""A delivery is one attempt to hand a batch to a webhook."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delivery:
    """What was tried, and what came of it. `status` is the receiver's, None when there was no answer and
    `error` says why; `next_attempt_ms` is when the batch is tried again, if it is."""

    at_ms: int
    webhook_id: str
    count: int
    status: int | None
    error: str
    took_ms: int
    next_attempt_ms: int | None = None
