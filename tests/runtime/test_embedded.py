"""The embedded Valkey: private to its folder, persistent, owned by one process, and never left running."""

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

OWNER = """
import asyncio, sys
from pathlib import Path
from shared.runtime.embedded import embedded_valkey

async def main():
    async with embedded_valkey(Path(sys.argv[1])) as url:
        print(url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


class Owner:
    """Another process that owns a folder until it is killed."""

    def __init__(self, data_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(data_dir)], stdout=subprocess.PIPE, text=True
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
def owner(tmp_path: Path) -> Iterator[Owner]:
    owner = Owner(tmp_path / "data")
    yield owner
    owner.kill()
    with suppress(ProcessLookupError):
        os.kill(owner.valkey_pid, signal.SIGKILL)


async def execute(url: str, *command: Any) -> Any:
    redis = connect(url)
    try:
        return await redis.execute_command(*command)
    finally:
        await redis.aclose()


def replies(url: str) -> bool:
    with BlockingRedis.from_url(url) as redis:
        try:
            return bool(redis.ping())
        except RedisError:
            return False


async def test_data_persist_and_only_the_user_has_access(tmp_path: Path) -> None:
    data_dir = tmp_path / "new" / "data"
    async with embedded_valkey(data_dir) as url:
        assert url.startswith("unix:///")
        assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
        assert stat.S_IMODE((data_dir / "valkey.sock").stat().st_mode) == 0o700
        assert await execute(url, "CONFIG", "GET", "port") == [b"port", b"0"]
        await execute(url, "SET", "kept", "yes")
    assert not replies(url)

    async with embedded_valkey(data_dir) as url:
        assert await execute(url, "GET", "kept") == b"yes"


async def test_its_url_is_known_while_it_runs(tmp_path: Path) -> None:
    assert embedded_url(tmp_path / "data") is None
    async with embedded_valkey(tmp_path / "data") as url:
        assert embedded_url(tmp_path / "data") == url
    assert embedded_url(tmp_path / "data") is None


async def test_a_second_owner_is_refused_with_the_pid_of_the_first(tmp_path: Path, owner: Owner) -> None:
    with pytest.raises(DataDirInUse) as caught:
        async with embedded_valkey(tmp_path / "data"):
            pass

    assert str(tmp_path / "data") in str(caught.value)
    assert f"process {owner.process.pid}" in str(caught.value)
    assert replies(owner.url)


async def test_the_valkey_of_a_killed_owner_is_ended(tmp_path: Path, owner: Owner) -> None:
    await execute(owner.url, "SET", "kept", "yes")
    owner.kill()
    assert replies(owner.url)

    async with embedded_valkey(tmp_path / "data") as url:
        assert int((tmp_path / "data" / "valkey.pid").read_text()) != owner.valkey_pid
        assert await execute(url, "GET", "kept") == b"yes"


async def test_a_hanging_valkey_of_a_killed_owner_is_ended(
    tmp_path: Path, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.runtime.embedded.END_TIMEOUT_S", 0.1)
    monkeypatch.setattr("shared.runtime.embedded.REPLY_TIMEOUT_S", 0.1)
    owner.kill()
    os.kill(owner.valkey_pid, signal.SIGSTOP)

    async with embedded_valkey(tmp_path / "data") as url:
        assert replies(url)


async def test_another_process_with_the_pid_of_a_former_valkey_is_not_ended(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    other = subprocess.Popen(["sleep", "60"])
    try:
        (data_dir / "valkey.pid").write_text(f"{other.pid}\n")
        async with embedded_valkey(data_dir):
            assert other.poll() is None
    finally:
        other.kill()
        other.wait()


async def test_ctrl_c_to_the_owners_process_group_does_not_reach_it(owner: Owner) -> None:
    assert os.getpgid(owner.valkey_pid) != os.getpgid(owner.process.pid)
    assert os.getsid(owner.valkey_pid) != os.getsid(owner.process.pid)


async def test_a_cancelled_owner_ends_it(tmp_path: Path) -> None:
    urls: list[str] = []

    async def own() -> None:
        async with embedded_valkey(tmp_path / "data") as url:
            urls.append(url)
            await asyncio.Event().wait()

    task = asyncio.create_task(own())
    await wait_until(lambda: bool(urls))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not replies(urls[0])


@pytest.mark.parametrize("folder", ["d" * 120, "with space, 100% # and ?"])
async def test_a_long_or_odd_path_works(tmp_path: Path, folder: str) -> None:
    data_dir = tmp_path / folder
    async with embedded_valkey(data_dir) as url:
        assert await execute(url, "SET", "kept", "yes")
        assert embedded_url(data_dir) == url
        path = Path(await socket_path(url))
        assert len(os.fsencode(path)) <= 103
        assert path.exists()
    assert not path.exists()
    assert folder in str(path.parent) or not path.parent.exists()


async def socket_path(url: str) -> str:
    name, path = await execute(url, "CONFIG", "GET", "unixsocket")
    assert name == b"unixsocket"
    return os.fsdecode(path)


async def test_a_failed_start_shows_the_log_and_unlocks_the_folder(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with embedded_valkey(data_dir) as url:
        await execute(url, "SET", "kept", "yes")
    [manifest] = (data_dir / "appendonlydir").glob("*.manifest")
    written = manifest.read_text()
    manifest.write_text("nonsense\n")

    with pytest.raises(ValkeyFailed, match=r"(?s)ended with code.*manifest"):
        async with embedded_valkey(data_dir):
            pass

    manifest.write_text(written)
    async with embedded_valkey(data_dir) as url:
        assert await execute(url, "GET", "kept") == b"yes"
