"""Webhooks over https: trusted authorities, and the client certificate."""

import asyncio
import ssl
from pathlib import Path

import pytest

from shared.outbound.client import Outbound
from shared.runtime.settings import SettingsError, load_settings
from tests.harness.certificates import Certificates
from tests.outbound.conftest import LOOPBACK
from tests.outbound.receivers import receiving, status


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("certificates"))
    made.make("authority")
    made.make("stranger")
    made.make("receiver", by="authority")
    made.make("gateway", by="authority", subject="notifications.example")
    made.make("locked", password="Zq7xWvKj")
    made.make("bare-authority", is_bare=True)
    made.make("bare-receiver", by="bare-authority", is_bare=True)
    made.make("intermediate", by="authority", is_authority=True)
    made.make("far-receiver", by="intermediate")
    return made


def server(
    certificates: Certificates, *, name: str = "receiver", wants_client: bool = False
) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.pem("authority"))
    context.load_cert_chain(certificates.pem(name), certificates.key(name))
    context.verify_mode = ssl.CERT_REQUIRED if wants_client else ssl.CERT_NONE
    return context


async def test_a_receiver_of_a_private_authority(certificates: Certificates) -> None:
    async with receiving(status(200), tls=server(certificates)) as receiver:
        url = receiver.url(scheme="https")
        async with Outbound(policy=LOOPBACK, ca=certificates.pem("authority")) as calls:
            assert (await calls.send("PUT", url, headers={}, body=b"{}")).accepted
            assert (await calls.send("PUT", url, headers={}, body=b"{}")).accepted
            assert receiver.connections == 1
        for trusted in (None, certificates.pem("stranger")):
            async with Outbound(policy=LOOPBACK, ca=trusted) as calls:
                attempt = await calls.send("PUT", url, headers={}, body=b"{}")
                assert (attempt.status, attempt.error) == (None, "tls-failed")
        assert len(receiver.heads) == 2


async def test_a_private_authority_that_leaves_extensions_out(certificates: Certificates) -> None:
    """No key usage, no identifiers of keys: a context with Python 3.13's defaults refuses such a chain."""
    context = ssl.create_default_context(cafile=certificates.pem("bare-authority"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    async with (
        receiving(status(200), tls=server(certificates, name="bare-receiver")) as receiver,
        Outbound(policy=LOOPBACK, ca=certificates.pem("bare-authority")) as calls,
    ):
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", receiver.port, ssl=context)
        assert (await calls.send("PUT", receiver.url(scheme="https"), headers={}, body=b"{}")).accepted


async def test_an_intermediate_authority_is_trusted_with_its_root_only(
    certificates: Certificates, tmp_path: Path
) -> None:
    """Python 3.13's default context is satisfied with the intermediate authority alone."""
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join(certificates.pem(name).read_bytes() for name in ("intermediate", "authority")))
    async with receiving(status(200), tls=server(certificates, name="far-receiver")) as receiver:
        for trusted, error in ((certificates.pem("intermediate"), "tls-failed"), (both, "")):
            async with Outbound(policy=LOOPBACK, ca=trusted) as calls:
                attempt = await calls.send("PUT", receiver.url(scheme="https"), headers={}, body=b"{}")
            assert attempt.error == error


async def test_http_1_1_is_offered(certificates: Certificates) -> None:
    """By ALPN: receivers that want an offer, such as Go's, close without one."""
    selected: list[str | None] = []
    context = server(certificates)
    context.set_alpn_protocols(["h2", "http/1.1"])

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        selected.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await status(200)(reader, writer)

    async with (
        receiving(respond, tls=context) as receiver,
        Outbound(policy=LOOPBACK, ca=certificates.pem("authority")) as calls,
    ):
        assert (await calls.send("PUT", receiver.url(scheme="https"), headers={}, body=b"{}")).accepted

    assert selected == ["http/1.1"]


async def test_a_name_that_is_not_in_the_certificate(certificates: Certificates) -> None:
    async def lookup(_: str) -> list[str]:
        return ["127.0.0.1"]

    async with (
        receiving(status(200), tls=server(certificates)) as receiver,
        Outbound(policy=LOOPBACK, ca=certificates.pem("authority"), lookup=lookup) as calls,
    ):
        attempt = await calls.send(
            "PUT", receiver.url("other.example", scheme="https"), headers={}, body=b"{}"
        )

    assert attempt.error == "tls-failed"
    assert receiver.heads == []


async def test_the_client_certificate_is_sent_on_request(certificates: Certificates) -> None:
    async with receiving(status(200), tls=server(certificates, wants_client=True)) as receiver:
        url = receiver.url(scheme="https")
        async with Outbound(
            policy=LOOPBACK,
            ca=certificates.pem("authority"),
            client_cert=certificates.pem("gateway"),
            client_key=certificates.key("gateway"),
        ) as calls:
            assert (await calls.send("PUT", url, headers={}, body=b"{}")).accepted
        async with Outbound(policy=LOOPBACK, ca=certificates.pem("authority")) as calls:
            attempt = await calls.send("PUT", url, headers={}, body=b"{}")
            # TLS 1.3: the receiver refuses after the handshake has ended for the client, if at all.
            assert attempt.status is None
            assert attempt.error in ("tls-failed", "closed", "not-connected")
        assert len(receiver.heads) == 1


async def test_a_receiver_without_tls(certificates: Certificates) -> None:
    async with receiving(status(200)) as receiver, Outbound(policy=LOOPBACK, timeout_s=0.5) as calls:
        attempt = await calls.send("PUT", receiver.url(scheme="https"), headers={}, body=b"{}")

    assert attempt.status is None
    assert attempt.error in ("tls-failed", "timed-out", "not-connected")


def test_settings_accept_a_pair_that_fits(certificates: Certificates) -> None:
    settings = load_settings(
        {
            "NOTIFY_CALLBACK_CLIENT_CERT": str(certificates.pem("gateway")),
            "NOTIFY_CALLBACK_CLIENT_KEY": str(certificates.key("gateway")),
            "NOTIFY_CALLBACK_CA": str(certificates.pem("authority")),
        }
    )

    assert settings.callback_client_cert == certificates.pem("gateway")
    assert settings.callback_ca == certificates.pem("authority")


@pytest.mark.parametrize(("cert", "key"), [("gateway", "receiver"), ("locked", "locked"), ("gateway", "no")])
def test_settings_refuse_a_pair_that_does_not_fit(certificates: Certificates, cert: str, key: str) -> None:
    environ = {
        "NOTIFY_CALLBACK_CLIENT_CERT": str(certificates.pem(cert)),
        "NOTIFY_CALLBACK_CLIENT_KEY": str(certificates.key(key)),
    }
    with pytest.raises(SettingsError, match=r"^NOTIFY_CALLBACK_CLIENT_KEY: cannot be used with "):
        load_settings(environ)
