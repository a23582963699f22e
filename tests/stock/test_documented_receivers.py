"""The receivers of docs/webhooks.md: they take what the gateway sends, once, and nothing else."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import Webhook as Signer

from tests.harness.api import Api
from tests.harness.channels import AccountChannels
from tests.harness.raw import exchange
from tests.harness.waiting import wait_until
from tests.stock.documented import LANGUAGES, DocumentedReceiver

# Building the Go program may take a minute on a busy machine.
pytestmark = pytest.mark.timeout(300)

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
OTHER_SECRET = "whsec_" + base64.b64encode(bytes(24)).decode()
PAIR = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_PAIR = Ed25519PrivateKey.from_private_bytes(bytes(32))


def public_key(pair: Ed25519PrivateKey) -> str:
    return "whpk_" + base64.b64encode(pair.public_key().public_bytes_raw()).decode()


@pytest.fixture(params=LANGUAGES)
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DocumentedReceiver]:
    """It is not yet started."""
    found = DocumentedReceiver(request.param, tmp_path)
    yield found
    found.close()


@pytest.fixture
async def mine(api: Api) -> AccountChannels:
    return AccountChannels(api, await api.api_key(scopes=("publish", "channels")))


async def create(mine: AccountChannels, receiver: DocumentedReceiver) -> tuple[str, str]:
    """A webhook to the receiver: its id, and its secret."""
    # The first retry would be after five seconds.
    target = {"url": receiver.url, "backoff": [1]}
    made = await mine.create("webhook", bindings=["orders.#"], webhook=target)
    shown = await mine.call("GET", f"/{made['id']}/signing-secret")
    return made["id"], shown.json["signing_secret"]


async def publish(mine: AccountChannels, *ids: str) -> None:
    await mine.api.publish(mine.key, *({"topic": "orders.paid", "id": each, "data": [each]} for each in ids))


async def answer_to_test_event(mine: AccountChannels, channel: str) -> int:
    """The status of the answer to a test event."""
    return int((await mine.do(channel, "test", 200)).json["status"])


async def test_it_takes_events_and_batches_in_order(
    mine: AccountChannels, receiver: DocumentedReceiver
) -> None:
    channel, secret = await create(mine, receiver)
    await receiver.start(secret)
    assert (await mine.do(channel, "test", 200)).json["accepted"]
    ones = [f"one-{number}" for number in range(20)]
    await publish(mine, *ones)
    await wait_until(lambda: receiver.ids == ones, what=lambda: receiver.handled)

    await mine.do(channel, "pause")
    change = {"webhook": {"format": "cloudevents-batch"}}
    assert (await mine.call("PATCH", f"/{channel}", json=change)).status == 200
    batch = [f"batch-{number}" for number in range(5)]
    await publish(mine, *batch)
    await mine.do(channel, "resume")

    await wait_until(lambda: receiver.ids == ones + batch, what=lambda: receiver.handled)
    await mine.until(channel, state="active", pending=0, dropped=0)
    topic, event_id, data = receiver.handled[-1]
    assert (topic, event_id, data) == ("orders.paid", "batch-4", ["batch-4"])
    [last, *_] = (await mine.call("GET", f"/{channel}/deliveries")).json["deliveries"]
    assert (last["batch"], last["status"]) == (5, 200)


async def test_it_refuses_what_another_secret_has_signed(
    mine: AccountChannels, receiver: DocumentedReceiver
) -> None:
    channel, secret = await create(mine, receiver)
    await receiver.start(OTHER_SECRET, public_key(PAIR))

    assert await answer_to_test_event(mine, channel) == 401
    await publish(mine, "e-1")
    await mine.until(channel, state="failing", pending=1)
    assert receiver.handled == []

    await receiver.start(OTHER_SECRET, secret)
    await wait_until(lambda: receiver.ids == ["e-1"])
    await mine.until(channel, state="active", pending=0)


@pytest.mark.parametrize("kind", ["hmac", "ed25519"])
async def test_in_a_rotation_it_needs_the_old_secret_or_the_new_one(
    mine: AccountChannels, receiver: DocumentedReceiver, kind: str
) -> None:
    channel, old = await create(mine, receiver)
    made = (await mine.post(channel, "secrets", kind=kind)).json
    new = made["secret"] or made["public_key"]
    [_, older] = (await mine.call("GET", f"/{channel}/secrets")).json["secrets"]

    for number, secrets in enumerate([[old], [new], [old, new]]):
        await receiver.start(*secrets)
        await publish(mine, f"e-{number}")
        await wait_until(lambda: f"e-{number}" in receiver.ids, what=lambda: receiver.handled)  # noqa: B023
        # Otherwise the answer might be lost with the process.
        await mine.until(channel, state="active", pending=0)

    assert (await mine.call("DELETE", f"/{channel}/secrets/{older['id']}")).status == 204
    assert await answer_to_test_event(mine, channel) == 200
    await receiver.start(old)
    assert await answer_to_test_event(mine, channel) == 401
    await receiver.start(new)
    assert await answer_to_test_event(mine, channel) == 200
    assert receiver.ids == ["e-0", "e-1", "e-2"]


def event(event_id: str, **more: Any) -> bytes:
    attributes = {"specversion": "1.0", "id": event_id, "source": "/shop", "type": "orders.paid"}
    return json.dumps({**attributes, "data": 1, **more}).encode()


BODY = event("e-1")


def right(body: bytes = BODY, *, ago_s: float = 0, message_id: str = "m-1") -> dict[str, str]:
    """The headers of a request that is signed with SECRET."""
    sent = datetime.fromtimestamp(int(time.time() - ago_s), UTC)
    signature = Signer(SECRET).sign(message_id, sent, body.decode())
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(sent.timestamp())),
        "webhook-signature": signature,
    }


def with_signature(change: str) -> dict[str, str]:
    """Headers with another signature, in which {} stands for the right one without its version."""
    headers = right()
    return {**headers, "webhook-signature": change.format(headers["webhook-signature"].partition(",")[2])}


def at(text: str) -> dict[str, str]:
    """Headers with this timestamp, which is signed too: it alone is wrong."""
    signed = f"m-1.{text}.".encode() + BODY
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signature = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    return {"webhook-id": "m-1", "webhook-timestamp": text, "webhook-signature": f"v1,{signature}"}


def by_pair(pair: Ed25519PrivateKey, form: str = "v1a,{}") -> dict[str, str]:
    headers = right()
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + BODY
    signature = base64.b64encode(pair.sign(signed)).decode()
    return {**headers, "webhook-signature": form.format(signature)}


def without(name: str) -> dict[str, str]:
    return {key: value for key, value in right().items() if key != name}


def requests() -> Iterator[tuple[str, dict[str, str], bytes, int]]:
    """What is sent, and the status of the answer."""
    yield "right", right(), BODY, 200
    yield "right, by ourselves", at(str(int(time.time()))), BODY, 200
    yield "behind another signature", with_signature("v1,AAAA v1,{}"), BODY, 200
    yield "behind what is no signature", with_signature("x v1 v1, v1,!!! v9,{0} v1,{0}"), BODY, 200
    yield "by the pair", by_pair(PAIR), BODY, 200
    yield "by the pair, behind another", by_pair(PAIR, "v1,AAAA v1a,{}"), BODY, 200
    yield "four minutes old", right(ago_s=240), BODY, 200
    yield "four minutes ahead", right(ago_s=-240), BODY, 200

    yield "six minutes old", right(ago_s=360), BODY, 401
    yield "six minutes ahead", right(ago_s=-360), BODY, 401
    yield "another time", right() | {"webhook-timestamp": str(int(time.time()) + 1)}, BODY, 401
    for text in ("", "now", "1e9", "-1", "9" * 12, "9" * 30, "9" * 5000):
        yield f"time {text[:12]} of {len(text)}", at(text), BODY, 401
    yield "another body", right(), event("e-2"), 401
    yield "another id", right() | {"webhook-id": "m-2"}, BODY, 401
    for name in right():
        yield f"no {name}", without(name), BODY, 401
    yield "no header", {}, BODY, 401
    for form in ("", "v1", "v1,", "{}", "v1a,{}", "v2,{}", "V1,{}", "v1,A{}", "v1,AAAA", "v1a,AAAA"):
        yield f"signature {form!r}", with_signature(form), BODY, 401
    yield "by another pair", by_pair(OTHER_PAIR), BODY, 401
    yield "by the pair, as HMAC", by_pair(PAIR, "v1,{}"), BODY, 401
    yield "no JSON, signed", right(b"{"), b"{", 500


async def post(http: aiohttp.ClientSession, url: str, headers: dict[str, str], body: bytes) -> int:
    async with http.post(url, data=body, headers=headers) as response:
        return response.status


async def test_it_takes_no_request_with_anything_wrong(
    receiver: DocumentedReceiver, http: aiohttp.ClientSession
) -> None:
    await receiver.start(SECRET, public_key(PAIR))
    table = list(requests())

    found = {name: await post(http, receiver.url, headers, body) for name, headers, body, _ in table}

    assert found == {name: status for name, _, _, status in table}
    assert receiver.ids == ["e-1"], "it takes an event once"
    too_long = "POST /hook HTTP/1.1\nHost: a\nContent-Length: 1048577\n\n"
    assert (await exchange(receiver.url, too_long))[0] == 413


async def test_it_takes_an_event_once(receiver: DocumentedReceiver, http: aiohttp.ClientSession) -> None:
    """At the same time, in a retry, in another request and in a batch; of another source it is another."""
    await receiver.start(SECRET)
    one, two, foreign = event("e-1"), event("e-2"), event("e-1", source="/other")
    batch = b"[%b,%b]" % (one, two)
    bodies = [*[one] * 5, batch, batch, foreign]

    first = await asyncio.gather(*(post(http, receiver.url, right(one), one) for _ in range(5)))
    then = [
        await post(http, receiver.url, right(body, message_id=f"m-{number}"), body)
        for number, body in enumerate(bodies)
    ]

    assert {*first, *then} == {200}
    assert receiver.ids == ["e-1", "e-2", "e-1"]
