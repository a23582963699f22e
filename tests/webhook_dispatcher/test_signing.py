"""Signing beside the event loop, and with all secrets that a webhook has at the time of the request."""

import threading

import pytest

from services.webhook_dispatcher import signing
from services.webhook_dispatcher.outcomes import Outcome
from services.webhook_dispatcher.signing import AT_ONCE_BYTES, sign
from shared.model.signing_secrets import SecretKind, new_secret
from shared.store.signing_secrets import SigningSecrets
from shared.store.webhooks import Webhooks
from shared.wire.signatures import signed_headers
from tests.store.stores import RedisClock, Stores
from tests.webhook_dispatcher.conftest import (
    EXPIRY_MS,
    OTHER_INSTANCE,
    Attempts,
    FakeOutbound,
    claim,
    webhook,
)

SECRETS = [new_secret(), new_secret(SecretKind.ED25519)]


@pytest.mark.parametrize(("size", "is_beside"), [(AT_ONCE_BYTES // 2, False), (AT_ONCE_BYTES // 2 + 1, True)])
async def test_large_requests_are_signed_beside_the_loop(
    monkeypatch: pytest.MonkeyPatch, size: int, is_beside: bool
) -> None:
    threads: list[threading.Thread] = []

    def noting(secrets: list[str], **facts: object) -> dict[str, str]:
        threads.append(threading.current_thread())
        return signed_headers(secrets, **facts)  # type: ignore[arg-type]

    monkeypatch.setattr(signing, "signed_headers", noting)
    facts = {"webhook_id": "msg_1", "timestamp_s": 1, "body": bytes(size)}

    assert await sign(SECRETS, **facts) == signed_headers(SECRETS, **facts)  # type: ignore[arg-type]

    assert [each is not threading.main_thread() for each in threads] == [is_beside]


async def test_a_retry_is_signed_with_the_secrets_of_its_own_time(
    stores: Stores, deliveries: Attempts, outbound: FakeOutbound, clock: RedisClock
) -> None:
    """Also by another dispatcher: Redis alone knows the secrets."""
    clock.ahead_ms = 0
    channel = await webhook(stores, queued=1)
    secrets = SigningSecrets(clock.calls_of(stores))
    outbound.status = 500
    assert await deliveries.make(await claim(stores, channel)) is Outcome.RELEASED

    await secrets.add(channel, SECRETS[0], overlap_ms=EXPIRY_MS // 4)
    await secrets.add(channel, SECRETS[1], overlap_ms=EXPIRY_MS // 2)
    for ahead_ms in (EXPIRY_MS // 4 - 1, EXPIRY_MS // 4, EXPIRY_MS // 2):
        clock.ahead_ms = ahead_ms
        assert await Webhooks(stores.calls, stores.wakeups).retry_now(channel)
        lease = await claim(stores, channel, f"{OTHER_INSTANCE}/{ahead_ms}")
        assert await deliveries.make(lease) is Outcome.RELEASED

    signatures = [each.headers["webhook-signature"].split(" ") for each in outbound.requests]
    kinds = [[each.partition(",")[0] for each in found] for found in signatures]
    assert kinds == [["v1"], ["v1a", "v1", "v1"], ["v1a", "v1"], ["v1a"]]
    assert len({each.webhook_id for each in outbound.requests}) == 1
