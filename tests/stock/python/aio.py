"""aiohttp's server as a receiver of webhooks: `python -m tests.stock.python.aio CERT KEY`."""

import asyncio
import ssl
import sys
from collections import Counter

from aiohttp import web

from tests.stock.python.records import LIMIT_BYTES, decided, record, report

_requests: Counter[object] = Counter()


async def take(request: web.Request) -> web.StreamResponse:
    behaviour = request.path.split("/")[1]
    assert request.transport is not None
    _requests[request.transport] += 1
    if behaviour == "drops-reused" and _requests[request.transport] > 1:
        request.transport.abort()
        return web.Response()
    if behaviour == "early":
        _record(request, 200, None)
        return web.Response()
    if behaviour == "limit" and (request.content_length or 0) > LIMIT_BYTES:
        _record(request, 413, None)
        raise web.HTTPRequestEntityTooLarge(LIMIT_BYTES, request.content_length or 0)
    body = await request.read()
    status = decided(behaviour, request.path, body)
    _record(request, status, body)
    return await _response(behaviour, status, request)


async def _response(behaviour: str, status: int, request: web.Request) -> web.StreamResponse:
    match behaviour:
        case "no-content":
            return web.Response(status=status)
        case "no-content-with-body":
            return web.Response(status=status, body=b"ok")
        case "close":
            return web.Response(status=status, body=b"ok", headers={"Connection": "close"})
        case "slow":
            await asyncio.sleep(0.15)
            return await _in_pieces(request, pause_s=0.02)
        case "chunked":
            return await _in_pieces(request)
        case "gzip":
            response = web.Response(body=b"ok" * 100)
            response.enable_compression(web.ContentCoding.gzip)
            return response
        case "early-hints":
            assert isinstance(request.transport, asyncio.Transport)
            request.transport.write(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
            return web.Response()
        case "long-body":
            return web.Response(body=b"long" * 250_000)
        case _:
            headers = {"Location": f"/elsewhere{request.path}"} if status >= 300 else {}
            return web.Response(status=status, body=b"ok", headers=headers)


async def _in_pieces(request: web.Request, *, pause_s: float = 0) -> web.StreamResponse:
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    for _ in range(3):
        await response.write(b"ok")
        await asyncio.sleep(pause_s)
    return response


def _record(request: web.Request, status: int, body: bytes | None) -> None:
    assert request.transport is not None
    record(
        request.path,
        status,
        body,
        headers=request.headers.items(),
        version=f"HTTP/{request.version.major}.{request.version.minor}",
        peer=request.transport.get_extra_info("peername"),
    )


def _app() -> web.Application:
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_put("/{path:.*}", take)
    return app


async def main(cert: str, key: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    runner = web.AppRunner(_app())
    await runner.setup()
    sites = {
        "http": web.TCPSite(runner, "127.0.0.1", 0),
        "https": web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context),
    }
    ports = {}
    for name, site in sites.items():
        await site.start()
        assert isinstance(site._server, asyncio.Server)
        ports[name] = site._server.sockets[0].getsockname()[1]
    report({"ports": ports})
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
