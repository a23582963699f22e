"""The status line of a response, read beside aiohttp's parser.

Some receivers send after a valid head what the parser refuses: a chunked end or a body after a 204, headers
without a bound. The status is in, and the receiver has decided: only the connection is of no more use. The
same holds when that comes a moment later, while the connection is kept.
"""

import re
from collections.abc import Mapping
from typing import Any

from aiohttp.client_proto import ResponseHandler

_STATUS = re.compile(rb"HTTP/1\.[01] (1[0-9]{2}|[2-5][0-9]{2})(?: [^\r\n]*)?\r?\n")
_NO_CONTENT = 204
_END = re.compile(rb"\r?\n\r?\n")
# As long as a status line may be, and the heads of 1xx responses before it.
_LIMIT_BYTES = 16 * 1024
# What aiohttp's parser takes.
_READ_BUFFER_BYTES = 8 * 1024
_LINE_LIMIT_BYTES = 8 * 1024
_HEADERS_LIMIT = 100


class HeadReader(ResponseHandler):
    """A connection that remembers the final status of the response under way."""

    status: int | None = None
    has_begun = False
    _head: bytes | None = None
    _was_used = False

    def begin(self) -> bool:
        """A request is about to be sent. Returns whether the connection has carried another one."""
        self.set_response_params(
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=_READ_BUFFER_BYTES,
            max_line_size=_LINE_LIMIT_BYTES,
            max_field_size=_LINE_LIMIT_BYTES,
            max_headers=_HEADERS_LIMIT,
        )
        self.status, self.has_begun, self._head = None, False, b""
        was_used, self._was_used = self._was_used, True
        return was_used

    async def drained(self) -> None:
        """Waits until the connection takes more. Raises ClientError once it is lost."""
        await self._drain_helper()

    def data_received(self, data: bytes) -> None:
        # aiohttp calls it without data, too, to go on with what it has.
        if data and self._is_complete() and self.transport is not None:
            # Read later, it would be the response to the next request.
            self.transport.abort()
            return
        self.has_begun = self.has_begun or bool(data)
        if self._head is not None:
            self._read(data)
        super().data_received(data)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Takes a parsed head."""
        message, _ = data
        if message.code == _NO_CONTENT and _announces_body(message.headers):
            # A body may follow in spite of it, and meet the next request.
            self.force_close()
        super().feed_data(data, size)

    def _is_complete(self) -> bool:
        """Whether the response has ended, and no other request has begun."""
        return self.status is not None and self._payload is not None and self._payload.is_eof()

    def _read(self, data: bytes) -> None:
        assert self._head is not None
        head = self._head + data[:_LIMIT_BYTES]
        while (line := _STATUS.match(head)) is not None:
            status = int(line[1])
            # 101 is final: the connection is another protocol's.
            if status >= 200 or status == 101:
                self.status, self._head = status, None
                return
            end = _END.search(head, line.end() - 2)
            if end is None:
                break
            head = head[end.end() :]
        self._head = head if len(head) <= _LIMIT_BYTES else None


def _announces_body(headers: Mapping[str, str]) -> bool:
    return "Transfer-Encoding" in headers or headers.get("Content-Length", "0").strip() != "0"
