"""Signatures, verified by the reference library of Standard Webhooks."""

import base64
import hmac
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from shared.model.callbacks import new_signing_secret
from shared.wire.signatures import signed_headers

BODY = '{"notifications":[{"ep":"ä","path":"/3200/0/5501"}]}'.encode()


def test_the_reference_library_verifies_our_signature() -> None:
    secret = new_signing_secret()
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
    secret, now_s = new_signing_secret(), int(time.time())
    headers = signed_headers([secret], webhook_id="b1", timestamp_s=now_s, body=BODY)
    other = {"webhook-id": "b2", "webhook-timestamp": str(now_s - 1)}
    if changed in other:
        headers[changed] = other[changed]
    receiver = Webhook(new_signing_secret() if changed == "secret" else secret)

    with pytest.raises(WebhookVerificationError):
        receiver.verify(BODY + b" " if changed == "body" else BODY, headers)


@pytest.mark.parametrize("secret", ["whsec_%%%", "whsec_abc"])
def test_invalid_secret_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ValueError, match=r"^not a signing secret$"):
        signed_headers([secret], webhook_id="b1", timestamp_s=1, body=b"{}")
