"""What is written in one turn of the loop leaves in one write; nothing else about a transport changes."""

import asyncio
from typing import cast

import pytest

from shared.runtime.http.write_coalescing import WriteCoalescer


class Wire:
    """A transport that remembers what it was told."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.ended = ""
        self.waiting_bytes = 0

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return bool(self.ended)

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def get_write_buffer_size(self) -> int:
        return self.waiting_bytes


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
async def joined(wire: Wire) -> WriteCoalescer:
    return WriteCoalescer(cast(asyncio.Transport, wire), asyncio.get_running_loop())


async def a_turn() -> None:
    await asyncio.sleep(0)


async def test_one_turn_is_one_write_in_order(wire: Wire, joined: WriteCoalescer) -> None:
    for part in (b"head ", b"and ", b"body"):
        joined.write(part)
    assert wire.written == []

    await a_turn()

    assert wire.written == [b"head and body"]


async def test_the_next_turn_is_another_write(wire: Wire, joined: WriteCoalescer) -> None:
    for part in (b"1", b"2"):
        joined.write(part)
        await a_turn()
        await a_turn()

    assert wire.written == [b"1", b"2"]


async def test_a_close_lets_out_what_waits(wire: Wire, joined: WriteCoalescer) -> None:
    joined.write(b"goodbye")
    joined.close()
    await a_turn()

    assert (wire.written, wire.ended) == ([b"goodbye"], "closed")


async def test_an_abort_drops_what_waits(wire: Wire, joined: WriteCoalescer) -> None:
    joined.write(b"never")
    joined.abort()
    await a_turn()

    assert (wire.written, wire.ended) == ([], "aborted")


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_nothing_is_written_to_what_has_ended(wire: Wire, joined: WriteCoalescer, end: str) -> None:
    getattr(joined, end)()
    joined.write(b"too late")
    await a_turn()

    assert wire.written == []


async def test_a_peer_that_hangs_up_meanwhile_gets_nothing(wire: Wire, joined: WriteCoalescer) -> None:
    joined.write(b"too late")
    wire.close()
    await a_turn()

    assert wire.written == []


async def test_what_waits_counts_as_not_yet_sent(wire: Wire, joined: WriteCoalescer) -> None:
    wire.waiting_bytes = 100
    joined.write(b"12345")
    joined.write(b"67")
    assert joined.get_write_buffer_size() == 107

    await a_turn()

    assert joined.get_write_buffer_size() == 100


async def test_all_else_is_the_transports_own(wire: Wire, joined: WriteCoalescer) -> None:
    assert not joined.is_closing()
    wire.close()
    assert joined.is_closing()
