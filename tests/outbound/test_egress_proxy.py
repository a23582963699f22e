"""Calls through an egress proxy: to addresses that were checked here, whatever the proxy could reach."""

import asyncio
import base64
import logging
import socket
import ssl
from collections.abc import Callable

import pytest
import uvloop

from shared.model.addresses import AddressPolicy
from shared.outbound.client import Outbound
from tests.harness.certificates import Certificates
from tests.harness.forward_proxy import ForwardProxy, forward_proxy
from tests.outbound.conftest import LOOPBACK
from tests.outbound.odd_certificates import make_server_certificate
from tests.outbound.receivers import receiving, status

SECRET = "Zq7xWvKj"
PUBLIC = "93.184.215.14"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("certificates"))
    made.make("authority")
    make_server_certificate(made, "receiver", by="authority", alternative="DNS:hooks.example")
    return made


def server(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.pem("receiver"), certificates.key("receiver"))
    return context


async def public(_: str) -> list[str]:
    return [PUBLIC]


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_proxy_is_asked_for_the_address_and_the_receiver_for_the_name(
    certificates: Certificates, scheme: str, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Also over TLS: the certificate is checked for the name in the URL."""

    async def scenario() -> None:
        tls = server(certificates) if scheme == "https" else None
        async with receiving(status(200), tls=tls) as receiver:
            leads = {f"{PUBLIC}:{receiver.port}": ("127.0.0.1", receiver.port)}
            async with (
                forward_proxy(leads=leads) as proxy,
                Outbound(
                    policy=AddressPolicy(),
                    lookup=public,
                    proxy=proxy.url(),
                    ca=certificates.pem("authority"),
                ) as calls,
            ):
                url = receiver.url("hooks.example", scheme=scheme)
                attempts = [await calls.send("POST", url, headers={}, body=b"{}") for _ in range(3)]

        assert [attempt.status for attempt in attempts] == [200] * 3, attempts[0].detail
        assert proxy.asked == [f"CONNECT {PUBLIC}:{receiver.port}"], "one tunnel, which is kept"
        assert receiver.heads[0].startswith("POST /callback HTTP/1.1\r\n")
        assert receiver.header("host") == [f"hooks.example:{receiver.port}"]
        assert receiver.header("proxy-authorization") == []

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "hooks.example", "169.254.169.254"])
async def test_a_private_target_is_refused_though_the_proxy_could_reach_it(host: str) -> None:
    async def inside(_: str) -> list[str]:
        return ["127.0.0.1"]

    async with (
        receiving(status(200)) as receiver,
        forward_proxy() as proxy,
        Outbound(policy=AddressPolicy(), lookup=inside, proxy=proxy.url()) as calls,
    ):
        attempt = await calls.send("POST", receiver.url(host), headers={}, body=b"{}")

    assert attempt.error == "address-refused"
    assert "address blocked" in attempt.detail
    assert (proxy.asked, receiver.connections) == ([], 0)


async def test_one_bad_address_among_good_ones_refuses_the_call() -> None:
    async def mixed(_: str) -> list[str]:
        return [PUBLIC, "10.0.0.1"]

    async with (
        forward_proxy() as proxy,
        Outbound(policy=AddressPolicy(), lookup=mixed, proxy=proxy.url()) as calls,
    ):
        attempt = await calls.send("POST", "http://hooks.example/", headers={}, body=b"{}")

    assert (attempt.error, proxy.asked) == ("address-refused", [])


async def test_a_name_that_only_the_proxy_knows_is_not_resolved() -> None:
    """The guard would have nothing to judge."""

    async def nowhere(_: str) -> list[str]:
        raise OSError(-2, "Name or service not known")

    async with (
        forward_proxy() as proxy,
        Outbound(policy=AddressPolicy(), lookup=nowhere, proxy=proxy.url()) as calls,
    ):
        attempt = await calls.send("POST", "http://hooks.example/", headers={}, body=b"{}")

    assert (attempt.error, proxy.asked) == ("not-resolved", [])


async def test_a_certificate_for_another_name_is_refused_through_the_proxy(
    certificates: Certificates,
) -> None:
    async with receiving(status(200), tls=server(certificates)) as receiver:
        leads = {f"{PUBLIC}:{receiver.port}": ("127.0.0.1", receiver.port)}
        async with (
            forward_proxy(leads=leads) as proxy,
            Outbound(
                policy=AddressPolicy(), lookup=public, proxy=proxy.url(), ca=certificates.pem("authority")
            ) as calls,
        ):
            url = receiver.url("other.example", scheme="https")
            attempt = await calls.send("POST", url, headers={}, body=b"{}")

    assert (attempt.error, receiver.heads) == ("tls-failed", [])


async def test_an_address_that_the_proxy_cannot_reach_gives_way_to_the_next() -> None:
    async def two(_: str) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    async with (
        receiving(status(200)) as receiver,
        forward_proxy() as proxy,
        Outbound(policy=LOOPBACK, lookup=two, proxy=proxy.url()) as calls,
    ):
        attempt = await calls.send("POST", receiver.url("hooks.example"), headers={}, body=b"{}")

    assert attempt.status == 200
    assert proxy.asked == [f"CONNECT 127.0.0.{last}:{receiver.port}" for last in (2, 1)]


async def test_the_proxy_may_have_a_name_and_a_private_address() -> None:
    """Its address is the operator's own; that of the receiver stays judged."""
    looked_up: list[str] = []

    async def lookup(host: str) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.1"] if host == "proxy.internal" else [PUBLIC]

    async with receiving(status(200)) as receiver:
        leads = {f"{PUBLIC}:{receiver.port}": ("127.0.0.1", receiver.port)}
        async with forward_proxy(leads=leads) as proxy:
            url = f"http://proxy.internal:{proxy.port}"
            async with Outbound(policy=AddressPolicy(), lookup=lookup, proxy=url) as calls:
                attempt = await calls.send("POST", receiver.url("hooks.example"), headers={}, body=b"{}")

    assert attempt.status == 200
    assert sorted(looked_up) == ["hooks.example", "proxy.internal"]


async def through(proxy: ForwardProxy, credentials: str = "") -> tuple[str, str]:
    """Error and words of a call through the proxy."""
    url = proxy.url(credentials=credentials)
    async with Outbound(policy=AddressPolicy(), lookup=public, proxy=url) as calls:
        attempt = await calls.send("POST", "http://hooks.example/", headers={}, body=b"{}", timeout_s=10)
    return attempt.error, attempt.detail


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("HTTP/1.1 403 No\r\n\r\n", "does not permit this address or port (403)"),
        ("HTTP/1.1 405 No\r\n\r\n", "does not permit this address or port (405)"),
        ("HTTP/1.1 407 No\r\n\r\n", "wants other credentials (407)"),
        ("HTTP/1.0 502 No\r\n\r\n", "could not connect to the receiver (502)"),
        ("HTTP/1.1 504\r\n\r\n", "could not connect to the receiver (504)"),
        ("HTTP/1.1 302 Go\r\nLocation: http://x/\r\n\r\n", "opened no connection (302)"),
        ("SSH-2.0-x\r\n\r\n", "did not respond by HTTP/1.1"),
        ("HTTP/1.1 200 OK\r\n", "did not respond by HTTP/1.1"),
        (f"HTTP/1.1 200 OK\r\nX: {'y' * 20_000}\r\n\r\n", "did not respond by HTTP/1.1"),
    ],
)
async def test_a_proxy_that_opens_no_tunnel(answer: str, words: str) -> None:
    async with forward_proxy(answer=answer.encode()) as proxy:
        error, detail = await through(proxy)

    assert error == "not-connected"
    assert detail.startswith(f"the gateway's egress proxy {words}")


