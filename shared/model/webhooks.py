"""What a native webhook may set for itself: how its requests look, and what follows when they fail.

A webhook of an API key has no policy: it keeps the contract of docs/protocols/callbacks.md. The defaults and
bounds are in docs/protocols/webhooks.md.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from shared.model.topics import SYSTEM

_DAY_S = 24 * 3600
_QUEUE_AGE_MS = 7 * _DAY_S * 1000
# A retry comes up to a fifth later than planned: thousands that failed together must not come back together.
_JITTER = 0.2


def most_queue_age_ms(installation_ms: int) -> int:
    """How long a native webhook's queue keeps a notification where others keep one for `installation_ms`.

    7 days, but never over seven times as long as others: so an operator can shorten it. As in
    lua/included/own_limits.lua.
    """
    return max(installation_ms, min(7 * installation_ms, _QUEUE_AGE_MS))


class Method(StrEnum):
    POST = "POST"
    PUT = "PUT"


class Format(StrEnum):
    """What a request's body holds: one CloudEvent, an array of them, or a NotificationMessage."""

    CLOUDEVENTS = "cloudevents"
    CLOUDEVENTS_BATCH = "cloudevents-batch"
    PELION = "pelion"


class DisabledFor(StrEnum):
    """Why a webhook is disabled."""

    GONE = "gone"
    """It answered 410."""
    FAILED = "failed-for-too-long"
    """All attempts have failed for `disable_after_s`."""


@dataclass(frozen=True, slots=True)
class Disabled:
    """Since when a webhook is disabled, and why."""

    since_ms: int
    reason: DisabledFor


class NoticeOf(StrEnum):
    """The notices of a webhook: its account gets an event with the topic `system.webhook.` and this word."""

    DISABLED = "disabled"
    EXHAUSTED = "exhausted"
    """Events were given up."""
    RECOVERED = "recovered"
    """After either of these an attempt was accepted."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice for the account of a webhook. `number` counts those of the channel.

    `kind` is a `NoticeOf`, or what a later release has written.
    """

    number: int
    at_ms: int
    kind: str
    facts: Mapping[str, Any]

    @property
    def topic(self) -> str:
        return f"{SYSTEM}.webhook.{self.kind}"


@dataclass(frozen=True, slots=True)
class WebhookPolicy:
    """How one native webhook is called. `backoff_s`: the last step repeats. `rate_per_s` counts requests.

    `secret_headers`: the names of the headers that are never shown.
    """

    method: Method = Method.POST
    format: Format = Format.CLOUDEVENTS
    timeout_s: int = 15
    backoff_s: tuple[int, ...] = (5, 30, 120, 300, 600)
    give_up_after_s: int = 3 * _DAY_S
    disable_after_s: int = 5 * _DAY_S
    max_in_flight: int = 1
    rate_per_s: int | None = None
    max_batch: int = 100
    max_body_bytes: int = 256 * 1024
    secret_headers: tuple[str, ...] = ()

    @property
    def most_in_request(self) -> int:
        """The most notifications of one request."""
        return 1 if self.format is Format.CLOUDEVENTS else self.max_batch

    def delay_ms(self, failed_attempts: int, *, chance: Callable[[], float] = random.random) -> int:
        """From the end of the last of so many failed attempts to the next one, with jitter."""
        step_s = self.backoff_s[min(max(failed_attempts, 1), len(self.backoff_s)) - 1]
        return round(step_s * 1000 * (1 + _JITTER * chance()))

    def changed(self, given: Mapping[str, Any]) -> "WebhookPolicy":
        """With other values for some fields; None brings a default back."""
        defaults = asdict(WebhookPolicy())
        return replace(
            self, **{name: defaults[name] if value is None else value for name, value in given.items()}
        )


DEFAULT_POLICY = WebhookPolicy()
