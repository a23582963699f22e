"""Signing secrets of webhooks: rotated without a gap, imported, ended; by HMAC and by Ed25519."""

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from tests.harness.channels import AccountChannels
from tests.harness.dispatching import dispatching_with, hook, mine
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Call, Webhook

OWN = "whsec_" + base64.b64encode(bytes(range(24))).decode()

__all__ = ["hook", "mine"]

dispatching = dispatching_with(gateways=2)


@pytest.fixture
async def channel(mine: AccountChannels, hook: Webhook) -> str:
    made = await mine.create("webhook", bindings=["orders.#"], webhook={"url": hook.url})
    return str(made["id"])


async def make(mine: AccountChannels, channel: str, **body: Any) -> dict[str, Any]:
    response = await mine.post(channel, "secrets", **body)
    assert response.status == 201, response.text
    assert response.headers["Cache-Control"] == "no-store"
    made: dict[str, Any] = response.json
    return made


async def listed(mine: AccountChannels, channel: str) -> list[dict[str, Any]]:
    response = await mine.call("GET", f"/{channel}/secrets")
    assert "whsec_" not in response.text
    assert "whsk_" not in response.text
    found: list[dict[str, Any]] = response.json["secrets"]
    return found


async def delivered(mine: AccountChannels, hook: Webhook) -> Call:
    """The request for an event that is published now."""
    before = len(hook.calls)
    await mine.api.publish(mine.key, {"topic": "orders.paid", "data": before})
    await wait_until(lambda: len(hook.calls) > before)
    return hook.calls[before]


def verifies(secret: str, call: Call) -> bool:
    try:
        Verifier(secret).verify(call.body, dict(call.headers))
    except WebhookVerificationError:
        return False
    return True


def signatures(call: Call) -> list[str]:
    return call.headers["webhook-signature"].split(" ")


def verifies_pair(public_key: str, call: Call) -> bool:
    """As the specification says: over id, time and body, by the public key alone."""
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.removeprefix("whpk_")))
    signed = f"{call.webhook_id}.{call.headers['webhook-timestamp']}.".encode() + call.body
    [signature] = [each for each in signatures(call) if each.startswith("v1a,")]
    key.verify(base64.b64decode(signature.removeprefix("v1a,")), signed)
    return True


async def signing_secret(mine: AccountChannels, channel: str) -> str:
    return str((await mine.call("GET", f"/{channel}/signing-secret")).json["signing_secret"])


async def test_a_rotation_leaves_no_request_that_a_receiver_cannot_verify(
    mine: AccountChannels, hook: Webhook, channel: str
) -> None:
    old = await signing_secret(mine, channel)
    [first] = await listed(mine, channel)
    assert (first["kind"], first["ends_at"], first["public_key"]) == ("hmac", None, None)

    new = await make(mine, channel)

    both = await delivered(mine, hook)
    assert [verifies(each, both) for each in (old, new["secret"])] == [True, True]
    assert await signing_secret(mine, channel) == new["secret"]
    shown_new, shown_old = await listed(mine, channel)
    assert shown_new == {name: value for name, value in new.items() if name != "secret"}
    assert (shown_old["id"], shown_new["ends_at"]) == (first["id"], None)
    assert shown_old["ends_at"] is not None

    assert (await mine.call("DELETE", f"/{channel}/secrets/{first['id']}")).status == 204

    alone = await delivered(mine, hook)
    assert [verifies(each, alone) for each in (old, new["secret"])] == [False, True]
    refused = await mine.call("DELETE", f"/{channel}/secrets/{new['id']}")
    assert (refused.status, refused.json["type"]) == (409, "conflict")
    assert (await mine.call("DELETE", f"/{channel}/secrets/{first['id']}")).status == 404


async def test_the_overlap_ends_by_itself(mine: AccountChannels, hook: Webhook, channel: str) -> None:
    old, new = await signing_secret(mine, channel), await make(mine, channel, overlap_s=1)

    async def has_ended() -> bool:
        return len(signatures(await delivered(mine, hook))) == 1

    await wait_until(has_ended)

    call = await delivered(mine, hook)
    assert [verifies(each, call) for each in (old, new["secret"])] == [False, True]
    assert [each["id"] for each in await listed(mine, channel)] == [new["id"]]
    assert all(verifies(new["secret"], each) for each in hook.calls)


async def test_without_an_overlap_the_old_one_ends_at_once(
    mine: AccountChannels, hook: Webhook, channel: str
) -> None:
    old, new = await signing_secret(mine, channel), await make(mine, channel, overlap_s=0)

    call = await delivered(mine, hook)

    assert [verifies(each, call) for each in (old, new["secret"])] == [False, True]


async def test_a_secret_of_ones_own(mine: AccountChannels, hook: Webhook, channel: str) -> None:
    made = await make(mine, channel, secret=OWN, overlap_s=0)

    assert made["secret"] == OWN == await signing_secret(mine, channel)
    assert verifies(OWN, await delivered(mine, hook))
    for wrong in ({"secret": OWN[:-4]}, {"secret": "x" + OWN}, {"secret": OWN, "kind": "ed25519"}):
        refused = await mine.post(channel, "secrets", **wrong)
        assert refused.status == 400
        assert refused.json["fields"][0]["name"] == "secret"
        assert OWN[6:] not in refused.text


