"""A delivery is one attempt to hand a batch to a webhook."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt and its outcome. `status` is the receiver's; without a response it is None and `error` says
    why. `next_attempt_ms` is when the batch is retried, if it is."""

    at_ms: int
    webhook_id: str
    count: int
    status: int | None
    error: str
    took_ms: int
    next_attempt_ms: int | None = None
