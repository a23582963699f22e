"""uvicorn with both of its parsers as a receiver of webhooks: `python -m tests.stock.python.asgi CERT KEY`.

A body is refused while it comes, as ASGI's frameworks do.
"""

import asyncio
import gzip
import socket
import sys
from typing import Any

import uvicorn

from tests.stock.python.records import LIMIT_BYTES, decided, record, report


async def app(scope: Any, receive: Any, send: Any) -> None:
    behaviour = scope["path"].split("/")[1]
    if behaviour == "early":
        _record(scope, 200, None)
        await _respond(send, 200, {}, [b""])
        return
    body = await _body(receive, LIMIT_BYTES if behaviour == "limit" else sys.maxsize)
    if body is None:
        _record(scope, 413, None)
        await _respond(send, 413, {}, [b"too large"])
        return
    status = decided(behaviour, scope["path"], body)
    _record(scope, status, body)
    if behaviour == "slow":
        await asyncio.sleep(0.15)
    headers, pieces = _response(behaviour, status, scope["path"])
    await _respond(send, status, headers, pieces)


async def _body(receive: Any, limit: int) -> bytes | None:
    """None if it is longer: nothing more is read then."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > limit:
            return None
        if not message.get("more_body"):
            return bytes(body)


def _response(behaviour: str, status: int, path: str) -> tuple[dict[str, str], list[bytes]]:
    match behaviour:
        case "no-content":
            return {}, [b""]
        case "no-content-with-body":
            # Frameworks write `null` for a handler that returns nothing.
            return {"content-length": "4"}, [b"null"]
        case "close":
            return {"connection": "close", "content-length": "2"}, [b"ok"]
        case "gzip":
            return {"content-encoding": "gzip"}, [gzip.compress(b"ok" * 100)]
        case "chunked" | "slow":
            return {}, [b"ok"] * 3
        case "long-body":
            return {"content-length": str(1_000_000)}, [b"long" * 250_000]
        case _:
            location = {"location": f"/elsewhere{path}"} if status >= 300 else {}
            return {**location, "content-length": "2"}, [b"ok"]


async def _respond(send: Any, status: int, headers: dict[str, str], pieces: list[bytes]) -> None:
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    for piece in pieces[:-1]:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": pieces[-1]})


def _record(scope: Any, status: int, body: bytes | None) -> None:
    headers = [(name.decode(), value.decode()) for name, value in scope["headers"]]
    version = f"HTTP/{scope['http_version']}"
    record(scope["path"], status, body, headers=headers, version=version, peer=tuple(scope["client"]))


async def main(cert: str, key: str) -> None:
    quiet: dict[str, Any] = {"log_level": "critical", "lifespan": "off"}
    tls: dict[str, Any] = {"ssl_certfile": cert, "ssl_keyfile": key}
    configs = {
        "http": uvicorn.Config(app, http="httptools", **quiet),
        "https": uvicorn.Config(app, http="httptools", **tls, **quiet),
        "h11": uvicorn.Config(app, http="h11", **quiet),
        "h11s": uvicorn.Config(app, http="h11", **tls, **quiet),
        "brief": uvicorn.Config(app, http="httptools", timeout_keep_alive=0, **quiet),
    }
    sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in configs}
    report({"ports": {name: listener.getsockname()[1] for name, listener in sockets.items()}})
    servers = (uvicorn.Server(config).serve([sockets[name]]) for name, config in configs.items())
    await asyncio.gather(*servers)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
