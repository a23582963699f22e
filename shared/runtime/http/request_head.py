"""What the head of a request must have, besides what the parser requires (RFC 9112).

A request that a proxy and this server could read differently is refused.
"""

import re
from collections.abc import Iterable

# RFC 3986, 3.2.2, without the comma: it could separate several values.
_HOST = re.compile(rb"(?:(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})*|\[[A-Za-z0-9:.%_~-]+\])(?::[0-9]*)?")
_BLANKS = b" \t"
# RFC 9112, 3.2: absolute form, as to a proxy. Credentials in it are ignored here.
_ABSOLUTE = re.compile(rb"(?:https?|wss?)://[^/?#@]+(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?", re.IGNORECASE)

SINGLE = frozenset(
    {
        *(b"authorization", b"content-type", b"origin"),
        *(b"x-api-accesstoken", b"x-api-secretkey", b"x-auth-token"),
    }
)
"""Headers with one value. Two of them could be read differently by a proxy and by this server.

Content-Length, Host, Idempotency-Key and those of a WebSocket handshake have checks of their own.
"""
_NAMES = {b"x-api-accesstoken": "X-API-AccessToken", b"x-api-secretkey": "X-API-SecretKey"}


class RefusedHead(Exception):
    """The request is not served; the text says why."""

    def __init__(self, text: str, *, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


def members(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """The members of a header that is a list, from all its lines, without empty ones (RFC 9110, 5.6.1)."""
    lines = b",".join(value for given, value in headers if given == name)
    return [member for each in lines.split(b",") if (member := each.strip(_BLANKS))]


def given_twice(name: bytes) -> RefusedHead:
    """The error for one of SINGLE that came more than once."""
    shown = _NAMES.get(name) or name.decode().title()
    return RefusedHead(f"the {shown} header must be given once")


def origin_form(method: bytes, url: bytes) -> bytes:
    """Path and query of a request's URL, byte for byte. Raises RefusedHead."""
    if method == b"CONNECT":
        raise RefusedHead("the method CONNECT is for proxies, and this is none")
    if not url.isascii():
        raise bad_url()
    if b"#" in url:
        raise RefusedHead("the URL must have no fragment; write a # as %23")
    if url.startswith(b"/") or (url == b"*" and method == b"OPTIONS"):
        return url
    absolute = _ABSOLUTE.fullmatch(url)
    if absolute is None:
        raise bad_url()
    return (absolute["path"] or b"/") + (absolute["query"] or b"")


def bad_url() -> RefusedHead:
    return RefusedHead("the URL must be a path, or an http or https URL without credentials, all in ASCII")


def check_expectation(values: list[bytes]) -> bool:
    """Whether the client waits for a 100. Raises RefusedHead, a 417, for any other expectation."""
    expected = {each.lower() for each in members([(b"expect", value) for value in values], b"expect")}
    if expected - {b"100-continue"}:
        raise RefusedHead("Expect must be 100-continue", status=417)
    return bool(expected)


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
