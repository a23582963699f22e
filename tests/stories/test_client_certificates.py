"""Webhooks with client certificates of their own, at a receiver that demands one."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from tests.harness import leaks
from tests.harness.api import Api
from tests.harness.certificates import Certificates
from tests.harness.channels import AccountChannels
from tests.harness.stack import RedisLike, Stack, running_stack
from tests.harness.waiting import wait_until
from tests.outbound.receivers import Receiver, receiving, status


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("certificates"))
    made.make("authority")
    made.make("receiver", by="authority")
    for name in ("first", "second", "third"):
        made.make(name, by="authority", subject=f"{name}.example")
    return made


@pytest.fixture(scope="module")
def dispatching(certificates: Certificates, redis_like: RedisLike | None) -> Iterator[Stack]:
    with running_stack(
        gateways=1,
        edges=0,
        dispatchers=1,
        redis_like=redis_like,
        ALLOW_PRIVATE_CALLBACKS="1",
        CALLBACK_CA=certificates.pem("authority"),
    ) as stack:
        yield stack
        for name in ("first", "second", "third"):
            secret = certificates.key(name).read_text().splitlines()[1]
            for service in stack.services:
                assert secret not in service.stdout + service.stderr


@pytest.fixture
async def mine(dispatching: Stack, http: aiohttp.ClientSession) -> AccountChannels:
    api = Api(http, dispatching.gateways[0].url, dispatching.admin_token)
    return AccountChannels(api, await api.api_key(scopes=("publish", "channels", "admin")))


@dataclass
class Demanding:
    """A receiver that demands certificates: which client brought which event."""

    receiver: Receiver
    seen: list[tuple[str, int]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.receiver.url(scheme="https")


@pytest.fixture
async def demanding(certificates: Certificates) -> AsyncIterator[Demanding]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.pem("authority"))
    context.load_cert_chain(certificates.pem("receiver"), certificates.key("receiver"))
    context.verify_mode = ssl.CERT_REQUIRED
    found: list[Demanding] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = writer.get_extra_info("peercert")["subject"][0][0][1].partition(".")[0]
        found[0].seen.extend((name, number) for number in numbers_in(found[0].receiver.bodies[-1]))
        await status(200)(reader, writer)

    async with receiving(respond, tls=context) as receiver:
        found.append(Demanding(receiver))
        yield found[0]


def numbers_in(body: bytes) -> list[int]:
    """The numbers of the events, in whatever format a request carries them."""

    def walk(value: Any) -> Iterator[int]:
        if isinstance(value, dict):
            if "number" in value:
                yield value["number"]
            for each in value.values():
                yield from walk(each)
        elif isinstance(value, list):
            for each in value:
                yield from walk(each)

    return list(walk(json.loads(body)))


def pair(certificates: Certificates, name: str) -> dict[str, str]:
    return {
        "certificate": certificates.pem(name).read_text(),
        "private_key": certificates.key(name).read_text(),
    }


async def create(mine: AccountChannels, url: str, topic: str) -> str:
    made = await mine.create("webhook", bindings=[topic], webhook={"url": url})
    return str(made["id"])


async def put(mine: AccountChannels, channel: str, content: dict[str, str]) -> dict[str, str]:
    response = await mine.call("PUT", f"/{channel}/client-certificate", json=content)
    assert response.status == 200, response.text
    shown: dict[str, str] = response.json
    return shown


async def test_each_channel_shows_its_own_certificate_also_on_kept_connections(
    mine: AccountChannels, demanding: Demanding, certificates: Certificates
) -> None:
    for name in ("first", "second"):
        channel = await create(mine, demanding.url, f"orders.{name}")
        await put(mine, channel, pair(certificates, name))
    for number in range(6):
        name = ("first", "second")[number % 2]
        await mine.api.publish(mine.key, {"topic": f"orders.{name}", "data": {"number": number}})
        # One by one, so that each is a request of its own.
        await wait_until(lambda number=number: len(demanding.seen) == number + 1, what=lambda: demanding.seen)  # type: ignore[misc]

    assert demanding.seen == [(("first", "second")[number % 2], number) for number in range(6)]
    assert demanding.receiver.connections < 6, "connections are kept"


async def test_a_certificate_that_is_put_later_delivers_what_is_pending(
    mine: AccountChannels, demanding: Demanding, certificates: Certificates
) -> None:
    channel = await create(mine, demanding.url, "orders.late")
    await mine.api.publish(mine.key, {"topic": "orders.late", "data": {"number": 1}})
    await mine.until(channel, state="failing")

    assert (await mine.do(channel, "test", 200)).json["accepted"] is False
    await put(mine, channel, pair(certificates, "first"))
    await wait_until(lambda: demanding.seen == [("first", 1)], what=lambda: demanding.seen)
    assert (await mine.do(channel, "test", 200)).json["accepted"] is True

    await put(mine, channel, pair(certificates, "third"))
    await mine.api.publish(mine.key, {"topic": "orders.late", "data": {"number": 2}})
    await wait_until(lambda: demanding.seen[1:] == [("third", 2)], what=lambda: demanding.seen)

    assert (await mine.call("DELETE", f"/{channel}/client-certificate")).status == 204
    await mine.api.publish(mine.key, {"topic": "orders.late", "data": {"number": 3}})
    await mine.until(channel, state="failing")
    assert len(demanding.seen) == 2


async def test_the_private_key_is_never_shown(
    mine: AccountChannels, demanding: Demanding, certificates: Certificates, dispatching: Stack
) -> None:
    channel = await create(mine, demanding.url, "orders.shown")
    path = f"/{channel}/client-certificate"
    assert (await mine.call("GET", path)).status == 404
    shown = await put(mine, channel, pair(certificates, "first"))
    assert shown["subject"] == "CN=first.example"
    assert set(shown) == {"subject", "fingerprint", "not_after"}
    assert (await mine.call("GET", path)).json == shown

    texts = [
        (await mine.call("GET", path)).text,
        (await mine.call("GET", f"/{channel}")).text,
        (await mine.call("GET")).text,
        (await mine.api.call("GET", "/v1/audit", key=mine.key)).text,
    ]
    for line in certificates.key("first").read_text().splitlines()[1:-1]:
        assert not [text for text in texts if line in text]
    actions = [entry["action"] for entry in json.loads(texts[-1])["entries"] if entry["target"] == channel]
    assert "client-certificate.put" in actions
    leaks.assert_none_in_outputs(dispatching.services)


@pytest.mark.parametrize(
    ("certificate", "key", "field"),
    [("first", "second", "private_key"), ("none", "first", "certificate"), ("first", "none", "private_key")],
)
async def test_a_pair_that_does_not_fit_is_refused(
    mine: AccountChannels,
    demanding: Demanding,
    certificates: Certificates,
    certificate: str,
    key: str,
    field: str,
) -> None:
    channel = await create(mine, demanding.url, "orders.refused")
    given = {
        "certificate": "x" if certificate == "none" else certificates.pem(certificate).read_text(),
        "private_key": "x" if key == "none" else certificates.key(key).read_text(),
    }
    response = await mine.call("PUT", f"/{channel}/client-certificate", json=given)

    assert response.status == 400
    assert field in response.text
    assert (await mine.call("GET", f"/{channel}/client-certificate")).status == 404


async def test_who_may_not_change_the_channel_may_not_give_it_a_certificate(
    mine: AccountChannels, demanding: Demanding, certificates: Certificates
) -> None:
    channel = await create(mine, demanding.url, "orders.rights")
    stranger = AccountChannels(mine.api, await mine.api.api_key(scopes=("publish", "channels")))
    receiver = AccountChannels(
        mine.api, await mine.api.api_key(account=mine.key.account, scopes=("receive",))
    )
    for caller, expected in ((stranger, 404), (receiver, 403)):
        for method, content in (("PUT", {"json": pair(certificates, "first")}), ("GET", {}), ("DELETE", {})):
            response = await caller.call(method, f"/{channel}/client-certificate", **content)
            assert response.status == expected, (method, response.text)


async def test_only_a_native_webhook_has_one(mine: AccountChannels, certificates: Certificates) -> None:
    pull = (await mine.create("pull"))["id"]
    response = await mine.call("PUT", f"/{pull}/client-certificate", json=pair(certificates, "first"))
    assert (response.status, "only a webhook" in response.text) == (409, True)

    key = await mine.api.api_key(account=mine.key.account)
    async with receiving(status(200)) as receiver:
        assert (await mine.api.put_callback(key, receiver.url())).status == 204
    response = await mine.call("PUT", f"/ch_{key.id}/client-certificate", json=pair(certificates, "first"))
    assert (response.status, "API key" in response.text) == (409, True)
