"""What the head of a request must have, besides what the parser requires (RFC 9112).

A request that a proxy and this server could read differently is refused.
"""

import re

# RFC 3986, 3.2.2, without the comma: it could separate several values.
_HOST = re.compile(rb"(?:(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})*|\[[A-Za-z0-9:.%_~-]+\])(?::[0-9]*)?")
_BLANKS = b" \t"


class RefusedHead(Exception):
    """The request is not served; the text says why."""


def check_host(version: str, value: bytes | None, *, count: int) -> None:
    """Raises RefusedHead. HTTP/1.1 needs exactly one Host, HTTP/1.0 may do without."""
    if count > 1:
        raise RefusedHead("the Host header must be given once")
    if value is None:
        if version != "1.0":
            raise RefusedHead("the Host header is missing")
    elif _HOST.fullmatch(value.strip(_BLANKS)) is None:
        raise RefusedHead("the Host header must be a host, and may have a port")


def check_version(version: str) -> None:
    """Raises RefusedHead. The parser accepts 0.9 and 2.0 too."""
    if version not in ("1.0", "1.1"):
        raise RefusedHead("the HTTP version must be 1.1 or 1.0")


def check_coding(version: str, value: bytes, *, count: int) -> None:
    """Raises RefusedHead for a Transfer-Encoding. The parser accepts other codings before `chunked`."""
    if version == "1.0":
        raise RefusedHead("HTTP/1.0 has no Transfer-Encoding")
    if count > 1 or value.strip(_BLANKS).lower() != b"chunked":
        raise RefusedHead("Transfer-Encoding must be chunked, once")


def has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a body follows the head."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" 0"))
        for name, value in headers
    )
