"""The harness's own processes: each plays one role, takes orders by a pipe, and says how far it is."""

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

_NEWS_S = 0.1


class WorkerFailed(Exception):
    """A worker could not do what it was told, or ended; the text is what it said."""


class Worker:
    """A child process that plays `role`, a class whose coroutines are the orders it takes."""

    def __init__(self, name: str, role: Callable[[], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self.name = name
        self.received = 0
        """How many different notifications it had received when it last said so."""
        self._pipe = ours
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._process = context.Process(target=work, args=(theirs, role), name=name, daemon=True)
        self._process.start()
        theirs.close()
        asyncio.get_running_loop().add_reader(ours.fileno(), self._hear)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    async def do(self, order: str, **details: Any) -> Any:
        """Gives an order; its answer. Raises WorkerFailed."""
        number = next(self._numbers)
        response = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            self._pipe.send((number, order, details))
        except OSError:
            raise WorkerFailed(f"{self.name} is gone") from None
        return await response

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pipe.fileno())
        self._pipe.close()
        self._process.join(2)
        self._process.kill()
        self._process.join()

    def _hear(self) -> None:
        try:
            while self._pipe.poll():
                self._take(self._pipe.recv())
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())
            self._fail("it ended")

    def _take(self, news: tuple[str, Any, Any]) -> None:
        kind, number, content = news
        if kind == "received":
            self.received = content
            return
        response = self._answers.pop(number)
        if response.done():
            return
        if kind == "done":
            response.set_result(content)
        else:
            response.set_exception(WorkerFailed(f"{self.name}: {content}"))

    def _fail(self, why: str) -> None:
        for response in self._answers.values():
            if not response.done():
                response.set_exception(WorkerFailed(f"{self.name}: {why}"))
        self._answers.clear()


def work(pipe: Connection, role: Callable[[], Any]) -> None:
    """The child's whole life: orders in, answers out, until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, contextlib.suppress(KeyboardInterrupt):
        runner.run(_serve(pipe, role))


async def _serve(pipe: Connection, make_role: Callable[[], Any]) -> None:
    role = make_role()
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    def begin(number: int, order: str, details: Mapping[str, Any]) -> None:
        task = loop.create_task(_carry_out(pipe, role, number, order, details))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def hear() -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                loop.call_soon_threadsafe(begin, *pipe.recv())
        loop.call_soon_threadsafe(over.set)

    # A thread, and no reader of the loop: uvloop makes what it watches non-blocking, and a pipe that may
    # read or write half of a message is of no use.
    threading.Thread(target=hear, daemon=True).start()
    told = 0
    while not over.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), _NEWS_S)
        received = getattr(role, "received", 0)
        if received != told:
            told = received
            _tell(pipe, ("received", 0, received))
    for task in tasks:
        task.cancel()


async def _carry_out(
    pipe: Connection, role: Any, number: int, order: str, details: Mapping[str, Any]
) -> None:
    try:
        response = await getattr(role, order)(**details)
    except Exception as fault:
        told = f"{order}: {fault!r}" if isinstance(fault, OSError) else traceback.format_exc(limit=-3)
        _tell(pipe, ("failed", number, told))
        return
    # What an order has made stays: the collector need not look at it again while something is measured.
    gc.freeze()
    _tell(pipe, ("done", number, response))


def _tell(pipe: Connection, news: tuple[str, int, Any]) -> None:
    with contextlib.suppress(OSError):
        pipe.send(news)
