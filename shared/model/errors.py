"""Our errors; each builds its message from facts."""

from shared.model.api_keys import Scope
from shared.model.channels import CloseReason, Kind
from shared.model.quotas import Quota


class GatewayError(Exception):
    """The root of our own errors."""


class StoreUnavailable(GatewayError):
    """Redis cannot execute a command now. A write may or may not have been done.

    `may_come`: Redis did not reply in time, so a write may even be done later.
    """

    def __init__(self, *, why: str) -> None:
        super().__init__(f"the store is unavailable: {why}")
        self.may_come = why == "TimeoutError"


class DeadlinePassed(GatewayError):
    """Redis refused the rest of a request: a repetition of it may have begun. Some may have been written."""

    def __init__(self) -> None:
        super().__init__("the deadline of the request has passed")


class KeyIsRunning(GatewayError):
    """The request with this idempotency key is still running, here or elsewhere."""

    def __init__(self) -> None:
        super().__init__("the request with this idempotency key is still running; retry to get its response")


class KeyOfAnother(GatewayError):
    """The idempotency key belongs to another request."""

    def __init__(self) -> None:
        super().__init__("this idempotency key belongs to another request; use a new one")


class WrongLayout(GatewayError):
    """Redis holds data of another release's layout. The text is one line."""

    def __init__(self, *, found: str, ours: int) -> None:
        super().__init__(
            f"Redis has data of layout {found!a}, and this release needs layout '{ours}': "
            f"run a release of layout {found!a}, or stop all services and empty the database "
            "(there is no migration)"
        )


class IsDisabled(GatewayError):
    """A webhook is disabled: it gets no request until it is resumed."""

    def __init__(self) -> None:
        super().__init__("the webhook is disabled: resume it")


class NoSuchAccount(GatewayError):
    """There is no such account, or it is being deleted."""

    def __init__(self) -> None:
        super().__init__("there is no such account")


class HasChildren(GatewayError):
    """The account is the parent of others, so it cannot be deleted."""

    def __init__(self) -> None:
        super().__init__("the account is the parent of others")


class HasApiKeys(GatewayError):
    """The account has API keys or channels, so it is deleted only with them."""

    def __init__(self) -> None:
        super().__init__("the account has API keys or channels")


class Unauthenticated(GatewayError):
    """The caller's secret is missing, wrong or no longer valid."""

    def __init__(self) -> None:
        super().__init__("the API key is missing or not valid")


class TokenRefused(Unauthenticated):
    """A token is malformed, not ours, over, or revoked. `why` quotes nothing of it.

    `is_genuine`: a key of the account has signed it, so its bearer has guessed nothing.
    """

    def __init__(self, why: str, *, is_genuine: bool = False) -> None:
        GatewayError.__init__(self, f"the token is refused: {why}")
        self.is_genuine = is_genuine


class NotGranted(GatewayError):
    """The token of the caller does not name what it asks for; `claim` is the one that would."""

    def __init__(self, claim: str, wanted: str) -> None:
        super().__init__(f"the token does not name {wanted} in its claim {claim}")
        self.claim = claim


class TopicsOnly(GatewayError):
    """An event that a token's bearer publishes has a field that would reach channels beside the topic's."""

    def __init__(self, field: str) -> None:
        self.field, self.rule = field, "is not for tokens, which publish by topic only"
        super().__init__(f"{field}: {self.rule}")


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
    """The API key was revoked after the request was authenticated."""

    def __init__(self) -> None:
        super().__init__("the API key is revoked")


class SecretsInUse(GatewayError):
    """The API key has two valid secrets, the older until `until_ms`."""

    def __init__(self, *, until_ms: int) -> None:
        super().__init__("two secrets of the API key are valid")
        self.until_ms = until_ms


class KeyExpired(GatewayError):
    """The API key has expired: a new secret would not be valid."""

    def __init__(self) -> None:
        super().__init__("the API key has expired")


class TooManySecrets(GatewayError):
    """As many signing secrets are current as may be; the first of them ends at `until_ms`."""

    def __init__(self, *, until_ms: int) -> None:
        super().__init__("too many signing secrets are current")
        self.until_ms = until_ms


class TooManyTokenKeys(GatewayError):
    """The account has as many token keys as it may have."""

    def __init__(self) -> None:
        super().__init__("the account has too many token keys")


class TooManyCutOffs(GatewayError):
    """As many subjects of the account are cut off as may be; the first cut-off ends at `until_ms`."""

    def __init__(self, *, until_ms: int) -> None:
        super().__init__("too many subjects of the account are cut off")
        self.until_ms = until_ms


class TooManyTickets(GatewayError):
    """The account has as many tickets as it may have; the next one is over at `until_ms`."""

    def __init__(self, *, until_ms: int) -> None:
        super().__init__("the account has too many tickets")
        self.until_ms = until_ms


class NewestSecret(GatewayError):
    """The newest signing secret ends only by a newer one."""

    def __init__(self) -> None:
        super().__init__("the newest signing secret cannot be ended")


class NoSuchChannel(GatewayError):
    """The channel has ended, or its creation has."""

    def __init__(self) -> None:
        super().__init__("there is no such channel")


class NameTaken(GatewayError):
    """Another channel of the account has the name."""

    def __init__(self, *, by: str) -> None:
        super().__init__("another channel of the account has this name")
        self.by = by


class NoLongerOwner(GatewayError):
    """The lease is gone; `close_reason` says why."""

    def __init__(self, *, close_reason: CloseReason) -> None:
        super().__init__(f"the lease is gone: {close_reason}")
        self.close_reason = close_reason


class HeldByAnother(GatewayError):
    """The channel has a live owner."""

    def __init__(self, *, owner: str) -> None:
        super().__init__("the channel is held by another owner")
        self.owner = owner


class Invalid(GatewayError):
    """A request breaks a rule. `message` names the field; `fields` are (name, message)."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        self.message = f"{field}: {message}" if field else message
        self.fields = [(field, message)] if field else []
        super().__init__(self.message)


class TooLarge(Invalid):
    """A request exceeds a limit."""


class QuotaExceeded(GatewayError):
    """The account, or the API key, has used up a quota. Nothing was done.

    `retry_after_s` says when the same request would pass; None for a quota that time does not refill.
    """

    def __init__(self, quota: Quota, *, retry_after_s: float | None = None) -> None:
        super().__init__(f"the quota {quota} is used up")
        self.quota = quota
        self.retry_after_s = retry_after_s
