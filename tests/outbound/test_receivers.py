"""Whatever a receiver does, a call ends in time with a status or an error, and needs little memory."""

import asyncio
import tracemalloc

import pytest

from shared.outbound.client import Attempt, Outbound
from tests.harness.waiting import wait_until
from tests.outbound.receivers import Receiver, hang_up, never, receiving, saying, status

JSON = b'{"notifications":[]}'
MEGABYTE = 1024 * 1024


async def put(outbound: Outbound, receiver: Receiver, body: bytes = JSON, **headers: str) -> Attempt:
    return await outbound.send("PUT", receiver.url(), headers=headers, body=body)


def result(attempt: Attempt) -> tuple[int | None, str, bool]:
    return attempt.status, attempt.error, attempt.accepted


@pytest.mark.parametrize(
    ("code", "accepted", "outcome"),
    [
        *((200, True, "accepted"), (204, True, "accepted"), (201, False, "2xx"), (202, False, "2xx")),
        *((302, False, "3xx"), (400, False, "4xx"), (410, False, "4xx"), (500, False, "5xx")),
    ],
)
async def test_only_200_and_204_are_success(
    outbound: Outbound, code: int, outcome: str, *, accepted: bool
) -> None:
    async with receiving(status(code)) as receiver:
        attempt = await put(outbound, receiver)

    assert result(attempt) == (code, "", accepted)
    assert attempt.outcome == outcome


async def test_a_request_is_a_put_with_the_body_and_the_customers_headers(outbound: Outbound) -> None:
    async with receiving(status(200)) as receiver:
        await put(outbound, receiver, Authorization="Bearer x")

    assert receiver.heads[0].startswith("PUT /callback HTTP/1.1\r\n")
    assert receiver.bodies == [JSON]
    assert receiver.header("authorization") == ["Bearer x"]
    assert receiver.header("content-type") == ["application/json"]
    assert receiver.header("content-length") == [str(len(JSON))]
    assert receiver.header("accept-encoding") == ["identity"]
    assert receiver.header("user-agent") == ["notification-gateway"]
    assert receiver.header("host") == [f"127.0.0.1:{receiver.port}"]


async def test_a_customers_own_content_type_and_user_agent_win(outbound: Outbound) -> None:
    async with receiving(status(200)) as receiver:
        await outbound.send(
            "PUT", receiver.url(), headers={"content-type": "text/x", "USER-AGENT": "mine"}, body=JSON
        )

    assert receiver.header("content-type") == ["text/x"]
    assert receiver.header("user-agent") == ["mine"]


async def test_a_path_is_not_normalized(outbound: Outbound) -> None:
    async with receiving(status(200)) as receiver:
        base = f"http://127.0.0.1:{receiver.port}"
        for path in ("/a/../b%2f%7E?c=+%20&d={e}", "/ä?ö=ü", "/%2f%7e%41/../ä?b=%41+c"):
            await outbound.send("PUT", base + path, headers={}, body=JSON)

    targets = [head.split(" ")[1] for head in receiver.heads]
    assert targets == [
        "/a/../b%2f%7E?c=+%20&d={e}",
        "/%C3%A4?%C3%B6=%C3%BC",
        "/%2f%7e%41/../ä?b=%41+c".replace("ä", "%C3%A4"),
    ]


async def test_a_redirect_is_not_followed(outbound: Outbound) -> None:
    async with receiving(status(200)) as elsewhere:
        location = f"Location: {elsewhere.url()}\r\n"
        async with receiving(status(307, headers=location)) as receiver:
            attempt = await put(outbound, receiver)

    assert result(attempt) == (307, "", False)
    assert elsewhere.connections == 0


async def test_cookies_are_not_kept(outbound: Outbound) -> None:
    async with receiving(status(200, headers="Set-Cookie: a=b\r\n")) as receiver:
        await put(outbound, receiver)
        await put(outbound, receiver)

    assert receiver.header("cookie") == []


