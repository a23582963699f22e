"""The status line of a response, read beside aiohttp's parser.

Some receivers send after a valid head what the parser refuses: a chunked end or a body after a 204, headers
without a bound. The status is in, and the receiver has decided: only the connection is of no more use.
"""

import re
from typing import Any

from aiohttp.client_proto import ResponseHandler

_STATUS = re.compile(rb"HTTP/1\.[01] (1[0-9]{2}|[2-5][0-9]{2})(?: [^\r\n]*)?\r?\n")
_END = re.compile(rb"\r?\n\r?\n")
# As long as a status line may be, and the heads of 1xx responses before it.
_LIMIT_BYTES = 16 * 1024


class HeadReader(ResponseHandler):
    """A connection that remembers the final status of the response under way."""

    status: int | None = None
    has_begun = False
    _head: bytes | None = None

    def begin(self) -> None:
        """A request is about to be sent."""
        self.status, self.has_begun, self._head = None, False, b""

    def data_received(self, data: bytes) -> None:
        self.has_begun = True
        if self._head is not None:
            self._read(data)
        super().data_received(data)

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


def status_behind(protocol: Any) -> int | None:
    """The final status that has arrived on this connection for its last request."""
    return protocol.status if isinstance(protocol, HeadReader) else None


def has_begun(protocol: Any) -> bool:
    """Whether anything has arrived on this connection for its last request."""
    return isinstance(protocol, HeadReader) and protocol.has_begun
