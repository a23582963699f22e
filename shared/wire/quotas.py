"""Bodies of quotas under /v1/accounts (docs/protocols/events.md, section 1)."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import asdict, fields

from shared.model.quotas import KeyQuotas, Quotas
from shared.wire.accounts import AccountBody
from shared.wire.models import Closed, Count, Name

_Rate = Annotated[int, Meta(ge=1, le=10**9)]
_Burst = Annotated[float, Meta(ge=0.5, le=60)]
_Most = Annotated[int, Meta(ge=0, le=10**9)]
_Bytes = Annotated[int, Meta(ge=0, le=1024**5)]


class QuotaChanges(Closed):
    """null returns to the installation's quota."""

    events_per_s: _Rate | UnsetType | None = UNSET
    bytes_per_s: _Rate | UnsetType | None = UNSET
    copies_per_s: _Rate | UnsetType | None = UNSET
    burst_s: _Burst | UnsetType | None = UNSET
    sockets: _Most | UnsetType | None = UNSET
    channels: _Most | UnsetType | None = UNSET
    bindings: _Most | UnsetType | None = UNSET
    stored_bytes: _Bytes | UnsetType | None = UNSET


class KeyQuotaChanges(Closed):
    events_per_s: _Rate | UnsetType | None = UNSET
    bytes_per_s: _Rate | UnsetType | None = UNSET


class AccountChanges(Closed):
    name: Name | None = None
    quotas: QuotaChanges | UnsetType | None = UNSET
    key_quotas: Annotated[
        KeyQuotaChanges | UnsetType | None, Meta(description="What each API key of it may use.")
    ] = UNSET


class QuotasBody(Closed):
    events_per_s: _Rate
    bytes_per_s: _Rate
    copies_per_s: _Rate
    burst_s: _Burst
    sockets: _Most
    channels: _Most
    bindings: _Most
    stored_bytes: _Bytes


class KeyQuotasBody(Closed):
    """null: as much as the account."""

    events_per_s: _Rate | None
    bytes_per_s: _Rate | None


class AccountWithQuotasBody(AccountBody, kw_only=True):
    quotas: QuotasBody
    key_quotas: KeyQuotasBody


class UsageBody(Closed):
    limit: Count
    used: Count


class RateUsageBody(Closed):
    limit: _Rate
    burst: Annotated[Count, Meta(description="The size of the bucket.")]
    used: Annotated[
        Count, Meta(description="What is taken from the bucket and not yet refilled; above `burst`, a debt.")
    ]


class AccountUsageBody(Closed):
    events_per_s: RateUsageBody
    bytes_per_s: RateUsageBody
    copies_per_s: RateUsageBody
    sockets: UsageBody
    channels: UsageBody
    bindings: UsageBody
    stored_bytes: UsageBody


def changes_in(posted: QuotaChanges | KeyQuotaChanges | UnsetType | None) -> dict[str, float | None]:
    """The fields that were given."""
    if posted is UNSET or posted is None:
        return {}
    return {name: value for name, value in asdict(posted).items() if value is not UNSET}


def quotas_body(quotas: Quotas) -> QuotasBody:
    return QuotasBody(**{field.name: getattr(quotas, field.name) for field in fields(QuotasBody)})


def key_quotas_body(quotas: KeyQuotas) -> KeyQuotasBody:
    return KeyQuotasBody(quotas.events_per_s, quotas.bytes_per_s)


def rate_usage(rate: float, *, burst_s: float, left: float) -> RateUsageBody:
    """The usage of a rate whose bucket has `left` tokens."""
    burst = round(rate * burst_s)
    return RateUsageBody(round(rate), burst, max(0, round(burst - left)))
