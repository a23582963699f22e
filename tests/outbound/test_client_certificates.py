"""Calls with client certificates of their own, beside the usual one."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from shared.model.client_certificates import ClientCertificate
from shared.outbound import certificates as module
from shared.outbound.certificates import Contexts, usual_context
from shared.outbound.client import Outbound
from tests.harness.certificates import Certificates
from tests.outbound.conftest import LOOPBACK
from tests.outbound.receivers import Receiver, receiving, status

VERSIONS = iter(range(10_000))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("certificates"))
    made.make("authority")
    made.make("receiver", by="authority")
    for name in ("gateway", "first", "second"):
        made.make(name, by="authority", subject=f"{name}.example")
    return made


def of(certificates: Certificates, name: str) -> ClientCertificate:
    chain, key = certificates.pem(name).read_text(), certificates.key(name).read_text()
    return ClientCertificate(f"{name}-{next(VERSIONS)}", chain, key)


class Demanding(list[str]):
    """The names of the clients, one for each request, as a receiver that demands certificates saw them."""

    receiver: Receiver


@contextlib.asynccontextmanager
async def demanding(certificates: Certificates) -> AsyncIterator[Demanding]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.pem("authority"))
    context.load_cert_chain(certificates.pem("receiver"), certificates.key("receiver"))
    context.verify_mode = ssl.CERT_REQUIRED
    seen = Demanding()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown: dict[str, Any] = writer.get_extra_info("peercert")
        seen.append(shown["subject"][0][0][1])
        await status(200)(reader, writer)

    async with receiving(respond, tls=context) as receiver:
        seen.receiver = receiver
        yield seen


@contextlib.asynccontextmanager
async def calling(certificates: Certificates, *, usual: bool = True) -> AsyncIterator[Outbound]:
    async with Outbound(
        policy=LOOPBACK,
        ca=certificates.pem("authority"),
        client_cert=certificates.pem("gateway") if usual else None,
        client_key=certificates.key("gateway") if usual else None,
    ) as calls:
        yield calls


async def send(calls: Outbound, seen: Demanding, certificate: ClientCertificate | None) -> int | None:
    url = seen.receiver.url(scheme="https")
    return (await calls.send("POST", url, headers={}, body=b"{}", certificate=certificate)).status


async def test_each_call_shows_its_own_certificate_also_on_kept_connections(
    certificates: Certificates,
) -> None:
    first, second = of(certificates, "first"), of(certificates, "second")
    async with demanding(certificates) as seen, calling(certificates) as calls:
        for certificate in (first, second, None, first, second, None, second, first):
            assert await send(calls, seen, certificate) == 200

        assert [name.partition(".")[0] for name in seen] == [
            *("first", "second", "gateway", "first", "second", "gateway", "second", "first")
        ]
        assert seen.receiver.connections == 3, "one for each certificate, and each is kept"


async def test_a_certificate_in_place_of_another_needs_a_new_connection(certificates: Certificates) -> None:
    async with demanding(certificates) as seen, calling(certificates) as calls:
        for name in ("first", "second", "first"):
            assert await send(calls, seen, of(certificates, name)) == 200

        assert list(seen) == ["first.example", "second.example", "first.example"]
        assert seen.receiver.connections == 3


async def test_without_the_certificate_there_is_no_way_in(certificates: Certificates) -> None:
    """A connection that was opened with it is not used for anybody else."""
    async with demanding(certificates) as seen, calling(certificates, usual=False) as calls:
        assert await send(calls, seen, of(certificates, "first")) == 200

        assert await send(calls, seen, None) is None
        assert list(seen) == ["first.example"]


async def test_http_needs_no_certificate(certificates: Certificates) -> None:
    async with receiving(status(200)) as receiver, calling(certificates) as calls:
        unusable = ClientCertificate("x", "no certificate", "no key")
        attempt = await calls.send("POST", receiver.url(), headers={}, body=b"", certificate=unusable)

    assert attempt.status == 200


async def test_a_certificate_that_cannot_be_used_fails_the_call_alone(certificates: Certificates) -> None:
    bad = ClientCertificate(
        "bad", certificates.pem("first").read_text(), certificates.key("second").read_text()
    )
    async with demanding(certificates) as seen, calling(certificates) as calls:
        url = seen.receiver.url(scheme="https")
        attempt = await calls.send("POST", url, headers={}, body=b"{}", certificate=bad)

        assert (attempt.status, attempt.error) == (None, "tls-failed")
        assert attempt.detail == "the channel's client certificate cannot be used: put it again"
        assert await send(calls, seen, of(certificates, "first")) == 200


async def test_a_context_is_made_once_and_the_oldest_gives_way(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT", 2)
    made: list[ssl.SSLContext] = []

    def make(**options: Any) -> ssl.SSLContext:
        made.append(usual_context(**options))
        return made[-1]

    contexts = Contexts(ca=certificates.pem("authority"), make=make)
    first, second, third = (of(certificates, name) for name in ("first", "second", "gateway"))
    of_first = await asyncio.gather(*(contexts.of(first, account="a") for _ in range(5)))
    assert len(made) == 1
    assert {id(each) for each in of_first} == {id(made[0])}

    await contexts.of(second, account="a")
    assert await contexts.of(first, account="a") is made[0]
    await contexts.of(third, account="b")
    assert await contexts.of(first, account="a") is made[0], "it was used after the second"
    assert len(made) == 3
    await contexts.of(second, account="a")
    assert len(made) == 4
    await contexts.close()


async def test_an_account_with_many_certificates_takes_no_other_accounts_place(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT_OF_ACCOUNT", 2)
    contexts = Contexts(ca=certificates.pem("authority"))
    others = of(certificates, "second")
    of_other = await contexts.of(others, account="other")
    many = [replace(of(certificates, "first"), version=f"v{number}") for number in range(4)]
    made = [await contexts.of(each, account="many") for each in many]

    assert await contexts.of(others, account="other") is of_other
    assert await contexts.of(many[3], account="many") is made[3]
    assert await contexts.of(many[2], account="many") is made[2]
    assert await contexts.of(many[1], account="many") is not made[1]
    await contexts.close()


def test_a_key_is_in_no_repr() -> None:
    assert "Zq7x" not in repr(ClientCertificate("v", "Zq7x", "Zq7x"))