async def test_proxies_of_the_environment_are_not_used(
    outbound: Outbound, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiving(status(500)) as proxy, receiving(status(200)) as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        attempt = await put(outbound, receiver)

    assert attempt.accepted
    assert proxy.connections == 0


@pytest.mark.parametrize("body", ["", "x" * 8192])
async def test_a_connection_is_kept_after_a_short_response(outbound: Outbound, body: str) -> None:
    async with receiving(status(200, body=body)) as receiver:
        assert all([(await put(outbound, receiver)).accepted for _ in range(3)])

        assert receiver.connections == 1


async def test_no_response_in_time(hasty: Outbound) -> None:
    async with receiving(never) as receiver:
        attempt = await put(hasty, receiver)

        assert result(attempt) == (None, "timed-out", False)
        assert attempt.took_ms >= 300
        await wait_until(lambda: receiver.ended == 1, what="the end of the connection")


async def test_a_dripping_head_meets_the_same_deadline(hasty: Outbound) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X: y\r\n")
            await writer.drain()
            await asyncio.wait([gone], timeout=0.05)
            if reader.at_eof():
                return

    gone = asyncio.get_running_loop().create_future()
    async with receiving(drip) as receiver:
        assert result(await put(hasty, receiver)) == (None, "timed-out", False)
        gone.cancel()


async def test_a_dripping_body_is_success(outbound: Outbound) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
        await reader.read()

    async with receiving(drip) as receiver:
        assert result(await put(outbound, receiver)) == (200, "", True)
        await wait_until(lambda: receiver.ended == 1, what="the end of the connection")


async def test_an_endless_body_is_success_and_is_not_kept(outbound: Outbound) -> None:
    piece = b"x" * 65536

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1000 * MEGABYTE))
        while True:
            writer.write(piece)
            await writer.drain()

    async with receiving(pour) as receiver:
        await put(outbound, receiver)
        tracemalloc.start()
        try:
            attempts = await asyncio.gather(*(put(outbound, receiver) for _ in range(10)))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert [result(attempt) for attempt in attempts] == [(200, "", True)] * 10
        assert peak < 10 * MEGABYTE
        await wait_until(lambda: receiver.ended == 11, what="the end of the connections")


@pytest.mark.parametrize(
    "text",
    [
        "\x00\x01\x02garbage\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 600 OK\r\nContent-Length: x\r\n\r\n",
        f"HTTP/1.1 200 {'y' * MEGABYTE}\r\n\r\n",
        "HTTP/1.1 103 Early\r\n" + "X: y\r\n" * 100_000 + "\r\n",
    ],
)
async def test_garbage_instead_of_a_status_line(outbound: Outbound, text: str) -> None:
    async with receiving(saying(text, close=True)) as receiver:
        assert result(await put(outbound, receiver)) == (None, "bad-answer", False)
        assert receiver.connections == 1


NO_CONTENT = "HTTP/1.1 204 No Content\r\n"
BEHIND_A_STATUS = {
    "a chunked end of a 204": f"{NO_CONTENT}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks of a 204": f"{NO_CONTENT}Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "a body of a 204": f"{NO_CONTENT}Content-Length: 2\r\n\r\nok",
    "a body of a 204 without a length": f"{NO_CONTENT}\r\n{{}}",
    "a body of a 204 behind an interim response": f"HTTP/1.1 100 Continue\r\n\r\n{NO_CONTENT}\r\nok",
    "a length that is no number": "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    "two lengths": "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a length and chunks": "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n"
    "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a huge header": f"HTTP/1.1 200 OK\r\nX: {'y' * MEGABYTE}\r\n\r\n",
    "many headers": "HTTP/1.1 200 OK\r\n" + "X: y\r\n" * 100_000 + "\r\n",
    "a malformed header": "HTTP/1.1 200 OK\r\nno header\r\n\r\n",
    "a header with a blank in its name": "HTTP/1.1 200 OK\r\nX y: z\r\n\r\n",
    "malformed chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "cut chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    "no gzip": "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok",
    "a second response": f"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n{NO_CONTENT}\r\n",
}


