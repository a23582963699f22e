"""The writes of one turn of the loop become one write; nothing else about a transport changes."""

import asyncio
from typing import cast

import pytest

from shared.runtime.http.write_coalescing import WriteCoalescer


class Transport:
    """Records what it was asked to do."""

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
def transport() -> Transport:
    return Transport()


@pytest.fixture
async def coalescer(transport: Transport) -> WriteCoalescer:
    return WriteCoalescer(cast(asyncio.Transport, transport), asyncio.get_running_loop())


async def a_turn() -> None:
    await asyncio.sleep(0)


async def test_one_turn_is_one_write_in_order(transport: Transport, coalescer: WriteCoalescer) -> None:
    for part in (b"head ", b"and ", b"body"):
        coalescer.write(part)
    assert transport.written == []

    await a_turn()

    assert transport.written == [b"head and body"]


async def test_the_next_turn_is_another_write(transport: Transport, coalescer: WriteCoalescer) -> None:
    for part in (b"1", b"2"):
        coalescer.write(part)
        await a_turn()
        await a_turn()

    assert transport.written == [b"1", b"2"]


async def test_a_close_writes_the_buffer_first(transport: Transport, coalescer: WriteCoalescer) -> None:
    coalescer.write(b"last")
    coalescer.close()
    await a_turn()

    assert (transport.written, transport.ended) == ([b"last"], "closed")


async def test_an_abort_drops_the_buffer(transport: Transport, coalescer: WriteCoalescer) -> None:
    coalescer.write(b"never")
    coalescer.abort()
    await a_turn()

    assert (transport.written, transport.ended) == ([], "aborted")


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_nothing_is_written_after_the_end(
    transport: Transport, coalescer: WriteCoalescer, end: str
) -> None:
    getattr(coalescer, end)()
    coalescer.write(b"too late")
    await a_turn()

    assert transport.written == []


async def test_nothing_is_written_after_the_peer_hung_up(
    transport: Transport, coalescer: WriteCoalescer
) -> None:
    coalescer.write(b"too late")
    transport.close()
    await a_turn()

    assert transport.written == []


async def test_the_buffer_counts_as_unsent(transport: Transport, coalescer: WriteCoalescer) -> None:
    transport.waiting_bytes = 100
    coalescer.write(b"12345")
    coalescer.write(b"67")
    assert coalescer.get_write_buffer_size() == 107

    await a_turn()

    assert coalescer.get_write_buffer_size() == 100


async def test_everything_else_is_the_transports(transport: Transport, coalescer: WriteCoalescer) -> None:
    assert not coalescer.is_closing()
    transport.close()
    assert coalescer.is_closing()
