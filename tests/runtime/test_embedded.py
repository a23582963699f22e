"""The embedded Valkey: private to its folder, persistent, held by one, and never left running."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis as BlockingRedis
from redis.exceptions import RedisError

from shared.redis.client import connect
from shared.runtime.embedded import DataDirInUse, ValkeyFailed, embedded_url, embedded_valkey
from tests.harness.waiting import wait_until

HOLDER = """
import asyncio, sys
from pathlib import Path
from shared.runtime.embedded import embedded_valkey

async def main():
    async with embedded_valkey(Path(sys.argv[1])) as url:
        print(url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


class Holder:
    """Another process that holds a folder until it is killed."""

    def __init__(self, data_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(data_dir)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.valkey_pid = int((data_dir / "valkey.pid").read_text())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Holder]:
    holder = Holder(tmp_path / "data")
    yield holder
    holder.kill()
    with suppress(ProcessLookupError):
        os.kill(holder.valkey_pid, signal.SIGKILL)


async def asked(url: str, *command: Any) -> Any:
    redis = connect(url)
    try:
        return await redis.execute_command(*command)
    finally:
        await redis.aclose()


def answers(url: str) -> bool:
    with BlockingRedis.from_url(url) as redis:
        try:
            return bool(redis.ping())
        except RedisError:
            return False


async def test_data_survive_and_only_the_folders_owner_gets_in(tmp_path: Path) -> None:
    data_dir = tmp_path / "new" / "data"
    async with embedded_valkey(data_dir) as url:
        assert url.startswith("unix:///")
        assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
        assert stat.S_IMODE((data_dir / "valkey.sock").stat().st_mode) == 0o700
        assert await asked(url, "CONFIG", "GET", "port") == [b"port", b"0"]
        await asked(url, "SET", "kept", "yes")
    assert not answers(url)

    async with embedded_valkey(data_dir) as url:
        assert await asked(url, "GET", "kept") == b"yes"


async def test_the_url_is_found_while_it_runs(tmp_path: Path) -> None:
    assert embedded_url(tmp_path / "data") is None
    async with embedded_valkey(tmp_path / "data") as url:
        assert embedded_url(tmp_path / "data") == url
    assert embedded_url(tmp_path / "data") is None


async def test_a_second_holder_is_refused_and_told_by_whom(tmp_path: Path, holder: Holder) -> None:
    with pytest.raises(DataDirInUse) as caught:
        async with embedded_valkey(tmp_path / "data"):
            pass

    assert str(tmp_path / "data") in str(caught.value)
    assert f"process {holder.process.pid}" in str(caught.value)
    assert answers(holder.url)


async def test_one_left_over_by_a_killed_holder_is_ended(tmp_path: Path, holder: Holder) -> None:
    await asked(holder.url, "SET", "kept", "yes")
    holder.kill()
    assert answers(holder.url)

    async with embedded_valkey(tmp_path / "data") as url:
        assert int((tmp_path / "data" / "valkey.pid").read_text()) != holder.valkey_pid
        assert await asked(url, "GET", "kept") == b"yes"


async def test_one_left_over_that_hangs_is_ended_too(
    tmp_path: Path, holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.runtime.embedded.END_TIMEOUT_S", 0.5)
    monkeypatch.setattr("shared.runtime.embedded.ANSWER_TIMEOUT_S", 0.5)
    holder.kill()
    os.kill(holder.valkey_pid, signal.SIGSTOP)

    async with embedded_valkey(tmp_path / "data") as url:
        assert answers(url)


async def test_a_stranger_with_the_pid_of_a_former_valkey_is_let_be(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        (data_dir / "valkey.pid").write_text(f"{stranger.pid}\n")
        async with embedded_valkey(data_dir):
            assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_ctrl_c_to_the_holders_group_does_not_reach_it(holder: Holder) -> None:
    assert os.getpgid(holder.valkey_pid) != os.getpgid(holder.process.pid)
    assert os.getsid(holder.valkey_pid) != os.getsid(holder.process.pid)


async def test_a_holder_that_is_cancelled_ends_it(tmp_path: Path) -> None:
    urls: list[str] = []

    async def hold() -> None:
        async with embedded_valkey(tmp_path / "data") as url:
            urls.append(url)
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await wait_until(lambda: bool(urls))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not answers(urls[0])


@pytest.mark.parametrize("folder", ["d" * 120, "with space, 100% # and ?"])
async def test_a_long_or_odd_path_works(tmp_path: Path, folder: str) -> None:
    data_dir = tmp_path / folder
    async with embedded_valkey(data_dir) as url:
        assert await asked(url, "SET", "kept", "yes")
        assert embedded_url(data_dir) == url
        path = Path(await socket_path(url))
        assert len(os.fsencode(path)) <= 103
        assert path.exists()
    assert not path.exists()
    assert folder in str(path.parent) or not path.parent.exists()


async def socket_path(url: str) -> str:
    name, path = await asked(url, "CONFIG", "GET", "unixsocket")
    assert name == b"unixsocket"
    return os.fsdecode(path)


async def test_one_that_cannot_start_tells_its_last_words_and_lets_the_folder_go(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with embedded_valkey(data_dir) as url:
        await asked(url, "SET", "kept", "yes")
    [manifest] = (data_dir / "appendonlydir").glob("*.manifest")
    written = manifest.read_text()
    manifest.write_text("nonsense\n")

    with pytest.raises(ValkeyFailed, match=r"(?s)ended with code.*manifest"):
        async with embedded_valkey(data_dir):
            pass

    manifest.write_text(written)
    async with embedded_valkey(data_dir) as url:
        assert await asked(url, "GET", "kept") == b"yes"