async def test_a_proxy_that_speaks_before_the_receiver_can_is_not_used() -> None:
    """Those bytes would be taken for the receiver's response."""
    async with receiving(status(200)) as receiver:
        leads = {f"{PUBLIC}:80": ("127.0.0.1", receiver.port)}
        chatter = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        async with forward_proxy(leads=leads, chatter=chatter) as proxy:
            error, _ = await through(proxy)

    assert (error, receiver.heads) == ("not-connected", [])


async def test_a_proxy_that_is_away() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error, detail = await through(ForwardProxy(unused.getsockname()[1]))

    assert error == "not-connected"
    assert detail == "the gateway's egress proxy cannot be reached: its operator has to mend that"


async def test_credentials_go_to_the_proxy_and_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with forward_proxy(answer=b"HTTP/1.1 407 No\r\n\r\n") as proxy:
        _, detail = await through(proxy, f"gateway:{SECRET}%40")

    expected = base64.b64encode(f"gateway:{SECRET}@".encode()).decode()
    assert [each["proxy-authorization"] for each in proxy.headers] == [f"Basic {expected}"]
    shown = " ".join([detail, caplog.text, *(str(record.__dict__) for record in caplog.records)])
    assert "egress-proxy.failed" in shown
    assert SECRET not in shown
    assert expected not in shown


async def test_a_silent_proxy_meets_the_deadline_of_the_call() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with Outbound(policy=AddressPolicy(), lookup=public, proxy=url) as calls:
            attempt = await calls.send("POST", "http://hooks.example/", headers={}, body=b"", timeout_s=0.3)

    assert (attempt.error, attempt.was_reached) == ("timed-out", False)
