"""Worker processes: each has one role, takes calls by a pipe, and reports how much it has received."""

import asyncio
import contextlib
import gc
import itertools
import multiprocessing
import signal
import threading
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import uvloop

_REPORT_S = 0.1


class WorkerFailed(Exception):
    """A call failed in a worker, or the worker exited; the text has its error."""


class Worker:
    """A child process; `role` is a class whose coroutines can be called."""

    def __init__(self, name: str, role: Callable[[], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self.name = name
        self.received = 0
        """How many different notifications it had received at its last report."""
        self._pipe = ours
        self._numbers = itertools.count()
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._process = context.Process(target=work, args=(theirs, role), name=name, daemon=True)
        self._process.start()
        theirs.close()
        asyncio.get_running_loop().add_reader(ours.fileno(), self._read_messages)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    async def call(self, method: str, **arguments: Any) -> Any:
        """Calls a method of the role. Raises WorkerFailed."""
        number = next(self._numbers)
        response = self._pending[number] = asyncio.get_running_loop().create_future()
        try:
            self._pipe.send((number, method, arguments))
        except OSError:
            raise WorkerFailed(f"{self.name} is gone") from None
        return await response

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pipe.fileno())
        self._pipe.close()
        self._process.join(2)
        self._process.kill()
        self._process.join()

    def _read_messages(self) -> None:
        try:
            while self._pipe.poll():
                self._handle(self._pipe.recv())
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())
            self._fail("exited")

    def _handle(self, message: tuple[str, Any, Any]) -> None:
        kind, number, content = message
        if kind == "received":
            self.received = content
            return
        response = self._pending.pop(number)
        if response.done():
            return
        if kind == "done":
            response.set_result(content)
        else:
            response.set_exception(WorkerFailed(f"{self.name}: {content}"))

    def _fail(self, error: str) -> None:
        for response in self._pending.values():
            if not response.done():
                response.set_exception(WorkerFailed(f"{self.name}: {error}"))
        self._pending.clear()


def work(pipe: Connection, role: Callable[[], Any]) -> None:
    """The main function of a child process; returns when the parent has exited."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, contextlib.suppress(KeyboardInterrupt):
        runner.run(_serve(pipe, role))


async def _serve(pipe: Connection, make_role: Callable[[], Any]) -> None:
    role = make_role()
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    def begin(number: int, method: str, arguments: Mapping[str, Any]) -> None:
        task = loop.create_task(_call(pipe, role, number, method, arguments))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def read_calls() -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                loop.call_soon_threadsafe(begin, *pipe.recv())
        loop.call_soon_threadsafe(over.set)

    # A thread, not a reader of the loop: uvloop makes descriptors non-blocking, and a Connection would then
    # transfer half of a message.
    threading.Thread(target=read_calls, daemon=True).start()
    reported = 0
    while not over.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), _REPORT_S)
        received = getattr(role, "received", 0)
        if received != reported:
            reported = received
            _send(pipe, ("received", 0, received))
    for task in tasks:
        task.cancel()


async def _call(pipe: Connection, role: Any, number: int, method: str, arguments: Mapping[str, Any]) -> None:
    try:
        response = await getattr(role, method)(**arguments)
    except Exception as error:
        text = f"{method}: {error!r}" if isinstance(error, OSError) else traceback.format_exc(limit=-3)
        _send(pipe, ("failed", number, text))
        return
    # Exclude what the call has created from garbage collections during the measurement.
    gc.freeze()
    _send(pipe, ("done", number, response))


def _send(pipe: Connection, message: tuple[str, int, Any]) -> None:
    with contextlib.suppress(OSError):
        pipe.send(message)
