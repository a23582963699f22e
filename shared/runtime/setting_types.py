"""The types of settings, and how the texts of the environment become values.

A converter leaves what it does not know as it is, for pydantic to refuse.
"""

import ipaddress
import re
import ssl
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
LongSeconds = Annotated[float, Field(gt=0, le=366 * 86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Rate = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=1024, le=1024**3)]
Limit = Annotated[int, Field(ge=1, le=10**9)]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# The form that browsers send: no path, no default port, no trailing slash.
_ORIGIN = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_EVERY_NETWORK = ("0.0.0.0/0", "::/0")


def lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def year(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def networks(value: object) -> object:
    """`1` is every network, `0` none; else a list."""
    if not isinstance(value, str):
        return value
    if value.lower() in ("0", "false"):
        return ()
    names = _EVERY_NETWORK if value.lower() in ("1", "true") else value.split(",")
    try:
        return tuple(ipaddress.ip_network(name.strip()) for name in names)
    except ValueError:
        raise ValueError("should be 1, or networks as in 10.0.0.0/8,fd00::/8") from None


def origins(value: object) -> object:
    """`*` is every origin, `none` no origin; else a list."""
    if not isinstance(value, str):
        return value
    names = () if value.strip().lower() == "none" else tuple(name.strip() for name in value.split(","))
    if names != ("*",) and not all(_ORIGIN.fullmatch(name) for name in names):
        raise ValueError("should be *, none, or origins as in https://app.example,http://localhost:3000")
    return tuple(name.lower() for name in names)


def check_certificate(certificate: Path, key: Path) -> None:
    """Raises ValueError unless they can be used, together."""
    try:
        # Without a password argument OpenSSL would ask for one at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise ValueError(f"cannot be used with {certificate}: {error.strerror}") from None


def check_authorities(file: Path) -> None:
    """Raises ValueError unless it holds certificates."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except OSError as error:
        raise ValueError(f"should be a PEM file of certificates: {error.strerror}") from None


def check_proxy(url: str) -> None:
    """Raises ValueError, which does not quote the URL: it may hold a password."""
    try:
        parts = urlsplit(url)
        is_proxy = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_proxy = False
    if not is_proxy or parts.path not in ("", "/") or parts.query or parts.fragment or not url.isprintable():
        raise ValueError("should be the URL of a forward proxy, as in http://user:password@proxy:3128")
