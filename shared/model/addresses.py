"""Which addresses a customer's URL may lead to: those of the public internet, and what the operator opens.

Whoever chooses a callback URL makes this house send requests from inside its own network. So an address is
judged, never a name: after the look-up, and just before the connection. An IPv6 address may carry an IPv4
address that a translator or tunnel on the way unpacks; then both are judged.
"""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

METADATA = "metadata"

# IANA's registries of special-purpose addresses, by what to call them; the first that fits counts.
_WORDS: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(network), word)
    for word, networks in (
        # A cloud answers its machines' questions there, with credentials. Closed whatever is opened.
        (METADATA, "169.254.169.0/24 169.254.170.0/24 169.254.0.23 169.254.42.42 100.100.100.200"),
        (METADATA, "168.63.129.16 192.0.0.192 fd00:ec2::/32 fd20:ce::254 fd00:42::42"),
        ("unspecified", "0.0.0.0/8 ::"),
        ("loopback", "127.0.0.0/8 ::1"),
        ("link-local", "169.254.0.0/16 fe80::/10"),
        ("private", "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7 fec0::/10"),
        ("shared", "100.64.0.0/10"),
        ("translated", "64:ff9b:1::/48"),
        ("benchmark", "198.18.0.0/15 2001:2::/48"),
        ("documentation", "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32 3fff::/20"),
        ("multicast", "224.0.0.0/4 ff00::/8"),
        ("broadcast", "255.255.255.255"),
        ("reserved", "192.0.0.0/24 192.88.99.0/24 240.0.0.0/4 2001::/23"),
        ("", "0.0.0.0/0 2000::/3 64:ff9b::/96"),
        ("reserved", "::/0"),
    )
    for network in networks.split()
)
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
# IPv4-compatible, IPv4-translated, and NAT64's well-known prefix: the last 32 bits.
_IN_THE_LAST_BITS = tuple(
    ipaddress.IPv6Network(prefix) for prefix in ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96")
)
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
_TEREDO = ipaddress.IPv6Network("2001::/32")
_LAST_32 = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """What the operator lets through of what is closed by default. Metadata addresses stay closed."""

    networks: tuple[Network, ...] = ()

    def refuses(self, address: str) -> str:
        """Why no connection may go there, in a word; "" when one may."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return "not-an-address"
        faults = [
            word for layer in _layers(parsed) if (word := _word_of(layer)) and not self._opens(layer, word)
        ]
        return METADATA if METADATA in faults else next(iter(faults), "")

    def _opens(self, address: Address, word: str) -> bool:
        return word != METADATA and any(address in network for network in self.networks)


def _word_of(address: Address) -> str:
    return next(word for network, word in _WORDS if address in network)


def _layers(address: Address) -> list[Address]:
    """The address, and those it carries. A mapped address is nothing but the IPv4 address in it."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address in _MAPPED:
        return [_last_bits(address)]
    plain = ipaddress.IPv6Address(int(address))  # without a zone
    return [plain, *_carried(plain)]


def _carried(address: ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    bits = int(address)
    if bits in (0, 1):
        return
    if any(address in prefix for prefix in _IN_THE_LAST_BITS):
        yield _last_bits(address)
    elif address in _SIX_TO_FOUR:
        yield ipaddress.IPv4Address(bits >> 80 & _LAST_32)
    elif address in _TEREDO:
        # The server, and the client's address with its bits turned.
        yield ipaddress.IPv4Address(bits >> 64 & _LAST_32)
        yield ipaddress.IPv4Address(~bits & _LAST_32)
    elif address in _LOCAL_NAT64:
        yield _last_bits(address)
        yield from _between_other_bits(bits)


def _between_other_bits(bits: int) -> Iterator[ipaddress.IPv4Address]:
    """The places RFC 6052 has for prefixes of 48, 56 and 64 bits: around bits 64 to 71, which stay 0.

    The length of a local prefix is not known here, so whatever could be meant is judged.
    """
    without = bits >> 64 << 56 | bits & (1 << 56) - 1
    for prefix in (48, 56, 64):
        found = without >> 120 - prefix - 32 & _LAST_32
        if found:
            yield ipaddress.IPv4Address(found)


def _last_bits(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(address) & _LAST_32)
