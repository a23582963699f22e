"""What applications of tests respond with: the body of the request."""

from starlette.types import Receive, Send


async def echo(receive: Receive, send: Send, *, before: bytes = b"") -> None:
    """Reads the body, and responds with it behind `before`."""
    body, more = before, True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})
