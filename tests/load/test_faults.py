"""A notification that is lost, doubled or swapped on its way is noticed by a whole run, which says so."""

import asyncio
import contextlib
import json
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.processes import CHECKOUT
from tests.harness.stack import Stack, running_stack
from tests.load.wire import frame_at

Fault = Callable[[list[bytes]], list[bytes]]

_TEXT = 0x81
_HELD_BACK = 4
"""How many text frames of a socket are kept until they are judged together."""


def loses(frames: list[bytes]) -> list[bytes]:
    return frames[1:]


def doubles(frames: list[bytes]) -> list[bytes]:
    return [frames[0], *frames]


def swaps(frames: list[bytes]) -> list[bytes]:
    return [frames[1], frames[0], *frames[2:]]


def leaves_alone(frames: list[bytes]) -> list[bytes]:
    return frames


class FaultyLine:
    """Stands between sockets and an edge, and once does something to the first text frames on its way out."""

    def __init__(self, port: int, fault: Fault) -> None:
        self._port = port
        self._fault = fault
        self.done = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        from_edge, to_edge = await asyncio.open_connection("127.0.0.1", self._port)
        up = asyncio.create_task(_copy(reader, to_edge))
        down = asyncio.create_task(self._copy_frames(from_edge, writer))
        self._tasks |= {up, down}
        await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
        for task in (up, down):
            task.cancel()
        writer.close()
        to_edge.close()

    async def _copy_frames(self, reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(await reader.readuntil(b"\r\n\r\n"))
        kept: list[bytes] = []
        buffer = bytearray()
        while data := await reader.read(65536):
            buffer += data
            while (found := frame_at(buffer, 0)) is not None:
                frame = bytes(buffer[: found[2]])
                del buffer[: found[2]]
                if frame[0] != _TEXT or self.done:
                    writer.write(frame)
                    continue
                kept.append(frame)
                if len(kept) == _HELD_BACK:
                    self.done = True
                    writer.writelines(self._fault(kept))


async def _copy(reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)


@contextlib.asynccontextmanager
async def faulty_line(port: int, fault: Fault) -> AsyncIterator[tuple[FaultyLine, str]]:
    line = FaultyLine(port, fault)
    server = await asyncio.start_server(line.serve, "127.0.0.1", 0)
    try:
        yield line, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def run_load(*arguments: str) -> tuple[int, str]:
    """`python -m tests.load <arguments>` to its end: exit code and all it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.load", *arguments),
        cwd=CHECKOUT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, said.decode()


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack(edges=1) as running:
        yield running


@pytest.mark.parametrize(
    ("fault", "figure", "exit_code"),
    [
        (leaves_alone, None, 0),
        (loses, "lost", 1),
        (doubles, "duplicated", 0),
        (swaps, "out_of_order", 1),
    ],
)
async def test_a_fault_on_the_way_is_noticed(
    stack: Stack, tmp_path: Path, fault: Fault, figure: str | None, exit_code: int
) -> None:
    out = tmp_path / "results.jsonl"
    async with faulty_line(stack.edges[0].port, fault) as (line, url):
        code, said = await run_load(
            *("sockets", "--url", stack.gateways[0].url, "--edge-url", url),
            *("--admin-token", stack.admin_token, "--out", str(out), "--patience", "3"),
            *("--channels", "1", "--lanes", "1", "--rate", "60", "--seconds", "1", "--warm-up", "0.2"),
        )
    assert line.done, said
    count: dict[str, Any] = json.loads(out.read_text())["count"]
    wrong = {name: count[name] for name in ("lost", "duplicated", "out_of_order", "unknown") if count[name]}
    assert list(wrong) == ([] if figure is None else [figure]), said
    assert code == exit_code, said
