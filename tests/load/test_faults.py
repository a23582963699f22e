"""A whole run detects notifications that a proxy loses, duplicates and reorders."""

import asyncio
import contextlib
import json
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.conftest import Start
from tests.harness.processes import CHECKOUT
from tests.load.connections import frame_at

_TEXT = 0x81
_HELD_BACK = 5


def lose_repeat_and_swap(frames: list[bytes]) -> list[bytes]:
    """Loses the first frame, repeats the second, and swaps the last two."""
    _, second, third, fourth, fifth = frames
    return [second, second, third, fifth, fourth]


class FaultyProxy:
    """A proxy in front of an edge; changes its first text frames."""

    def __init__(self, port: int) -> None:
        self._port = port
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
                    writer.writelines(lose_repeat_and_swap(kept))


async def _copy(reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)


@contextlib.asynccontextmanager
async def faulty_proxy(port: int) -> AsyncIterator[tuple[FaultyProxy, str]]:
    proxy = FaultyProxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    try:
        yield proxy, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def run_load(*arguments: str) -> tuple[int, str]:
    """Runs `python -m tests.load ARGUMENTS`; returns exit code and output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.load", *arguments),
        cwd=CHECKOUT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_lost_duplicated_and_reordered_notifications_are_counted(start: Start, tmp_path: Path) -> None:
    stack = start(edges=1)
    out = tmp_path / "results.jsonl"
    async with faulty_proxy(stack.edges[0].port) as (proxy, url):
        code, output = await run_load(
            *("sockets", "--url", stack.gateways[0].url, "--edge-url", url),
            *("--admin-token", stack.admin_token, "--out", str(out), "--patience", "0.5"),
            *("--channels", "1", "--lanes", "1", "--rate", "60", "--seconds", "0.5", "--warm-up", "0.2"),
        )
    assert proxy.done, output
    count: dict[str, Any] = json.loads(out.read_text())["count"]
    assert (count["lost"], count["duplicated"], count["out_of_order"], count["unknown"]) == (1, 1, 1, 0), (
        output
    )
    assert code == 1, output
