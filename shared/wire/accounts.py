"""Bodies of accounts and API keys under /v1 (docs/protocols/events.md, section 1)."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import asdict

from shared.model.api_keys import Account, ApiKey, Scope
from shared.model.errors import Invalid
from shared.wire.models import Closed, Id, Moment, Name, rule
from shared.wire.times import moment_or_none, moment_text

_Scopes = Annotated[list[Scope], Meta(min_length=1)]
_Secret = Annotated[str, Meta(pattern=rule(r"^ak_[0-9a-f]{80}\Z", "must be a secret"))]
_OldValidUntil = Annotated[
    str | None,
    Meta(
        description="Until when the old secret stays valid; 24 hours from now if left out.",
        extra_json_schema={
            "anyOf": [{"const": "now"}, {"type": "string", "format": "date-time"}, {"type": "null"}]
        },
    ),
]


class NewAccount(Closed):
    name: Name
    parent: Id | None = None
    master: Annotated[
        bool | None, Meta(description="Its sockets may ask for the events of all accounts.")
    ] = False


class AccountBody(Closed):
    id: Id
    name: Name
    parent: Id | None
    master: bool | UnsetType = UNSET


class AccountsBody(Closed):
    accounts: list[AccountBody]
    next_after: str | None


class NewApiKey(Closed):
    name: Name
    scopes: _Scopes
    expires_at: Moment | None = None


class ApiKeyBody(Closed, kw_only=True):
    id: Id
    account_id: Id
    name: Name
    scopes: _Scopes
    created_at: Moment
    expires_at: Moment | None
    old_secret_valid_until: Moment | None


class ApiKeyWithSecretBody(ApiKeyBody, kw_only=True):
    secret: _Secret


class ApiKeysBody(Closed):
    api_keys: list[ApiKeyBody]
    next_after: Id | None


class NewSecret(Closed):
    old_valid_until: _OldValidUntil = None


def account_body(account: Account) -> AccountBody:
    return AccountBody(account.id, account.name, account.parent, master=account.master or UNSET)


def checked_name(name: str) -> str:
    """The name, if it is printable. Raises Invalid."""
    if not name.isprintable():
        raise Invalid("must have printable characters only", field="name")
    return name


def api_key_body(key: ApiKey, *, now_ms: int) -> ApiKeyBody:
    """An API key without its secrets."""
    return ApiKeyBody(
        id=key.id,
        account_id=key.account_id,
        name=key.name,
        scopes=sorted(key.scopes),
        created_at=moment_text(key.created_at_ms),
        expires_at=moment_or_none(key.expires_at_ms),
        old_secret_valid_until=moment_or_none(key.old_secret_until_ms(now_ms=now_ms)),
    )


def api_key_with_secret(key: ApiKey, secret: str, *, now_ms: int) -> ApiKeyWithSecretBody:
    """The only response with the secret: at its creation."""
    return ApiKeyWithSecretBody(secret=secret, **asdict(api_key_body(key, now_ms=now_ms)))
