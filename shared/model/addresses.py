"""Which addresses a customer's URL may resolve to: public ones, and networks that the operator allows.

A callback URL makes the gateway send requests from inside its own network. So the policy judges addresses,
not names: after the look-up, just before the connection. A translator or tunnel may unpack an IPv4 address
that an IPv6 address embeds; then both are judged.
"""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

METADATA = "metadata"
NOT_AN_ADDRESS = "not-an-address"

# IANA's registries of special-purpose addresses, by category; the first that matches counts.
_CATEGORIES: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(network), category)
    for category, networks in (
        # Clouds serve credentials to their machines there. No setting allows these.
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
# IPv4-compatible, IPv4-translated, and NAT64's well-known prefix embed in the last 32 bits.
_EMBEDS_IN_LAST_BITS = tuple(
    ipaddress.IPv6Network(prefix) for prefix in ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96")
)
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
_TEREDO = ipaddress.IPv6Network("2001::/32")
_LAST_32 = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The special-purpose networks that the operator allows. Metadata addresses stay refused."""

    networks: tuple[Network, ...] = ()

    def refuses(self, address: str) -> str:
        """The category for which the address is refused; "" when it is allowed."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return NOT_AN_ADDRESS
        refused = [
            category
            for each in _with_embedded(parsed)
            if (category := _category(each)) and not self._allows(each, category)
        ]
        return METADATA if METADATA in refused else next(iter(refused), "")

    def _allows(self, address: Address, category: str) -> bool:
        return category != METADATA and any(address in network for network in self.networks)


def _category(address: Address) -> str:
    return next(category for network, category in _CATEGORIES if address in network)


def _with_embedded(address: Address) -> list[Address]:
    """The address and those that it embeds. A mapped address is only the IPv4 address in it."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address in _MAPPED:
        return [_last_bits(address)]
    plain = ipaddress.IPv6Address(int(address))  # without a zone
    return [plain, *_embedded(plain)]


def _embedded(address: ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    bits = int(address)
    if bits in (0, 1):
        return
    if any(address in prefix for prefix in _EMBEDS_IN_LAST_BITS):
        yield _last_bits(address)
    elif address in _SIX_TO_FOUR:
        yield ipaddress.IPv4Address(bits >> 80 & _LAST_32)
    elif address in _TEREDO:
        # The server, and the client's address with its bits inverted.
        yield ipaddress.IPv4Address(bits >> 64 & _LAST_32)
        yield ipaddress.IPv4Address(~bits & _LAST_32)
    elif address in _LOCAL_NAT64:
        yield _last_bits(address)
        yield from _between_other_bits(bits)


def _between_other_bits(bits: int) -> Iterator[ipaddress.IPv4Address]:
    """The addresses by RFC 6052 for prefixes of 48, 56 and 64 bits: around bits 64 to 71, which stay 0.

    The length of a local prefix is unknown here, so all three are judged.
    """
    without = bits >> 64 << 56 | bits & (1 << 56) - 1
    for prefix in (48, 56, 64):
        found = without >> 120 - prefix - 32 & _LAST_32
        if found:
            yield ipaddress.IPv4Address(found)


def _last_bits(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(address) & _LAST_32)
