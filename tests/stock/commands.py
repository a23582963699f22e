"""Runs the commands of a page."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.harness.api import ApiKey
from tests.harness.programs import program

# A response of 400 or more ends the block, and its body is printed all the same.
PRELUDE = 'set -eu\ncurl() { "$CURL" -q --noproxy "*" --max-time 60 --fail-with-body "$@"; echo; }\n'


class Reader:
    """Runs the page's commands with the addresses of this test in place of the page's."""

    def __init__(self, key: ApiKey, replaced: dict[str, str]) -> None:
        self._env = os.environ | {"KEY": key.secret, "CURL": program("curl")}
        self._replaced = replaced

    async def run(self, block: str) -> list[Any]:
        """What the block's commands printed."""
        process = await asyncio.create_subprocess_exec(
            *self._command(block),
            env=self._env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, f"{block}\n{out.decode()}\n{err.decode()}"
        return [json.loads(line) for line in out.decode().splitlines() if line]

    @contextlib.asynccontextmanager
    async def running(self, block: str, output: Path) -> AsyncIterator[None]:
        """Runs a block that does not end by itself; what it prints is in `output` at once."""
        with output.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *self._command(block), env=self._env, stdout=file, stderr=file, start_new_session=True
            )
            try:
                yield
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()

    def _command(self, block: str) -> tuple[str, ...]:
        for written, ours in self._replaced.items():
            block = block.replace(written, ours)
        return ("bash", "-c", PRELUDE + block)