@pytest.mark.parametrize("code", ["as it is", "503"])
@pytest.mark.parametrize("name", BEHIND_A_STATUS)
async def test_the_status_decides_whatever_follows_it(outbound: Outbound, name: str, code: str) -> None:
    text = BEHIND_A_STATUS[name]
    if code == "503":
        text = text.replace("HTTP/1.1 204", "HTTP/1.1 503", 1).replace("HTTP/1.1 200", "HTTP/1.1 503", 1)
    async with receiving(saying(text, close=True)) as receiver:
        attempts = [await put(outbound, receiver) for _ in range(3)]

        assert {attempt.accepted for attempt in attempts} == {code != "503"}
        assert {attempt.error for attempt in attempts} == {""}
        assert len(receiver.heads) == receiver.connections == 3, "no connection is used again"


LISTS = {
    "codings": "Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "codings in two lines": "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked with blanks and empty members": "Transfer-Encoding:\t, Chunked\t,\r\n\r\n0\r\n\r\n",
    "a list of lengths": "Content-Length: 5, 5\r\n\r\nhello",
    "the same length twice": "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a length with blanks": "Content-Length:\t5 \t\r\n\r\nhello",
    "close among others": "Connection: close, foo\r\nContent-Length: 5\r\n\r\nhello",
    "close in a line of its own": "Connection: foo\r\nConnection: CLOSE\r\nContent-Length: 0\r\n\r\n",
    "keep-alive and close": "Connection: keep-alive\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    "Retry-After twice": "Retry-After: 1\r\nRetry-After: Thu, 01 Jan 2026\r\nContent-Length: 0\r\n\r\n",
    "content codings": "Content-Encoding: gzip, br\r\nContent-Encoding:\r\nContent-Length: 5\r\n\r\nhello",
    "content types": "Content-Type: a/b, c/d\r\nContent-Type: ;;\r\nContent-Length: 5\r\n\r\nhello",
    "cookies": "Set-Cookie: a=b, c=d\r\nSet-Cookie: =;;\r\nContent-Length: 0\r\n\r\n",
    "bytes beyond ASCII": "X: \xff\xe9\r\nLocation: \xff\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("code", [200, 204, 410, 503])
@pytest.mark.parametrize("name", LISTS)
async def test_the_status_decides_whatever_lists_are_in_the_head(
    outbound: Outbound, name: str, code: int
) -> None:
    text = f"HTTP/1.1 {code} Word\r\n{LISTS[name]}".encode("latin-1")
    if code == 204:
        text = text.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    async with receiving(saying(text, close="close" in text.lower().decode("latin-1"))) as receiver:
        for number in range(1, 4):
            assert result(await put(outbound, receiver)) == (code, "", code in (200, 204))
            assert len(receiver.heads) == number, "each is sent once"


@pytest.mark.parametrize("framing", ["Content-Length: 4", "Transfer-Encoding: chunked"])
async def test_a_204_that_announces_a_body_ends_its_connection(outbound: Outbound, framing: str) -> None:
    """The body may come after the next request was sent."""

    async def late(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(receiver.heads) > receiver.connections:
            writer.write(b"null")
        writer.write(f"{NO_CONTENT}{framing}\r\n\r\n".encode())
        await writer.drain()

    async with receiving(late) as receiver:
        attempts = [await put(outbound, receiver) for _ in range(3)]

        assert [result(attempt) for attempt in attempts] == [(204, "", True)] * 3
        assert len(receiver.heads) == receiver.connections == 3


async def test_a_204_with_a_length_of_zero_keeps_its_connection(outbound: Outbound) -> None:
    async with receiving(status(204)) as receiver:
        assert all([(await put(outbound, receiver)).accepted for _ in range(3)])

        assert receiver.connections == 1


@pytest.mark.parametrize("code", [200, 204])
@pytest.mark.parametrize("stray", ["null", "HTTP/1.1 500 Late\r\nContent-Length: 0\r\n\r\n"])
async def test_what_comes_behind_a_response_ends_a_kept_connection(
    outbound: Outbound, code: int, stray: str
) -> None:
    """Else it would be taken for the next response."""
    idle = asyncio.Event()

    async def chat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = NO_CONTENT if code == 204 else "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"
        await saying(f"{head}\r\n")(reader, writer)
        if len(receiver.heads) == 1:
            await idle.wait()
            await saying(stray)(reader, writer)

    async with receiving(chat) as receiver:
        assert (await put(outbound, receiver)).accepted
        idle.set()
        # An idle one would end by itself after 15 s.
        await wait_until(lambda: receiver.ended == 1, within_s=8, what="the end of the connection")
        assert result(await put(outbound, receiver)) == (code, "", True)
        assert (receiver.connections, len(receiver.heads)) == (2, 2)


@pytest.mark.parametrize("part", ["", "HTTP/1.1 2", "HTTP/1.1 200 OK\r\nContent-Le"])
async def test_a_close_before_the_response_is_not_retried(outbound: Outbound, part: str) -> None:
    async with receiving(saying(part, close=True)) as receiver:
        assert result(await put(outbound, receiver)) == (None, "closed", False)
        assert len(receiver.heads) == 1


async def test_a_close_in_the_middle_of_the_body_is_success(outbound: Outbound) -> None:
    text = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"
    async with receiving(saying(text, close=True)) as receiver:
        assert result(await put(outbound, receiver)) == (200, "", True)


async def test_a_dead_kept_connection_is_replaced(outbound: Outbound) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(receiver.heads) == 2:
            await hang_up(reader, writer)
        await status(200)(reader, writer)

    async with receiving(once) as receiver:
        assert (await put(outbound, receiver)).accepted
        assert (await put(outbound, receiver)).accepted

        assert (receiver.connections, len(receiver.heads)) == (2, 3)


async def test_a_response_that_has_begun_is_not_asked_for_again(outbound: Outbound) -> None:
    """On a kept connection too: the receiver has read the request."""

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(receiver.heads) == 2:
            await saying("HTTP/1.1 200 OK\r\nContent-Le", close=True)(reader, writer)
        await status(200)(reader, writer)

    async with receiving(cut) as receiver:
        assert (await put(outbound, receiver)).accepted
        assert result(await put(outbound, receiver)) == (None, "closed", False)
        assert (receiver.connections, len(receiver.heads)) == (1, 2)


async def test_an_interim_response_is_skipped(outbound: Outbound) -> None:
    text = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"
    async with receiving(saying(text)) as receiver:
        assert result(await put(outbound, receiver)) == (204, "", True)


async def test_large_bodies_arrive_whole(outbound: Outbound) -> None:
    body = bytes(range(256)) * (4 * MEGABYTE // 256)
    async with receiving(status(200)) as receiver:
        assert (await put(outbound, receiver, body)).accepted

    assert receiver.bodies == [body]
    assert receiver.header("content-length") == [str(len(body))]
    assert receiver.header("transfer-encoding") == []


async def test_a_cancelled_call_leaves_nothing_open(outbound: Outbound) -> None:
    async with receiving(never) as receiver:
        call = asyncio.create_task(put(outbound, receiver))
        await wait_until(lambda: receiver.heads)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await wait_until(lambda: receiver.ended == 1)


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://127.0.0.1:1/\r\nX: y", {}),
        ("http://127.0.0.1:1/ x", {}),
        ("http://127.0.0.1:99999/", {}),
        ("ftp://127.0.0.1:1/", {}),
        ("127.0.0.1", {}),
        ("http://[::1/", {}),
        ("http://127.0.0.1:1/", {"X": "a\r\nY: b"}),
    ],
)
async def test_an_invalid_request_is_not_sent(outbound: Outbound, url: str, headers: dict[str, str]) -> None:
    attempt = await outbound.send("PUT", url, headers=headers, body=JSON)

    assert attempt.status is None
    assert attempt.error in ("not-sendable", "not-connected")
