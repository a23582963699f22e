"""A request head that a connection has sent before.

A client sends the same head with every request of a connection, but for the length of the body. Such a head
has passed the parser and every check, so a request that begins with the same bytes is read without them.
"""

from hmac import compare_digest
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared.runtime.http.hot_routes import HotRequest, HotRoute

# Of each connection that has published.
_LONGEST = 2048
_LENGTH_DIGITS = 9


class Head:
    """The headers of a hot request but its length. Names are in lower case.

    `memo` is for what the route reads from them: it lives as long as the client sends the same ones.
    """

    __slots__ = ("headers", "memo")

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        self.headers = [header for header in headers if header[0] != b"content-length"]
        self.memo: Any = None


class KnownHead:
    """A head, as the bytes before and behind the length of the body."""

    __slots__ = ("_before", "_behind", "head", "route")

    def __init__(self, head: Head, route: "HotRoute", before: bytes, behind: bytes) -> None:
        self.head = head
        self.route = route
        self._before = before
        self._behind = behind

    def body_in(self, data: bytes) -> bytes | None:
        """The body, if the data is one whole request with this head, and nothing else."""
        # In a time that says nothing about a secret: a proxy may give a connection to many clients.
        start = len(self._before)
        if not compare_digest(data[:start], self._before):
            return None
        end = data.find(b"\r", start, start + _LENGTH_DIGITS + 1)
        rest = end + len(self._behind)
        if not compare_digest(data[end:rest], self._behind):
            return None
        body = data[rest:]
        return body if data[start:end] == b"%d" % len(body) else None


def known_head(
    data: bytes, request_line: bytes, request: "HotRequest", route: "HotRoute"
) -> KnownHead | None:
    """The head of a request that the parser has read, if the data is that request and nothing else.

    None if it is long, or in another form than clients send: that has to be parsed.
    """
    body = request.body
    size = len(data) - len(body)
    if size > _LONGEST or not data.endswith(b"\r\n\r\n" + body):
        return None
    first, *lines = data[: size - 4].split(b"\r\n")
    headers, at, end = [], 0, len(first)
    digits = str(len(body)).encode()
    for line in lines:
        name, _, value = line.partition(b":")
        end += 2 + len(line)
        if name.lower() == b"content-length" and line.endswith(b" " + digits) and not at:
            at = end - len(digits)
        else:
            headers.append((name.lower(), value.strip(b" \t")))
    # The parser has read something else, as a body in chunks, or more than this data.
    if first != request_line or headers != request.head.headers or not at:
        return None
    return KnownHead(request.head, route, data[:at], data[at + len(digits) : size])
