"""Atheris on a native socket: `python -m tests.socket_edge.fuzz_native [options of libFuzzer] [corpus]`.

An input is the frames of one socket, a line each.
"""

import asyncio
import sys

import atheris
import fakeredis
import pytest

with atheris.instrument_imports(include=["services.socket_edge", "shared.wire", "shared.publish"]):
    from services.socket_edge.native import door as native_door
    from tests.socket_edge.native_oversight import Overseen
from tests.store.stores import Stores, fake_backend

assert native_door.HANDLERS


def main() -> None:
    with asyncio.Runner() as runner, pytest.MonkeyPatch.context() as patch:
        backend = fake_backend(fakeredis.FakeServer())

        async def scene() -> Overseen:
            return await Overseen.of(Stores(backend.connect(), backend), patch)

        overseen = runner.run(scene())

        def play(data: bytes) -> None:
            runner.run(overseen.play([line for line in data.split(b"\n") if is_text(line)]))
            for each in (overseen.read, overseen.claimed, overseen.published):
                each.clear()

        atheris.Setup(sys.argv, play)
        atheris.Fuzz()


def is_text(line: bytes) -> bool:
    """Others never reach a socket: the protocol closes."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


if __name__ == "__main__":
    main()
