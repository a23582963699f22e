"""Signatures, verified by the reference library of Standard Webhooks."""

import base64
import hmac
import time

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook, WebhookVerificationError

from shared.model.errors import Invalid
from shared.model.signing_secrets import SecretKind, new_secret
from shared.wire.signatures import imported_secret, public_key, signed_headers

BODY = '{"notifications":[{"ep":"ä","path":"/3200/0/5501"}]}'.encode()


def test_the_reference_library_verifies_our_signature() -> None:
    secret = new_secret()
    headers = signed_headers([secret], webhook_id="b1", timestamp_s=int(time.time()), body=BODY)

    assert Webhook(secret).verify(BODY, headers)


def test_signature_covers_id_time_and_body() -> None:
    headers = signed_headers(["whsec_" + "A" * 44], webhook_id="b1", timestamp_s=1_700_000_000, body=b"{}")

    digest = hmac.digest(bytes(33), b"b1.1700000000.{}", "sha256")
    assert headers == {
        "webhook-id": "b1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


@pytest.mark.parametrize("changed", ["webhook-id", "webhook-timestamp", "body", "secret"])
def test_changed_requests_fail_verification(changed: str) -> None:
    secret, now_s = new_secret(), int(time.time())
    headers = signed_headers([secret], webhook_id="b1", timestamp_s=now_s, body=BODY)
    other = {"webhook-id": "b2", "webhook-timestamp": str(now_s - 1)}
    if changed in other:
        headers[changed] = other[changed]
    receiver = Webhook(new_secret() if changed == "secret" else secret)

    with pytest.raises(WebhookVerificationError):
        receiver.verify(BODY + b" " if changed == "body" else BODY, headers)


@pytest.mark.parametrize("secret", ["whsec_%%%", "whsec_abc"])
def test_invalid_secret_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ValueError, match=r"^not a signing secret$"):
        signed_headers([secret], webhook_id="b1", timestamp_s=1, body=b"{}")


# A private key, and the signature that the Go library of Standard Webhooks makes with it.
VECTOR = "VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk="
SIGNED = "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag=="


def test_ed25519_signs_as_the_reference_library_does() -> None:
    headers = signed_headers(
        [f"whsk_{VECTOR}"],
        webhook_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp_s=1614265330,
        body=b'{"test": 2432232314}',
    )

    assert headers["webhook-signature"] == SIGNED


def test_each_secret_has_a_signature_of_its_own() -> None:
    hmac_secrets, pair = [new_secret(), new_secret()], new_secret(SecretKind.ED25519)
    now_s = int(time.time())
    headers = signed_headers([*hmac_secrets, pair], webhook_id="b1", timestamp_s=now_s, body=BODY)

    signatures = headers["webhook-signature"].split(" ")
    assert [each.partition(",")[0] for each in signatures] == ["v1", "v1", "v1a"]
    for secret in hmac_secrets:
        assert Webhook(secret).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(BODY, headers)
    assert_verified(public_key(pair), signatures[2], b"b1.%d.%s" % (now_s, BODY))


def assert_verified(public: str, signature: str, signed: bytes) -> None:
    """By what a receiver knows: the public key alone."""
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix("whpk_"), validate=True))
    given = base64.b64decode(signature.removeprefix("v1a,"), validate=True)
    key.verify(given, signed)
    with pytest.raises(InvalidSignature):
        key.verify(given, signed + b" ")


def test_without_a_secret_there_is_no_signature() -> None:
    headers = signed_headers([], webhook_id="b1", timestamp_s=1, body=b"{}")

    assert headers == {"webhook-id": "b1", "webhook-timestamp": "1"}


def text_of(key: bytes, prefix: str = "whsec_") -> str:
    return prefix + base64.b64encode(key).decode()


SEED = base64.b64decode(VECTOR)
PUBLIC = base64.b64decode(public_key(f"whsk_{VECTOR}").removeprefix("whpk_"))
IMPORTED = {
    "24 bytes": (text_of(bytes(24)), None, text_of(bytes(24))),
    "64 bytes": (text_of(bytes(64)), SecretKind.HMAC, text_of(bytes(64))),
    "no padding": (text_of(bytes(32)).rstrip("="), None, text_of(bytes(32))),
    "a private key": (f"whsk_{VECTOR}", None, f"whsk_{VECTOR}"),
    "a pair": (text_of(SEED + PUBLIC, "whsk_"), SecretKind.ED25519, f"whsk_{VECTOR}"),
}


@pytest.mark.parametrize("name", IMPORTED)
def test_what_may_be_imported(name: str) -> None:
    given, kind, kept = IMPORTED[name]

    assert imported_secret(given, kind) == kept


REFUSED = {
    "23 bytes": (text_of(bytes(23)), None, "has 23 bytes, 24 to 64 are taken"),
    "65 bytes": (text_of(bytes(65)), None, "has 65 bytes, 24 to 64 are taken"),
    "nothing": ("whsec_", None, "has 0 bytes, 24 to 64 are taken"),
    "no prefix": (text_of(bytes(32), ""), None, "must begin with whsec_ (HMAC) or whsk_ (Ed25519)"),
    "a public key": (text_of(PUBLIC, "whpk_"), None, "must begin with whsec_ (HMAC) or whsk_ (Ed25519)"),
    "no base64": ("whsec_" + "%" * 40, None, "must be base64 behind whsec_"),
    "other letters": ("whsec_" + "ä" * 40, None, "must be base64 behind whsec_"),
    "lines": ("whsec_" + "AAAA\n" * 12, None, "must be base64 behind whsec_"),
    "one letter too many": ("whsec_" + "A" * 41, None, "must be base64 behind whsec_"),
    "another kind": (text_of(bytes(32)), SecretKind.ED25519, "is of the kind hmac, not ed25519"),
    "31 bytes of a private key": (
        text_of(bytes(31), "whsk_"),
        None,
        "must be the 32 bytes of an Ed25519 private key, or those and its public key",
    ),
    "another's public key": (
        text_of(SEED + bytes(32), "whsk_"),
        None,
        "must be the 32 bytes of an Ed25519 private key, or those and its public key",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_may_not_be_imported_and_is_not_shown(name: str) -> None:
    given, kind, message = REFUSED[name]

    with pytest.raises(Invalid) as raised:
        imported_secret(given, kind)

    assert raised.value.message == f"secret: {message}"
