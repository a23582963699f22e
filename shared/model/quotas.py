"""Quotas: what one account may use of the installation, and one API key of its account.

A rate is a token bucket. It fills with the rate and holds `burst_s` seconds of it. A request passes while the
bucket holds what it needs, or is full; what goes beyond is a debt, paid before the next one passes. So no
request is too large for ever, and no rate is exceeded for longer than a burst.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import TypeAlias

Overrides: TypeAlias = Mapping[str, float]
"""Quotas of one account that differ from the installation's, by their names."""


class Quota(StrEnum):
    """The name of a quota, in requests, responses, metrics and logs."""

    EVENTS_PER_S = "events_per_s"
    BYTES_PER_S = "bytes_per_s"
    COPIES_PER_S = "copies_per_s"
    KEY_EVENTS_PER_S = "key_events_per_s"
    KEY_BYTES_PER_S = "key_bytes_per_s"
    SOCKETS = "sockets"
    CHANNELS = "channels"
    BINDINGS = "bindings"
    STORED_BYTES = "stored_bytes"
    IDEMPOTENCY_KEYS = "idempotency_keys"


@dataclass(frozen=True, slots=True)
class Quotas:
    """What one account may use.

    `events_per_s` and `bytes_per_s` count what is published (the bytes of the requests' bodies),
    `copies_per_s` the notifications that are made of it. `burst_s` is the size of every bucket. `sockets`
    counts open sockets and held polls; `channels` API keys, each of which has one channel at most; `bindings`
    presubscriptions, subscriptions, topics and bindings of sessions; `stored_bytes` everything that Redis
    keeps for the account.
    """

    events_per_s: int = 200_000
    bytes_per_s: int = 64 * 1024 * 1024
    copies_per_s: int = 200_000
    burst_s: float = 2.0
    sockets: int = 100_000
    channels: int = 100_000
    bindings: int = 1_000_000
    stored_bytes: int = 4 * 1024 * 1024 * 1024

    def merged(self, overrides: Overrides) -> "Quotas":
        """These quotas with those of one account. Raises TypeError for an unknown name."""
        return replace(self, **overrides)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class KeyQuotas:
    """What each API key of an account may use of it; None: as much as the account."""

    events_per_s: int | None = None
    bytes_per_s: int | None = None

    def merged(self, overrides: Overrides) -> "KeyQuotas":
        """As above."""
        return replace(self, **overrides)  # type: ignore[arg-type]


QUOTAS = tuple(field.name for field in fields(Quotas))
KEY_QUOTAS = tuple(field.name for field in fields(KeyQuotas))
