"""Attaches `perf stat` and py-spy to processes for the time of a measurement.

Both observe from outside: the processes run the code that they always run. What cannot be attached is left
out, with a reason; the run goes on. strace is no substitute: it stops a process at every call.
"""

import asyncio
import contextlib
import os
import select
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT
from typing import Any, Protocol

from tests.harness.forks import die_with_parent
from tests.load.costs import Costs, counts_of, stacks_of
from tests.load.processes import Watched

# Each has a counter of the kernel, which takes 30 ms to set up: these are what our processes call, and the
# rest is counted as a sum.
SYSTEM_CALLS = (
    *("epoll_wait", "epoll_pwait", "epoll_ctl", "read", "write", "readv", "writev", "recvfrom", "sendto"),
    *("recvmsg", "sendmsg", "ioctl", "accept4", "socket", "connect", "shutdown", "close", "getsockname"),
    *("getpeername", "setsockopt", "getsockopt", "futex", "openat", "fdatasync", "mmap", "munmap", "madvise"),
    *("brk", "getpid", "getrandom", "sched_yield"),
)
PYTHON_ROLES = ("gateway", "edge", "dispatcher")
TRACEPOINTS = Path("/sys/kernel/tracing/events/syscalls")
_NO_CALLS, _NO_FUNCTIONS = "system calls were not counted", "functions were not sampled"
_SAMPLING = "Sampling process"
_ATTACH_LIMIT_S = 30
_END_LIMIT_S = 30


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to observe. `samples_per_s`: of each Python process, 0 for none; `native`: also C functions."""

    system_calls: bool = False
    samples_per_s: int = 0
    native: bool = False


class _NotAttachedError(Exception):
    """The text says why a process is not observed."""


class _Probe(Protocol):
    """One observer of one process."""

    async def attach(self) -> None:
        """Begins. Raises _NotAttachedError."""

    async def finish(self, costs: Costs) -> None:
        """Ends, and adds what it has found. Raises _NotAttachedError."""


@contextlib.asynccontextmanager
async def observed(watched: Sequence[Watched], wanted: Wanted) -> AsyncIterator[Costs]:
    """Observes the processes during the block; the result is complete after it."""
    costs = Costs()
    with tempfile.TemporaryDirectory(prefix="notify-load-") as folder:
        probes: list[_Probe] = []
        if wanted.system_calls:
            probes += [_SystemCalls(each) for each in watched if each.role != "client"]
        if wanted.samples_per_s:
            probes += [
                _Functions(each, wanted, Path(folder) / each.name)
                for each in watched
                if each.role in PYTHON_ROLES
            ]
        attached = await _all(costs, [(probe, probe.attach()) for probe in probes])
        try:
            yield costs
        finally:
            await _all(costs, [(probe, probe.finish(costs)) for probe in attached])


async def _all(costs: Costs, begun: Sequence[tuple[_Probe, Coroutine[Any, Any, None]]]) -> list[_Probe]:
    """Awaits all; returns the probes that succeeded, and notes why others did not, each reason once."""
    done = await asyncio.gather(*(each for _, each in begun), return_exceptions=True)
    for outcome in done:
        if isinstance(outcome, _NotAttachedError):
            if str(outcome) not in costs.left_out:
                costs.left_out.append(str(outcome))
        elif outcome is not None:
            raise outcome
    return [probe for (probe, _), outcome in zip(begun, done, strict=True) if outcome is None]


class _SystemCalls:
    """`perf stat` on one process: the kernel counts, so no call is missed and none is held up."""

    def __init__(self, process: Watched) -> None:
        self._process = process
        self._perf: asyncio.subprocess.Process | None = None
        self._orders = -1
        self._replies = -1

    async def attach(self) -> None:
        program = shutil.which("perf")
        if program is None:
            raise _NotAttachedError(
                "system calls were not counted: `perf` is not installed (Debian: linux-perf)"
            )
        if not os.access(TRACEPOINTS, os.R_OK | os.X_OK):
            raise _NotAttachedError(
                "system calls were not counted: only root may read the kernel's tracepoints"
            )
        theirs, self._orders = os.pipe()
        self._replies, reply = os.pipe()
        known = [name for name in SYSTEM_CALLS if (TRACEPOINTS / f"sys_enter_{name}").exists()]
        events = ["raw_syscalls:sys_enter", *(f"syscalls:sys_enter_{name}" for name in known)]
        try:
            self._perf = await asyncio.create_subprocess_exec(
                *(program, "stat", "-x", ",", "--delay=-1", f"--control=fd:{theirs},{reply}"),
                *("-p", str(self._process.pid), "-e", ",".join(events)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=os.environ | {"LC_ALL": "C"},
                pass_fds=(theirs, reply),
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        finally:
            os.close(theirs)
            os.close(reply)
        if not await self._order(b"enable\n"):
            raise _NotAttachedError(f"{_NO_CALLS}: {_first_line(await self._end())}")

    async def finish(self, costs: Costs) -> None:
        await self._order(b"disable\n")
        counted = counts_of((await self._end()).splitlines())
        if not counted:
            raise _NotAttachedError(f"{_NO_CALLS} in {self._process.name}: it has exited")
        costs.system_calls[self._process.name] = counted

    async def _order(self, order: bytes) -> bool:
        """Whether perf has carried it out."""
        try:
            os.write(self._orders, order)
        except OSError:
            return False
        return await asyncio.to_thread(_acknowledged, self._replies)

    async def _end(self) -> str:
        """Ends perf; returns what it has printed."""
        assert self._perf is not None
        try:
            return await _ended(self._perf)
        finally:
            os.close(self._orders)
            os.close(self._replies)


class _Functions:
    """py-spy on one Python process: samples the stack of each thread that uses the CPU."""

    def __init__(self, process: Watched, wanted: Wanted, out: Path) -> None:
        self._process = process
        self._wanted = wanted
        self._out = out
        self._spy: asyncio.subprocess.Process | None = None

    async def attach(self) -> None:
        program = shutil.which("py-spy", path=os.pathsep.join((str(Path(sys.executable).parent), os.defpath)))
        if program is None:
            raise _NotAttachedError(f"{_NO_FUNCTIONS}: `py-spy` is not installed (make install)")
        self._spy = await asyncio.create_subprocess_exec(
            *(program, "record", "--pid", str(self._process.pid), "--rate", str(self._wanted.samples_per_s)),
            *("--format", "raw", "--function", "--output", str(self._out)),
            *(("--native",) if self._wanted.native else ()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        said = await self._said_at_first()
        if _SAMPLING not in said:
            error = _first_line(said + await _ended(self._spy))
            raise _NotAttachedError(f"{_NO_FUNCTIONS} in {self._process.name}: {error}")

    async def _said_at_first(self) -> str:
        """It says that it samples when it has found the interpreter's state, or why it cannot."""
        assert self._spy is not None
        assert self._spy.stdout is not None
        said = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ATTACH_LIMIT_S):
                while line := await self._spy.stdout.readline():
                    said += line
                    if _SAMPLING.encode() in line:
                        break
        return said.decode(errors="replace")

    async def finish(self, costs: Costs) -> None:
        assert self._spy is not None
        said = await _ended(self._spy)
        if not self._out.exists():
            raise _NotAttachedError(f"{_NO_FUNCTIONS} in {self._process.name}: {_first_line(said)}")
        costs.stacks[self._process.name] = stacks_of(self._out.read_text().splitlines())


def _acknowledged(replies: int) -> bool:
    # Not `select`, which refuses descriptors above 1023.
    poll = select.poll()
    poll.register(replies, select.POLLIN)
    return bool(poll.poll(_ATTACH_LIMIT_S * 1000)) and os.read(replies, 16).startswith(b"ack")


async def _ended(process: asyncio.subprocess.Process) -> str:
    """Interrupts an observer, which then writes its result; returns what it has printed."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(SIGINT)
    try:
        async with asyncio.timeout(_END_LIMIT_S):
            out, error = await process.communicate()
    except TimeoutError:
        process.kill()
        out, error = await process.communicate()
    return ((out or b"") + (error or b"")).decode(errors="replace")


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "it ended without a word")
