"""Bodies of /v1/channels/{channel}/secrets (docs/protocols/webhooks.md)."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from shared.model.signing_secrets import LONGEST_OVERLAP_S, SecretKind, SigningSecret
from shared.wire.models import Closed, Moment, rule
from shared.wire.signatures import public_key
from shared.wire.times import moment_or_none, moment_text

_LONGEST = 200
_ID = rule(r"^sec_[0-9a-f]{32}\Z", "must be the id of a signing secret")


class NewSigningSecret(Closed):
    """Without a `secret` one is made. `overlap_s` says how long those before it sign too."""

    secret: Annotated[str, Meta(max_length=_LONGEST, description="An own one: whsec_… or whsk_….")] | None = (
        None
    )
    kind: SecretKind | None = None
    overlap_s: Annotated[int, Meta(ge=0, le=LONGEST_OVERLAP_S)] | None = None


class SigningSecretEntry(Closed):
    """A secret that signs now. `ends_at` is null for the newest, `public_key` for those of the kind hmac."""

    id: Annotated[str, Meta(pattern=_ID)]
    kind: SecretKind
    created_at: Moment
    ends_at: Moment | None
    public_key: Annotated[str, Meta(pattern="^whpk_")] | None


class MadeSigningSecret(SigningSecretEntry):
    """`secret` is null for the kind ed25519: no request returns its private key."""

    secret: Annotated[str, Meta(pattern="^whsec_")] | None


class SigningSecretsBody(Closed):
    secrets: list[SigningSecretEntry]


def made_body(made: SigningSecret) -> MadeSigningSecret:
    shown = made.text if made.kind is SecretKind.HMAC else None
    return MadeSigningSecret(*_fields(made), secret=shown)


def secrets_body(secrets: Sequence[SigningSecret]) -> SigningSecretsBody:
    return SigningSecretsBody([SigningSecretEntry(*_fields(each)) for each in secrets])


def _fields(secret: SigningSecret) -> tuple[str, SecretKind, str, str | None, str | None]:
    return (
        secret.id,
        secret.kind,
        moment_text(secret.created_at_ms),
        moment_or_none(secret.ends_at_ms),
        public_key(secret.text) if secret.kind is SecretKind.ED25519 else None,
    )
