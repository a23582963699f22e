"""Which addresses a customer's URL may resolve to, in every notation."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.model.addresses import AddressPolicy

DEFAULT = AddressPolicy()
ALLOW_ALL = AddressPolicy((ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")))

METADATA = [
    *(
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
    ),
]


def v6(bits: int) -> str:
    return str(ipaddress.IPv6Address(bits))


def embedding(inner: ipaddress.IPv4Address) -> dict[str, str]:
    """Every IPv6 address that a translator or tunnel may turn into `inner`."""
    bits = int(inner)
    high, low = bits >> 16, bits & 0xFFFF
    local = 0x0064FF9B0001 << 80
    return {
        "mapped": v6(0xFFFF << 32 | bits),
        "compatible": v6(bits),
        "translated": v6(0xFFFF << 48 | bits),
        "nat64": v6(0x0064FF9B << 96 | bits),
        "local nat64, 96 bits": v6(local | 0xABCD << 64 | bits),
        "local nat64, 48 bits": v6(local | high << 64 | low << 40),
        "local nat64, 56 bits": v6(local | 0xAB << 72 | bits >> 24 << 64 | (bits & 0xFFFFFF) << 32),
        "local nat64, 64 bits": v6(local | 0xABCD << 64 | bits << 24),
        "6to4": v6(0x2002 << 112 | bits << 80 | 1),
        "teredo client": v6(0x20010000 << 96 | 0x08080808 << 64 | bits ^ 0xFFFFFFFF),
        "teredo server": v6(0x20010000 << 96 | bits << 64 | 0xF7F7F7F7),
    }


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "223.255.255.255", "2606:4700::1111", "2a00:1450::1", "172.32.0.1"]
)
def test_public_addresses_are_allowed(address: str) -> None:
    assert DEFAULT.refuses(address) == ""


@pytest.mark.parametrize(
    ("address", "category"),
    [
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("fd12::1", "private"),
        ("fec0::1", "private"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("::1", "loopback"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("::1%lo", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("100.64.0.1", "shared"),
        ("100.127.255.255", "shared"),
        ("198.19.0.1", "benchmark"),
        ("192.0.2.1", "documentation"),
        ("198.51.100.1", "documentation"),
        ("203.0.113.1", "documentation"),
        ("2001:db8::1", "documentation"),
        ("3fff::1", "documentation"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("240.0.0.1", "reserved"),
        ("192.0.0.1", "reserved"),
        ("192.88.99.1", "reserved"),
        ("4000::1", "reserved"),
        ("100::1", "reserved"),
        ("5f00::1", "reserved"),
        ("64:ff9b:1::808:808", "translated"),
        ("fd00:ec2::254", "metadata"),
        ("fd20:ce::254", "metadata"),
        ("localhost", "not-an-address"),
        ("2130706433", "not-an-address"),
        ("0177.0.0.1", "not-an-address"),
        ("", "not-an-address"),
    ],
)
def test_special_addresses_are_refused_by_category(address: str, category: str) -> None:
    assert DEFAULT.refuses(address) == category


@pytest.mark.parametrize("address", [*METADATA, "fd00:ec2::254", "fd20:ce::254", "fd00:ec2::23"])
def test_metadata_is_refused_whatever_is_allowed(address: str) -> None:
    exactly = AddressPolicy((ipaddress.ip_network(address),))

    assert [policy.refuses(address) for policy in (DEFAULT, ALLOW_ALL, exactly)] == ["metadata"] * 3


@pytest.mark.parametrize("address", METADATA)
def test_embedded_metadata_is_refused(address: str) -> None:
    forms = embedding(ipaddress.IPv4Address(address))

    assert {form: ALLOW_ALL.refuses(address) for form, address in forms.items()} == dict.fromkeys(
        forms, "metadata"
    )


@given(st.ip_addresses(v=4))
def test_embedded_addresses_are_refused(inner: ipaddress.IPv4Address) -> None:
    refused = DEFAULT.refuses(str(inner))
    for form, address in embedding(inner).items():
        if refused or form not in ("mapped", "nat64", "6to4"):
            assert DEFAULT.refuses(address), (form, address)
        else:
            assert DEFAULT.refuses(address) == "", (form, address)


@given(
    st.sampled_from(["10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10", "192.168.0.0/16"]),
    st.data(),
)
def test_mapped_address_counts_as_the_one_in_it(network: str, data: st.DataObject) -> None:
    inner = data.draw(st.ip_addresses(network=network))

    assert DEFAULT.refuses(f"::ffff:{inner}") == DEFAULT.refuses(str(inner)) != ""


@given(st.ip_addresses())
def test_what_python_calls_special_is_refused(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    special = (
        *(address.is_private, address.is_loopback, address.is_link_local, address.is_multicast),
        *(address.is_unspecified, address.is_reserved),
    )
    # These are judged by the IPv4 address in them. Newer versions of Python call all of 6to4 private.
    embeds = str(address).startswith(("64:ff9b::", "::ffff:", "2002:"))
    if any(special) and not embeds:
        assert DEFAULT.refuses(str(address))


@given(st.ip_addresses())
def test_everything_but_metadata_can_be_allowed(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    assert ALLOW_ALL.refuses(str(address)) in ("", "metadata")


def test_only_the_given_networks_are_allowed() -> None:
    some = AddressPolicy((ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128")))

    assert (
        some.refuses("10.1.2.3") == some.refuses("::ffff:10.1.2.3") == some.refuses("64:ff9b::10.1.2.3") == ""
    )
    assert some.refuses("::1") == some.refuses("8.8.8.8") == ""
    assert some.refuses("192.168.1.1") == some.refuses("64:ff9b::192.168.1.1") == "private"
    assert some.refuses("127.0.0.1") == "loopback"
