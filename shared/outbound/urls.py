"""Customers' URLs as they are called: byte by byte as they were given."""

import contextlib
import re
from urllib.parse import quote

from yarl import URL

_AUTHORITY_END = re.compile(r"[/?#]")
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")


def parsed(url: str) -> URL:
    """The URL as it was given: a receiver may compare it byte by byte. Only what is not ASCII is encoded.

    Raises ValueError.
    """
    if _UNSAFE.search(url):
        raise ValueError("not a URL")
    if url.isascii():
        return URL(url, encoded=True)
    scheme, slashes, rest = url.partition("//")
    end = _AUTHORITY_END.search(rest)
    at = len(rest) if end is None else end.start()
    authority, target = rest[:at], rest[at:]
    if not authority.isascii():
        host, colon, port = authority.partition(":")
        authority = f"{URL(f'http://{host}').raw_host}{colon}{port}"
    encoded = "".join(sign if sign.isascii() else quote(sign) for sign in target)
    return URL(scheme + slashes + authority + encoded, encoded=True)


def host_of(url: str) -> str:
    """The name that aiohttp will ask for; "" if the URL has none."""
    with contextlib.suppress(ValueError):
        host = parsed(url).raw_host or ""
        return host.rstrip(".") + "." if host.endswith("..") else host
    return ""


def origin_of(url: str) -> str:
    """Scheme and host: a path or query may hold a secret."""
    with contextlib.suppress(ValueError):
        parts = URL(url)
        return f"{parts.scheme}://{parts.host}"
    return ""


def place_of(url: str) -> str:
    """Host and port, for people."""
    with contextlib.suppress(ValueError):
        parts = parsed(url)
        if parts.raw_host:
            host = f"[{parts.raw_host}]" if ":" in parts.raw_host else parts.raw_host
            return f"{host}:{parts.port}"
    return ""
