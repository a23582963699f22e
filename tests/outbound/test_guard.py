"""No call reaches a refused address, whichever way a URL leads there."""

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import AsyncIterator

import pytest

from shared.model.addresses import AddressPolicy
from shared.outbound.client import Outbound
from tests.outbound.conftest import LOOPBACK
from tests.outbound.receivers import Receiver, receiving, status

JSON = b"{}"


class Names:
    """A name server: what the next lookups of each name return."""

    def __init__(self, **addresses: list[list[str]]) -> None:
        self.addresses = addresses
        self.lookups: list[str] = []

    async def __call__(self, host: str) -> list[str]:
        self.lookups.append(host)
        waiting = self.addresses[host]
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]


@contextlib.asynccontextmanager
async def calling(policy: AddressPolicy, names: Names) -> AsyncIterator[Outbound]:
    async with Outbound(policy=policy, lookup=names, lookup_ttl_s=0, timeout_s=5) as calls:
        yield calls


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Listens on loopback, which is refused by default."""
    async with receiving(status(200, headers="Connection: close\r\n")) as listening:
        yield listening


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1.2.3", "[::1]", "[::]", "0.0.0.0", "localhost", "LOCALHOST"),
        *("0x7f.1", "0x7f000001", "0X7F.0.0.1", "0x7f.0x0.0x0.0x1"),
        *(
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[64:ff9b::127.0.0.1]",
            "[2002:7f00:1::]",
            "[::127.0.0.1]",
        ),
        *(
            "169.254.169.254",
            "[::ffff:169.254.169.254]",
            "10.0.0.1",
            "192.168.0.1",
            "100.64.0.1",
            "224.0.0.1",
        ),
        *("[fe80::1]", "[fd00:ec2::254]", "[ff02::1]", "255.255.255.255"),
    ],
)
async def test_refused_addresses_are_refused_in_every_form(receiver: Receiver, host: str) -> None:
    async with Outbound(policy=AddressPolicy(), timeout_s=5) as calls:
        attempt = await calls.send("PUT", receiver.url(host), headers={}, body=JSON)

    assert (attempt.status, attempt.error) == (None, "address-refused")
    assert receiver.connections == 0


@pytest.mark.parametrize(
    "host",
    [
        *("2130706433", "017700000001", "0177.0.0.1", "127.1", "127.0.1", "127.0.0.01", "localhost."),
        *("①②⑦.⓪.⓪.①", "127。0。0。1", "1②7.1", "[fe80::1%25lo]", "[::1%25lo]"),
        *("user@127.0.0.1", "user:secret@127.0.0.1", "example.com\\@127.0.0.1", "127.0.0.1\\.example.com"),
    ],
)
async def test_forms_that_programs_read_differently_lead_nowhere(receiver: Receiver, host: str) -> None:
    """Some are no URL to the HTTP client, some are loopback and are refused: none connects."""
    async with Outbound(policy=AddressPolicy(), timeout_s=5) as calls:
        attempt = await calls.send("PUT", receiver.url(host), headers={}, body=JSON)

    assert attempt.status is None
    assert attempt.error in ("address-refused", "not-sendable", "not-resolved", "timed-out")
    assert receiver.connections == 0


async def test_the_address_that_was_checked_is_the_one_called(receiver: Receiver) -> None:
    names = Names(good=[["127.0.0.1"], ["10.0.0.1"]])
    async with calling(LOOPBACK, names) as calls:
        attempt = await calls.send("PUT", receiver.url("good"), headers={}, body=JSON)

    assert attempt.accepted
    assert names.lookups == ["good"], "no second lookup between check and connection"
    assert receiver.header("host") == [f"good:{receiver.port}"]


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1", "10.0.0.1"],
        ["10.0.0.1", "127.0.0.1"],
        ["127.0.0.1", "::ffff:169.254.169.254"],
        ["127.0.0.1", "fe80::1%lo"],
        ["127.0.0.1", "not an address"],
    ],
)
async def test_one_bad_address_among_good_ones_refuses_the_call(
    receiver: Receiver, addresses: list[str]
) -> None:
    async with calling(LOOPBACK, Names(mixed=[addresses])) as calls:
        attempt = await calls.send("PUT", receiver.url("mixed"), headers={}, body=JSON)

    assert (attempt.status, attempt.error) == (None, "address-refused")
    assert receiver.connections == 0


async def test_a_name_with_a_new_address_is_checked_again(receiver: Receiver) -> None:
    names = Names(changing=[["127.0.0.1"], ["169.254.169.254"]])
    async with calling(LOOPBACK, names) as calls:
        first = await calls.send("PUT", receiver.url("changing"), headers={}, body=JSON)
        second = await calls.send("PUT", receiver.url("changing"), headers={}, body=JSON)

    assert first.accepted
    assert second.error == "address-refused"
    assert receiver.connections == 1


async def test_an_unreachable_address_gives_way_to_the_next(receiver: Receiver) -> None:
    async with calling(LOOPBACK, Names(two=[["127.0.0.2", "127.0.0.1"]])) as calls:
        attempt = await calls.send("PUT", receiver.url("two"), headers={}, body=JSON)

    assert attempt.accepted


async def test_metadata_addresses_are_refused_even_if_all_are_allowed(receiver: Receiver) -> None:
    everything = AddressPolicy((ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")))
    async with calling(everything, Names(clouds=[["127.0.0.1", "64:ff9b::a9fe:a9fe"]])) as calls:
        by_name = await calls.send("PUT", receiver.url("clouds"), headers={}, body=JSON)
        by_address = await calls.send("PUT", "http://[::ffff:169.254.169.254]/latest/", headers={}, body=JSON)
        allowed = await calls.send("PUT", receiver.url(), headers={}, body=JSON)

    assert (by_name.error, by_address.error) == ("address-refused", "address-refused")
    assert allowed.accepted


@pytest.mark.parametrize("result", [[], OSError("no such name")])
async def test_a_name_without_an_address(result: list[str] | OSError) -> None:
    async def lookup(_: str) -> list[str]:
        if isinstance(result, OSError):
            raise result
        return result

    async with Outbound(policy=LOOPBACK, lookup=lookup) as calls:
        attempt = await calls.send("PUT", "http://nowhere.example/", headers={}, body=JSON)

    assert (attempt.status, attempt.error) == (None, "not-resolved")


async def test_the_system_resolver_refuses_an_invalid_name() -> None:
    async with Outbound(policy=LOOPBACK, timeout_s=20) as calls:
        attempt = await calls.send("PUT", f"http://{'a' * 64}.invalid/", headers={}, body=JSON)

    assert attempt.error == "not-resolved"


async def test_a_silent_name_server_meets_the_deadline() -> None:
    async def lookup(_: str) -> list[str]:
        await asyncio.Event().wait()
        return []

    async with Outbound(policy=LOOPBACK, lookup=lookup, timeout_s=0.1) as calls:
        attempt = await calls.send("PUT", "http://slow.example/", headers={}, body=JSON)

    assert (attempt.status, attempt.error) == (None, "timed-out")


async def test_international_names_are_resolved_in_ascii(receiver: Receiver) -> None:
    names = Names(**{"xn--bcher-kva.example": [["127.0.0.1"]]})
    async with calling(LOOPBACK, names) as calls:
        attempt = await calls.send("PUT", receiver.url("bücher.example"), headers={}, body=JSON)

    assert attempt.accepted
    assert receiver.header("host") == [f"xn--bcher-kva.example:{receiver.port}"]


async def test_logs_show_neither_path_nor_headers_nor_body(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Outbound(policy=AddressPolicy()) as calls:
        await calls.send("PUT", "http://10.0.0.1/Zq7x?k=Zq7x", headers={"X": "Zq7x"}, body=b"Zq7x")

    facts = [
        getattr(record, "facts", {}) for record in caplog.records if record.name == "shared.outbound.client"
    ]
    assert facts == [{"origin": "http://10.0.0.1", "error": "address-refused"}]
    assert "Zq7x" not in caplog.text
