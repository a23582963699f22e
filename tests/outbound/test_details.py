"""What a call says of its response and, in words, of its failure."""

import asyncio
import contextlib
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import orjson
import pytest

from shared.model.addresses import AddressPolicy
from shared.outbound import certificates as certificate_contexts
from shared.outbound.client import Attempt, Outbound
from tests.harness.certificates import Certificates
from tests.outbound.conftest import LOOPBACK
from tests.outbound.odd_certificates import make_self_signed, make_server_certificate
from tests.outbound.receivers import Respond, hang_up, never, receiving, saying, status

EMPTY = "Content-Length: 0\r\n\r\n"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("certificates"))
    made.make("authority")
    made.make("stranger")
    make_server_certificate(made, "receiver", by="authority")
    make_server_certificate(made, "unknown", by="stranger")
    make_server_certificate(made, "expired", by="authority", days=-1)
    make_server_certificate(made, "other", by="authority", alternative="DNS:other.example")
    many = ",".join(f"DNS:{letter}.example" for letter in "abcde")
    make_server_certificate(made, "many", by="authority", alternative=f"{many},DNS:<b>")
    make_self_signed(made, "alone")
    return made


async def loopback(_: str) -> list[str]:
    return ["127.0.0.1"]


async def nowhere(_: str) -> list[str]:
    raise OSError(-2, "Name or service not known")


async def empty(_: str) -> list[str]:
    return []


@dataclass(frozen=True)
class Case:
    """A call to `url`, with the port of a receiver that responds so, and what its failure is called."""

    error: str
    detail: str
    url: str = "http://127.0.0.1:{port}/"
    respond: Respond = never
    server: str = ""
    policy: AddressPolicy = LOOPBACK
    lookup: object = loopback
    timeout_s: float = 10
    headers: dict[str, str] = field(default_factory=dict)


FAR = AddressPolicy()
HTTPS = "https://127.0.0.1:{port}/"
CASES = {
    "a loopback address": Case(
        "address-refused",
        "loopback address blocked (NOTIFY_ALLOW_PRIVATE_CALLBACKS): 127.0.0.1 leads to a network",
        policy=FAR,
    ),
    "a private address": Case(
        "address-refused",
        "private address blocked (NOTIFY_ALLOW_PRIVATE_CALLBACKS): 10.1.2.3 leads to a network",
        url="http://10.1.2.3:{port}/",
    ),
    "a name of a private address": Case(
        "address-refused",
        "loopback address blocked (NOTIFY_ALLOW_PRIVATE_CALLBACKS): hooks.example leads to a network",
        url="http://hooks.example:{port}/",
        policy=FAR,
    ),
    "a metadata address": Case(
        "address-refused",
        "metadata address blocked: 169.254.169.254 leads to one, and no setting allows it",
        url="http://169.254.169.254/",
    ),
    "no such name": Case(
        "not-resolved",
        "no address found for hooks.example: Name or service not known",
        url="http://hooks.example/",
        lookup=nowhere,
    ),
    "a name without addresses": Case(
        "not-resolved",
        "no address found for hooks.example: no address",
        url="http://hooks.example/",
        lookup=empty,
    ),
    "another name": Case(
        "tls-failed",
        "certificate is for other.example, not for hooks.example",
        url="https://hooks.example:{port}/",
        server="other",
    ),
    "many other names": Case(
        "tls-failed",
        "certificate is for a.example, b.example, c.example and 2 more, not for hooks.example",
        url="https://hooks.example:{port}/",
        server="many",
    ),
    "another address": Case(
        "tls-failed", "certificate is for other.example, not for 127.0.0.1", url=HTTPS, server="other"
    ),
    "an expired certificate": Case("tls-failed", "certificate has expired", url=HTTPS, server="expired"),
    "a self-signed certificate": Case("tls-failed", "certificate is self-signed", url=HTTPS, server="alone"),
    "an unknown authority": Case(
        "tls-failed",
        "certificate comes from an unknown authority, or the receiver does not send the whole chain",
        url=HTTPS,
        server="unknown",
    ),
    "an old TLS": Case(
        "tls-failed", "127.0.0.1:{port} offers no TLS version from 1.2 on", url=HTTPS, server="old"
    ),
    "a wanted client certificate": Case(
        "tls-failed",
        "127.0.0.1:{port} demands a client certificate: set one for the channel",
        url=HTTPS,
        server="demanding",
    ),
    "no TLS": Case(
        "tls-failed",
        "127.0.0.1:{port} does not speak TLS: is the URL's scheme or port wrong?",
        url=HTTPS,
        server="plain",
    ),
    "a closed connection": Case(
        "closed", "127.0.0.1:{port} closed the connection before a response", respond=hang_up
    ),
    "another protocol": Case(
        "bad-answer", "127.0.0.1:{port} did not respond by HTTP/1.1", respond=saying("SSH-2.0-x\r\n\r\n")
    ),
    "no response": Case(
        "timed-out",
        "timed out after 0.3 s: waited for the response of 127.0.0.1:{port}",
        respond=never,
        timeout_s=0.3,
    ),
    "a header that is none": Case(
        "not-sendable",
        "the URL or a header makes no valid HTTP request: change the channel's URL or headers",
        headers={"X": "a\r\nY: b"},
    ),
    "no HTTP URL": Case(
        "not-sendable",
        "the URL or a header makes no valid HTTP request: change the channel's URL or headers",
        url="ftp://127.0.0.1:{port}/",
    ),
}


