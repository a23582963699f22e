"""One call as aiohttp makes it: its connection, whether that has carried others, and how it is given up."""

import asyncio
import time
import weakref
from typing import Any

import aiohttp

from shared.outbound.response_head import has_begun, status_behind

_BODY_LIMIT_BYTES = 8 * 1024
_KEPT_BODY_BYTES = 2 * 1024
_BODY_WAIT_S = 0.25


class ConnectionLost(aiohttp.ClientError):
    """The connection was lost before a response. aiohttp would retry by itself after an error of its own."""


# The last request on each connection.
_LAST: weakref.WeakKeyDictionary[Any, object] = weakref.WeakKeyDictionary()


class Request(aiohttp.ClientRequest):
    """A request that knows its connection, which must be aborted, not closed, if the call is given up.

    `reused`: the connection has carried other requests, so the receiver may have closed it before this one.
    """

    transport: asyncio.Transport | None = None
    reused = False
    _protocol: Any = None

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        self.transport, self._protocol = conn.transport, conn.protocol
        self._protocol.begin()
        self.reused = self._protocol in _LAST
        self._id = _LAST[self._protocol] = object()
        return await super().send(conn)

    @property
    def status(self) -> int | None:
        return status_behind(self._protocol)

    @property
    def has_begun(self) -> bool:
        """Whether anything of a response has arrived."""
        return has_begun(self._protocol)

    @property
    def is_last(self) -> bool:
        """No later request has used the connection."""
        return self._protocol is not None and _LAST.get(self._protocol) is self._id


class Call:
    """One call, followed through aiohttp as its middleware."""

    def __init__(self) -> None:
        self.has_response = False
        self.reused = False
        self._started_s = time.monotonic()
        self._request: Request | None = None

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        assert isinstance(request, Request)
        try:
            return await handler(request)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ClientConnectionError, OSError) as exc:
            raise ConnectionLost from exc
        finally:
            self._request, self.reused = request, request.reused

    @property
    def took_ms(self) -> int:
        return round((time.monotonic() - self._started_s) * 1000)

    @property
    def has_connection(self) -> bool:
        return self._request is not None and self._request.transport is not None

    @property
    def status(self) -> int | None:
        """The status that has arrived, also if the rest of the response could not be parsed."""
        return self._request.status if self._request is not None else None

    @property
    def has_begun(self) -> bool:
        return self._request is not None and self._request.has_begun

    def abort(self) -> None:
        """Aborts the connection: closing would wait for a receiver that does not read what was sent."""
        if self._request is not None and self._request.transport is not None:
            self._request.transport.abort()

    def abort_if_stuck(self) -> None:
        """Aborts the connection if the response came before all was sent, or was not read to its end."""
        # The connection may be back in the pool, and carry another call.
        if self._request is None or not self._request.is_last or self._request.transport is None:
            return
        if self._request.transport.is_closing() or self._request.transport.get_write_buffer_size():
            self._request.transport.abort()


async def read_body(response: aiohttp.ClientResponse) -> bytes:
    """The first 2 KiB of the body, or what has come of them in time.

    Reads a short body to its end, so that the connection can be kept; closes the connection otherwise.
    """
    kept = bytearray()
    left = _BODY_LIMIT_BYTES
    try:
        async with asyncio.timeout(_BODY_WAIT_S):
            while left > 0 and (chunk := await response.content.read(left)):
                left -= len(chunk)
                kept += chunk[: _KEPT_BODY_BYTES - len(kept)]
    except (aiohttp.ClientError, OSError):
        pass
    finally:
        response.close()
    return bytes(kept)
