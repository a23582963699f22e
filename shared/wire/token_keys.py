"""Bodies of /v1/token-keys, and which keys are taken (docs/protocols/tokens.md, section 1)."""

from collections.abc import Sequence
from typing import Annotated

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from msgspec import Meta

from shared.model.errors import Invalid
from shared.model.token_keys import Algorithm, Origin, TokenKey, new_key_secret
from shared.wire.models import Closed, Moment, rule
from shared.wire.times import moment_text

# A verification with a longer one would hold up everything else of a process.
_RSA_BITS = range(2048, 4097)
_SECRET = rule(r"^[!-~]{32,512}\Z", "must be 32 to 512 visible ASCII characters")
_KID = rule(r"^tk_[0-9a-f]{48}\Z", "must be the id of a token key")


class NewTokenKey(Closed):
    """HS256 has a secret, the others a public key."""

    algorithm: Algorithm
    secret: (
        Annotated[str, Meta(pattern=_SECRET, description="One of your own; without it one is made.")] | None
    ) = None
    public_key: Annotated[str, Meta(max_length=8192, description="In PEM.")] | None = None


class TokenKeyBody(Closed, kw_only=True):
    """`origin` says who signs with it. `public_key` is null for HS256."""

    kid: Annotated[str, Meta(pattern=_KID)]
    algorithm: Algorithm
    origin: Origin
    created_at: Moment
    public_key: str | None


class MadeTokenKey(TokenKeyBody, kw_only=True):
    """`secret` is null but for HS256."""

    secret: str | None


class TokenKeysBody(Closed):
    token_keys: list[TokenKeyBody]


def material_in(posted: NewTokenKey) -> str:
    """What verifies the tokens of the new key. Raises Invalid, which quotes none of it."""
    if posted.algorithm is Algorithm.HS256:
        if posted.public_key is not None:
            raise Invalid("is not for HS256, which has a secret", field="public_key")
        return posted.secret or new_key_secret()
    if posted.secret is not None:
        raise Invalid(f"is for HS256: {posted.algorithm} has a public key", field="secret")
    if posted.public_key is None:
        raise Invalid(f"is missing: {posted.algorithm} needs one, in PEM", field="public_key")
    key = _public_key(posted.public_key)
    if (wrong := _key_error(posted.algorithm, key)) is not None:
        raise Invalid(wrong, field="public_key")
    # Nothing else that the text held.
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def token_key_body(key: TokenKey) -> TokenKeyBody:
    return TokenKeyBody(
        kid=key.kid,
        algorithm=key.algorithm,
        origin=key.origin,
        created_at=moment_text(key.created_at_ms),
        public_key=None if key.algorithm is Algorithm.HS256 else key.material,
    )


def made_token_key(key: TokenKey) -> MadeTokenKey:
    """The only response with a secret."""
    shown = token_key_body(key)
    return MadeTokenKey(
        kid=shown.kid,
        algorithm=shown.algorithm,
        origin=shown.origin,
        created_at=shown.created_at,
        public_key=shown.public_key,
        secret=key.material if key.algorithm is Algorithm.HS256 else None,
    )


def token_keys_body(keys: Sequence[TokenKey]) -> TokenKeysBody:
    return TokenKeysBody(list(map(token_key_body, keys)))


def _public_key(text: str) -> PublicKeyTypes:
    """Raises Invalid."""
    if "PRIVATE KEY" in text:
        raise Invalid("is a private key: register the public one, and replace this pair", field="public_key")
    try:
        return load_pem_public_key(text.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        message = "must be a public key in PEM, which begins with -----BEGIN PUBLIC KEY-----"
        raise Invalid(message, field="public_key") from None


def _key_error(algorithm: Algorithm, key: PublicKeyTypes) -> str | None:
    """Why the key does not fit its algorithm; None if it does."""
    match algorithm, key:
        case Algorithm.RS256, rsa.RSAPublicKey(key_size=bits):
            least, most = _RSA_BITS[0], _RSA_BITS[-1]
            return None if bits in _RSA_BITS else f"has {bits} bits, {least} to {most} are taken"
        case Algorithm.ES256, ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            return None
        case Algorithm.EDDSA, ed25519.Ed25519PublicKey():
            return None
    wanted = {
        Algorithm.RS256: "an RSA key",
        Algorithm.ES256: "a key of the curve P-256",
        Algorithm.EDDSA: "an Ed25519 key",
    }
    return f"must be {wanted[algorithm]} for {algorithm}"
