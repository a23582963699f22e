"""The walk of a notification, from POST to frame: which of our files it passes, and with how many calls.

    python -m tests.benchmarks.walk

One process runs all services on an embedded Valkey. A client in another thread publishes single events to a
channel whose socket is idle. The profiler counts the Python calls in services/ and shared/ from the first
byte of the request until both the frame and the response are written. The smallest of many walks is shown:
timers of other tasks add calls to some.
"""

import asyncio
import contextlib
import http.client
import socket
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import uvloop
from websockets.sync.client import connect

from services.all_in_one import service
from services.all_in_one.first_start import DEMO_SECRET_FILE
from shared.runtime.settings import Settings
from tests.harness.processes import free_port
from tests.harness.waiting import wait_until

WALKS = 30
_CHECKOUT = Path(__file__).resolve().parents[2]
_OURS = tuple(str(_CHECKOUT / top) for top in ("services", "shared"))


class Profiler:
    """Counts calls of our functions in the thread that starts it."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()

    def start(self) -> None:
        self.calls = Counter()
        sys.setprofile(self._on_event)

    @staticmethod
    def stop() -> None:
        sys.setprofile(None)

    def _on_event(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(_OURS):
            self.calls[code.co_filename.removeprefix(f"{_CHECKOUT}/"), code.co_qualname] += 1


def main() -> None:
    """Prints the files and the calls of the shortest walk."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), port=free_port(), log_level="error")
        walks = uvloop.run(_walks(settings))
    shortest = min(walks, key=Counter.total)
    by_file: Counter[str] = Counter()
    for (file, _), count in shortest.items():
        by_file[file] += count
    for file, count in by_file.most_common():
        print(f"{count:6}  {file}")
    print(f"\n{len(by_file)} files, {shortest.total()} calls")


async def _walks(settings: Settings) -> list[Counter[tuple[str, str]]]:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    profiler = Profiler()
    walks: list[Counter[tuple[str, str]]] = []

    def in_loop(work: Any) -> None:
        done = threading.Event()

        def run() -> None:
            work()
            done.set()

        loop.call_soon_threadsafe(run)
        done.wait()

    def client() -> None:
        try:
            with _Client(settings) as publisher:
                for _ in range(WALKS):
                    in_loop(profiler.start)
                    publisher.publish_and_receive()
                    in_loop(profiler.stop)
                    walks.append(profiler.calls)
        finally:
            loop.call_soon_threadsafe(stop.set)

    thread = threading.Thread(target=client)
    running = asyncio.create_task(service.run(settings, stop))
    await wait_until(lambda: (settings.data_dir / DEMO_SECRET_FILE).exists() and _accepts(settings.port))
    thread.start()
    await running
    thread.join()
    return walks


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class _Client:
    """Publishes on a kept connection and receives on one socket."""

    def __init__(self, settings: Settings) -> None:
        secret = (settings.data_dir / DEMO_SECRET_FILE).read_text()
        self._origin = f"127.0.0.1:{settings.port}"
        self._headers = {"Authorization": f"Bearer {secret}"}
        self._open = contextlib.ExitStack()
        self._http = http.client.HTTPConnection(self._origin)
        self._open.callback(self._http.close)

    def __enter__(self) -> "_Client":
        self._call("PUT", "/v2/notification/websocket", "")
        self._call("PUT", "/v1/bindings", '["orders.#"]')
        url = f"ws://{self._origin}/v2/notification/websocket-connect"
        self._socket = self._open.enter_context(connect(url, additional_headers=self._headers))
        for _ in range(WALKS):
            self.publish_and_receive()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def publish_and_receive(self) -> None:
        self._call("POST", "/v1/events", '{"topic": "orders.paid", "data": {"order": 17}}')
        self._socket.recv()

    def _call(self, method: str, path: str, body: str) -> None:
        self._http.request(method, path, body, self._headers)
        response = self._http.getresponse()
        response.read()
        if response.status >= 300:
            raise RuntimeError(f"{method} {path}: {response.status}")


if __name__ == "__main__":
    main()