def tls_of(certificates: Certificates, server: str) -> ssl.SSLContext | None:
    if server in ("", "plain"):
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    name = "receiver" if server in ("old", "demanding") else server
    context.load_cert_chain(certificates.pem(name), certificates.key(name))
    if server == "old":
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    if server == "demanding":
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates.pem("authority"))
    return context


async def test_a_certificate_whose_names_are_unknown_is_still_refused_in_words(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Python does not show the certificate of a failed handshake."""
    monkeypatch.setattr(certificate_contexts, "NamingSSLObject", ssl.SSLObject)
    async with (
        receiving(never, tls=tls_of(certificates, "other")) as receiver,
        Outbound(policy=LOOPBACK, lookup=loopback, ca=certificates.pem("authority")) as calls,
    ):
        attempt = await calls.send("PUT", f"https://hooks.example:{receiver.port}/", headers={}, body=b"")

    assert (attempt.error, attempt.detail) == (
        "tls-failed",
        "certificate is for another name than hooks.example",
    )


@contextlib.asynccontextmanager
async def serving(serve: Callable[[socket.socket], object]) -> AsyncIterator[int]:
    """The port of a receiver that serves one connection in a thread, by blocking calls.

    asyncio's TLS drops the alert with which a handshake fails; a blocking socket sends it, as others do.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(20)

    def work() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(20)
                serve(connection)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass

    thread = asyncio.create_task(asyncio.to_thread(work))
    try:
        yield listening.getsockname()[1]
    finally:
        await thread
        listening.close()


def plain(connection: socket.socket) -> None:
    connection.recv(1)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def refusing(context: ssl.SSLContext) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        with (
            context.wrap_socket(connection.dup(), server_side=True, do_handshake_on_connect=False) as tls,
            contextlib.suppress(ssl.SSLError),
        ):
            tls.do_handshake()

    return serve


@contextlib.asynccontextmanager
async def listening(case: Case, certificates: Certificates) -> AsyncIterator[int]:
    context = tls_of(certificates, case.server)
    if case.server == "plain":
        async with serving(plain) as port:
            yield port
    elif context is not None:
        async with serving(refusing(context)) as port:
            yield port
    else:
        async with receiving(case.respond) as receiver:
            yield receiver.port


def calling(case: Case, certificates: Certificates) -> AbstractAsyncContextManager[Outbound]:
    return Outbound(
        policy=case.policy,
        ca=certificates.pem("authority"),
        lookup=case.lookup,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("name", CASES)
async def test_a_failure_is_said_in_words(certificates: Certificates, name: str) -> None:
    case = CASES[name]
    async with listening(case, certificates) as port, calling(case, certificates) as calls:
        attempt = await calls.send(
            "POST",
            case.url.format(port=port),
            headers=case.headers,
            body=b"{}",
            timeout_s=case.timeout_s,
        )

    assert (attempt.status, attempt.error) == (None, case.error)
    assert attempt.detail.startswith(case.detail.format(port=port)), attempt.detail


async def test_a_refused_connection(outbound: Outbound) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        attempt = await outbound.send("POST", f"http://127.0.0.1:{port}/", headers={}, body=b"")

    assert (attempt.error, attempt.detail) == ("not-connected", f"connection refused by 127.0.0.1:{port}")


async def test_words_do_not_tell_the_address_behind_a_name() -> None:
    async def inside(_: str) -> list[str]:
        return ["10.98.76.54"]

    async with Outbound(policy=FAR, lookup=inside) as calls:
        attempt = await calls.send("POST", "http://redis.internal.example/", headers={}, body=b"")

    assert attempt.error == "address-refused"
    assert "10.98.76.54" not in attempt.detail


async def answer(outbound: Outbound, text: str | bytes, *, close: bool = False) -> Attempt:
    async with receiving(saying(text, close=close)) as receiver:
        return await outbound.send("POST", receiver.url(), headers={}, body=b"{}")


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_the_method_is_the_callers(outbound: Outbound, method: str) -> None:
    async with receiving(status(202)) as receiver:
        attempt = await outbound.send(method, receiver.url(), headers={}, body=b"{}")

    assert receiver.heads[0].startswith(f"{method} /callback HTTP/1.1\r\n")
    assert (attempt.status, attempt.error, attempt.detail) == (202, "", "")


async def test_a_response_is_kept(outbound: Outbound) -> None:
    attempt = await answer(
        outbound,
        "HTTP/1.1 429 Slow\r\nRetry-After: 17\r\nX-One: a\r\nx-one: b\r\nContent-Length: 4\r\n\r\nslow",
    )

    assert (attempt.status, attempt.retry_after, attempt.response_body) == (429, "17", b"slow")
    assert attempt.response_headers == {"retry-after": "17", "x-one": "a, b", "content-length": "4"}


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirect_is_a_failure_that_says_where_to(outbound: Outbound, code: int) -> None:
    attempt = await answer(outbound, f"HTTP/1.1 {code} Go\r\nLocation: https://new.example/x\r\n{EMPTY}")

    assert (attempt.status, attempt.error, attempt.location) == (code, "", "https://new.example/x")
    assert attempt.detail == (
        "redirect to https://new.example/x: "
        "no redirect is followed, so set the channel's URL to the final one"
    )


@pytest.mark.parametrize(
    ("framing", "kept"),
    [
        (f"Content-Length: 5000\r\n\r\n{'x' * 5000}", b"x" * 2048),
        (f"Content-Length: 1000000\r\n\r\n{'x' * 3000}", b"x" * 2048),
        ("Content-Length: 100\r\n\r\npart", b"part"),
        ("Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n", b"abcd"),
        (EMPTY, b""),
    ],
)
async def test_the_first_2_kib_of_a_response_are_kept(outbound: Outbound, framing: str, kept: bytes) -> None:
    attempt = await answer(outbound, f"HTTP/1.1 500 No\r\n{framing}", close="part" in framing)

    assert (attempt.status, attempt.response_body) == (500, kept)


@pytest.mark.parametrize(
    "headers",
    [
        *("Retry-After: 1\r\n" * 90, "X-A: b\r\n" * 90, f"X: {'y' * 8000}\r\n"),
        *(f"Retry-After: {'9' * 8000}\r\n", f"Location: {'l' * 8000}\r\n"),
        "".join(f"X-{number}: {number}\r\n" for number in range(90)),
        "".join(f"X-{number}: {'y' * 500}\r\n" for number in range(90)),
    ],
)
async def test_what_is_kept_of_the_headers_is_bounded(outbound: Outbound, headers: str) -> None:
    attempt = await answer(outbound, f"HTTP/1.1 503 No\r\n{headers}{EMPTY}")

    assert attempt.status == 503
    assert len(attempt.response_headers) <= 32
    assert sum(len(name) + len(value) for name, value in attempt.response_headers.items()) <= 4200
    assert len(attempt.retry_after) <= 64
    assert len(attempt.location) <= 1024


async def test_what_a_receiver_sends_can_be_shown(outbound: Outbound) -> None:
    """As JSON, and in a terminal: header values are bytes that need not be text."""
    headers = b"X: \xff\xe9\r\nLocation: \xff\xc3\xa9\r\nRetry-After: \xf0\x28\r\n"
    attempt = await answer(outbound, b"HTTP/1.1 302 Go\r\n" + headers + EMPTY.encode())

    assert attempt.location == "\ufffdé"
    orjson.dumps([dict(attempt.response_headers), attempt.location, attempt.retry_after, attempt.detail])
