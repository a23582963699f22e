"""The client's address: X-Forwarded-For counts only where trusted proxies wrote it."""

import ipaddress

import pytest

from shared.runtime.http.client_address import client_address

TRUSTED = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]


def address(peer: str | None, *forwarded: str) -> str:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    scope = {"client": None if peer is None else (peer, 4711), "headers": headers}
    return client_address(scope, trusted=TRUSTED)


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", (), "192.0.2.1"),
        ("192.0.2.1", ("198.51.100.7",), "192.0.2.1"),
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("198.51.100.7",), "198.51.100.7"),
        ("10.0.0.1", ("6.6.6.6, 198.51.100.7",), "198.51.100.7"),
        ("10.0.0.1", ("198.51.100.7, 10.9.9.9",), "198.51.100.7"),
        ("10.0.0.1", ("198.51.100.7", "10.9.9.9"), "198.51.100.7"),
        ("10.0.0.1", ("198.51.100.7:1234",), "198.51.100.7"),
        ("10.0.0.1", ("[2001:db8::7]:1234",), "2001:db8::7"),
        ("fd00::1", ("2001:db8::7",), "2001:db8::7"),
        ("10.0.0.1", ("198.51.100.7, ,\t,",), "198.51.100.7"),
        ("10.0.0.1", (",198.51.100.7,,10.9.9.9 ,", "", ","), "198.51.100.7"),
        ("10.0.0.1", (",", ""), "10.0.0.1"),
        ("10.0.0.1", ("nonsense",), "10.0.0.1"),
        ("10.0.0.1", ("",), "10.0.0.1"),
        (None, ("198.51.100.7",), ""),
    ],
)
def test_only_trusted_proxies_count(peer: str | None, forwarded: tuple[str, ...], expected: str) -> None:
    assert address(peer, *forwarded) == expected