async def test_a_pair_signs_so_that_the_public_key_verifies(
    mine: AccountChannels, hook: Webhook, channel: str
) -> None:
    old, made = await signing_secret(mine, channel), await make(mine, channel, kind="ed25519")

    assert (made["kind"], made["secret"]) == ("ed25519", None)
    assert (await listed(mine, channel))[0]["public_key"] == made["public_key"]
    both = await delivered(mine, hook)
    assert verifies(old, both)
    assert verifies_pair(made["public_key"], both)
    assert await signing_secret(mine, channel) == old

    own = Ed25519PrivateKey.generate()
    text = "whsk_" + base64.b64encode(own.private_bytes_raw()).decode()
    imported = await make(mine, channel, secret=text, overlap_s=0)
    public_key = "whpk_" + base64.b64encode(own.public_key().public_bytes_raw()).decode()
    assert (imported["secret"], imported["public_key"]) == (None, public_key)
    call = await delivered(mine, hook)
    assert len(signatures(call)) == 1
    assert verifies_pair(public_key, call)
    absent = await mine.call("GET", f"/{channel}/signing-secret")
    assert absent.status == 404
    assert "Ed25519" in absent.text


async def test_five_at_once(mine: AccountChannels, hook: Webhook, channel: str) -> None:
    old = await signing_secret(mine, channel)
    secrets = [old, *[(await make(mine, channel))["secret"] for _ in range(4)]]

    refused = await mine.post(channel, "secrets")

    shown = await listed(mine, channel)
    assert (refused.status, len(shown)) == (409, 5)
    assert shown[-1]["ends_at"] in refused.json["message"]
    call = await delivered(mine, hook)
    assert [verifies(each, call) for each in secrets] == [True] * 5


async def test_an_api_keys_webhook_has_them_too(
    dispatching: Stack, mine: AccountChannels, hook: Webhook
) -> None:
    """And its test request is signed by all of them."""
    key = await mine.api.api_key(scopes=("publish", "receive"))
    other = mine.api.at(dispatching.gateways[1].url)
    path = f"/v1/channels/{key.id}/secrets"
    assert (await mine.api.call("GET", path, key=key)).json == {"secrets": []}
    made = [(await other.call("POST", path, key=key, json={})).json["secret"] for _ in range(2)]

    registered = await mine.api.call(
        "PUT", "/v2/notification/callback", key=key, json={"url": hook.url, "headers": {}}
    )

    assert registered.status == 204
    await mine.api.publish(key, {"topic": "orders.paid", "data": 1, "to": key.id})
    await wait_until(lambda: bool(hook.calls))
    assert [verifies(each, hook.calls[0]) for each in made] == [True, True]


async def test_the_audit_log_says_who_made_imported_and_ended_which(
    mine: AccountChannels, channel: str
) -> None:
    [first] = await listed(mine, channel)
    made, imported = await make(mine, channel), await make(mine, channel, secret=OWN)
    assert (await mine.call("DELETE", f"/{channel}/secrets/{first['id']}")).status == 204

    shown = await mine.api.admin("GET", f"/v1/audit?account={mine.key.account}")

    entries = [each for each in shown.json["entries"] if each["action"].startswith("signing-secret.")]
    assert [(each["action"], each["name"]) for each in entries] == [
        ("signing-secret.ended", first["id"]),
        ("signing-secret.imported", imported["id"]),
        ("signing-secret.created", made["id"]),
    ]
    assert {(each["by"], each["target"]) for each in entries} == {(mine.key.id, channel)}
    for secret in (OWN, made["secret"]):
        assert secret.removeprefix("whsec_") not in shown.text


async def test_no_attempt_and_no_log_has_a_secret(
    dispatching: Stack, mine: AccountChannels, hook: Webhook, channel: str
) -> None:
    hook.says(500)
    secrets = [await signing_secret(mine, channel), (await make(mine, channel, secret=OWN))["secret"]]
    await make(mine, channel, kind="ed25519")
    call = await delivered(mine, hook)

    async def attempts() -> str:
        return (await mine.call("GET", f"/{channel}/deliveries")).text

    async def is_recorded() -> bool:
        return call.webhook_id in await attempts()

    await wait_until(is_recorded)
    seen = [await attempts(), *(each.stdout + each.stderr for each in dispatching.services)]
    for secret in secrets:
        assert not [each for each in seen if secret.removeprefix("whsec_") in each]


async def test_other_kinds_have_none(mine: AccountChannels) -> None:
    made = await mine.create("pull")

    refused = await mine.post(made["id"], "secrets")

    assert refused.status == 409
    assert (await mine.call("GET", f"/{made['id']}/secrets")).json == {"secrets": []}


async def test_a_test_event_is_signed_as_any_other(
    mine: AccountChannels, hook: Webhook, channel: str
) -> None:
    old, new = await signing_secret(mine, channel), await make(mine, channel)

    assert (await mine.call("POST", f"/{channel}/test")).json["accepted"]

    assert [verifies(each, hook.calls[0]) for each in (old, new["secret"])] == [True, True]
