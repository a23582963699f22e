"""What can go wrong, as facts that make their own sentence.

GatewayError
├── StoreUnavailable   Redis is away, full or not ready: try again
├── Unauthenticated    the secret is missing, wrong or no longer valid
├── MissingScope       the API key lacks the scope that the request needs
├── KindConflict       the API key has a channel of another kind
├── KeyRevoked         the API key was revoked meanwhile
├── SecretsInUse       two secrets of the API key are valid: no third
├── KeyExpired         the API key's time is over
├── NoLongerOwner      somebody or something ended our lease
├── HeldByAnother      somebody live has the lease, and is to keep it
└── Invalid            what a caller sent breaks a rule; names the fields
    └── TooLarge       it breaks a bound on size or number
"""

from shared.model.api_keys import Scope
from shared.model.channels import CloseReason, Kind


class GatewayError(Exception):
    """The root of our own errors."""


class StoreUnavailable(GatewayError):
    """Redis cannot take or answer a command now. Whether a write was done is not known."""

    def __init__(self, *, why: str) -> None:
        super().__init__(f"the store is unavailable: {why}")


class Unauthenticated(GatewayError):
    """The caller's secret is missing, wrong or no longer valid."""

    def __init__(self) -> None:
        super().__init__("the API key is missing or not valid")


class MissingScope(GatewayError):
    """The caller's API key lacks a scope."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(f"the API key lacks the scope {scope}")
        self.scope = scope


class KindConflict(GatewayError):
    """The API key already has a channel of another kind."""

    def __init__(self, *, existing: Kind | str) -> None:
        super().__init__(f"a channel of kind {existing} exists; delete it first")
        self.existing = existing


class KeyRevoked(GatewayError):
    """The API key was revoked between its proof and what it asked for."""

    def __init__(self) -> None:
        super().__init__("the API key is revoked")


class SecretsInUse(GatewayError):
    """The API key has two valid secrets, the older until `until_ms`."""

    def __init__(self, *, until_ms: int) -> None:
        super().__init__("two secrets of the API key are valid")
        self.until_ms = until_ms


class KeyExpired(GatewayError):
    """The API key has expired: a new secret would prove nothing."""

    def __init__(self) -> None:
        super().__init__("the API key has expired")


class NoLongerOwner(GatewayError):
    """The lease is gone; `close_reason` says why."""

    def __init__(self, *, close_reason: CloseReason) -> None:
        super().__init__(f"the lease is gone: {close_reason}")
        self.close_reason = close_reason


class HeldByAnother(GatewayError):
    """The channel has an owner that lives."""

    def __init__(self, *, owner: str) -> None:
        super().__init__("the channel is held by another owner")
        self.owner = owner


class Invalid(GatewayError):
    """What a caller sent breaks a rule. `message` names the field too; `fields` are (name, message)."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        self.message = f"{field}: {message}" if field else message
        self.fields = [(field, message)] if field else []
        super().__init__(self.message)


class TooLarge(Invalid):
    """What a caller sent is over a bound."""
