"""The client's address of a request: the peer's, or the one that trusted proxies report."""

import ipaddress
from collections.abc import Sequence

from starlette.types import Scope

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_FORWARDED = b"x-forwarded-for"


def client_address(scope: Scope, *, trusted: Sequence[Network]) -> str:
    """The client's address; "" when it is unknown, as behind a Unix socket.

    Each proxy appends the address of its peer to X-Forwarded-For. So this reads the header from the end while
    the address before was a trusted proxy's, and never reaches what the client itself put in front.
    """
    address: str = (scope.get("client") or ("",))[0]
    lines = [value.decode("latin-1") for name, value in scope["headers"] if name == _FORWARDED]
    reported = [member for part in ",".join(lines).split(",") if (member := part.strip())]
    while reported and is_within(address, trusted):
        previous = _without_port(reported.pop())
        if not _is_address(previous):
            break
        address = previous
    return address


def block_of(address: str) -> str:
    """By what an address is counted: an IPv4 address itself, an IPv6 address by its first 64 bits.

    A holder of one IPv6 address has a /64 of them. A text that is no address stays as it is.
    """
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        # How a socket that listens for both reports an IPv4 client: all of them share one /64.
        return str(parsed.ipv4_mapped)
    return f"{ipaddress.IPv6Address(int(parsed) >> 64 << 64)}/64"


def peer_is_trusted(scope: Scope, *, trusted: Sequence[Network]) -> bool:
    """Does the connection come from a trusted proxy?"""
    return is_within((scope.get("client") or ("",))[0], trusted)


def is_within(address: str, networks: Sequence[Network]) -> bool:
    """Whether it is an address in one of these networks."""
    if not networks:
        return False
    return _is_address(address) and any(ipaddress.ip_address(address) in network for network in networks)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _without_port(text: str) -> str:
    """Some proxies write `192.0.2.1:4711` or `[2001:db8::1]:4711`."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
