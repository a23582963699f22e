"""The reader of docs/streams.md in Node, at a server that says what gateway and proxies may say."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.harness.processes import free_port
from tests.harness.programs import program
from tests.stock.documented import STREAMS_PAGE, blocks

KEY = "ak_reader"
TOPICS = ["orders.paid", "a&b"]
RETRY = b"retry: 20\n\n"
# Prints what is read; ends behind so many, or as the reader ends.
DRIVER = """
import { readStream, StreamEnded } from "./stream.mjs";
const [origin, key, topics, options, behaviour, text] = JSON.parse(process.argv[2]);
// A response in pieces of one byte.
const pieces = (octets) => new ReadableStream({
  pull(controller) {
    if (octets.length === 0) return controller.close();
    controller.enqueue(octets.slice(0, 1));
    octets = octets.slice(1);
  },
});
const answers = [() => new Response(pieces(Buffer.from(text))), () => new Response("", { status: 401 })];
if (text) globalThis.fetch = async () => answers.shift()();
const stop = new AbortController();
try {
  for await (const each of readStream(origin, topics, key, { ...options, signal: stop.signal })) {
    console.log(JSON.stringify(each));
    if (behaviour === "break") break;
    if (behaviour === "throw") throw new Error("mine");
    if (behaviour === "abort") setTimeout(() => stop.abort(), 50);
  }
  console.log(JSON.stringify("done"));
} catch (error) {
  console.log(JSON.stringify([error instanceof StreamEnded, error.message]));
}
"""


def message(number: int, *, ends: str = "\n") -> bytes:
    return f'data: {{"id": "{number}"}}{ends}id: at-{number}{ends}{ends}'.encode()


def said(name: str, data: Any, *, at: str = "") -> bytes:
    line = f"id: {at}\n" if at else ""
    return f"event: {name}\ndata: {json.dumps(data)}\n{line}\n".encode()


# Prints how long the reader would wait before each attempt: behind a response that ends, then without one.
WAITS = """
import { readStream } from "./stream.mjs";
const attempts = JSON.parse(process.argv[2])[0];
const [waits, real] = [[], setTimeout];
globalThis.setTimeout = (then, ms) => {
  if (ms === 45_000) return real(then, ms);
  waits.push(ms);
  return real(then, 0);
};
globalThis.fetch = async () => {
  if (waits.length === attempts) return new Response("", { status: 401 });
  if (waits.length > 0) throw new TypeError("no network");
  return new Response(new Blob(["retry: 1000\\n\\n:\\n\\n"]).stream());
};
try {
  for await (const each of readStream("http://gateway", ["a"], "ak_x"));
} catch {}
console.log(JSON.stringify(waits));
"""


@dataclass(frozen=True)
class Answer:
    """How the server answers one request. It hangs behind the parts, or closes."""

    parts: list[bytes] = field(default_factory=list)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hangs: bool = False
    resets: bool = False


def stream(*parts: bytes, hangs: bool = False, resets: bool = False) -> Answer:
    return Answer(list(parts), headers={"Content-Type": "text/event-stream"}, hangs=hangs, resets=resets)


REFUSED = Answer([b"no such key"], status=401)
THE_END = [True, "401 no such key"]


def read(*numbers: int, at: str = "") -> list[Any]:
    return [{"name": "message", "data": {"id": str(n)}, "id": at or f"at-{n}"} for n in numbers]


@dataclass(frozen=True)
class Case:
    """Answers in their order, what is read, and the last id of each request."""

    answers: list[Answer]
    reads: list[Any]
    ids: list[str]
    ends: Any = field(default_factory=lambda: THE_END)
    behaviour: str = ""
    options: dict[str, Any] = field(default_factory=dict)


BEGUN = {"topic": "orders.paid", "recovered": True}
GAP = {"topic": "orders.paid", "recovered": False, "reason": "trimmed"}
WHOLE = RETRY + said("recovered", BEGUN, at="at-0") + b":\n\n" + message(1) + message(2)
OF_WHOLE = [{"name": "recovered", "data": BEGUN, "id": "at-0"}, *read(1, 2)]
UMLAUTS = 'data: {"id": "ö€𝄞"}\r\nid: at-9\r\n\r\n'.encode()
OF_UMLAUTS = [{"name": "message", "data": {"id": "ö€𝄞"}, "id": "at-9"}]
MANY_LINES = b'data: {"id":\ndata:\ndata: "7"}\nfoo: bar\nid: at-7\n\n'
ODD_IDS = b"id: at-1\n\nid: at\0-9\n\n" + b'data: {"id": "2"}\n\n'

CASES = {
    "goes on behind the last": Case([stream(WHOLE), REFUSED], OF_WHOLE, ["", "at-2"]),
    "begins where it is told": Case([REFUSED], [], ["mine"], options={"lastId": "mine"}),
    "crlf": Case(
        [stream(RETRY, message(1, ends="\r\n"), message(2, ends="\r\n")), REFUSED], read(1, 2), ["", "at-2"]
    ),
    "cr": Case([stream(RETRY, message(1, ends="\r"), message(2)), REFUSED], read(1, 2), ["", "at-2"]),
    "a byte order mark": Case([stream(b"\xef\xbb\xbf" + RETRY + message(1)), REFUSED], read(1), ["", "at-1"]),
    "data over lines": Case([stream(RETRY, MANY_LINES), REFUSED], read(7), ["", "at-7"]),
    "no id of its own": Case([stream(RETRY, ODD_IDS), REFUSED], read(2, at="at-1"), ["", "at-1"]),
    "an id alone": Case([stream(RETRY, message(1), b"id: at-5\n\n"), REFUSED], read(1), ["", "at-5"]),
    "half an event": Case([stream(WHOLE, message(3)[:-1]), REFUSED], OF_WHOLE, ["", "at-2"]),
    "a reset": Case([stream(WHOLE), stream(resets=True), REFUSED], OF_WHOLE, ["", "at-2", "at-2"]),
    "a gap": Case(
        [stream(RETRY, message(1)), stream(said("recovered", GAP, at="at-7"), message(8)), REFUSED],
        [*read(1), {"name": "recovered", "data": GAP, "id": "at-7"}, *read(8)],
        ["", "at-1", "at-8"],
    ),
    "overflow": Case(
        [stream(RETRY, message(1), said("overflow", {"reconnect": True})), stream(message(2)), REFUSED],
        read(1, 2),
        ["", "at-1", "at-2"],
    ),
    "a shutdown": Case(
        [stream(RETRY, message(1), said("end", {"reason": "x", "reconnect": True})), REFUSED],
        read(1),
        ["", "at-1"],
    ),
    "the end": Case(
        [stream(RETRY, message(1), said("end", {"reconnect": False, "message": "revoked"}), hangs=True)],
        read(1),
        [""],
        [True, "revoked"],
    ),
    "unavailable": Case(
        [
            stream(RETRY, message(1)),
            Answer(status=503, headers={"Retry-After": "0"}),
            Answer(status=429, headers={"Retry-After": "Sun, 29 Nov 2026 00:00:00 GMT"}),
            stream(message(2)),
            REFUSED,
        ],
        read(1, 2),
        ["", "at-1", "at-1", "at-1", "at-2"],
    ),
    "silence": Case(
        [stream(RETRY, message(1), hangs=True), stream(message(2)), REFUSED],
        read(1, 2),
        ["", "at-1", "at-2"],
        options={"silenceMs": 3000},
    ),
    "no answer": Case(
        [stream(RETRY, message(1)), Answer(hangs=True, status=0), REFUSED],
        read(1),
        ["", "at-1", "at-1"],
        options={"silenceMs": 3000},
    ),
    "a loop that ends": Case([stream(RETRY, message(1), hangs=True)], read(1), [""], "done", "break"),
    "a handler that fails": Case(
        [stream(RETRY, message(1), hangs=True)], read(1), [""], [False, "mine"], "throw"
    ),
    "stopped": Case([stream(RETRY, message(1), hangs=True)], read(1), [""], "done", "abort"),
}


class Server:
    """Gives its answers, one a request, and notes what was asked."""

    def __init__(self, answers: list[Answer]) -> None:
        self._answers = list(answers)
        self.requests: list[web.Request] = []
        self.gone = asyncio.Event()
        """The client of an answer that hangs has left."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        given = self._answers.pop(0)
        try:
            if given.status == 0:
                await asyncio.Event().wait()
            response = web.StreamResponse(status=given.status, headers=given.headers)
            await response.prepare(request)
            for part in given.parts:
                await response.write(part)
            if given.resets and request.transport is not None:
                request.transport.abort()
            if given.hangs:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.gone.set()
            raise
        return response


@contextlib.asynccontextmanager
async def serving(server: Server) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/v1/stream", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def run(folder: Path, *arguments: Any, driver: str = DRIVER) -> list[Any]:
    """What the driver printed."""
    [block] = blocks("js", STREAMS_PAGE)
    assert "stream.mjs" in block.splitlines()[0], "the block begins with the name of its file"
    (folder / "stream.mjs").write_text(block)
    (folder / "driver.mjs").write_text(driver)
    process = await asyncio.create_subprocess_exec(
        *(program("node"), str(folder / "driver.mjs"), json.dumps(arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 0, err.decode()
    return [json.loads(line) for line in out.decode().splitlines()]


@pytest.mark.parametrize("name", CASES)
async def test_it_reads_on_after_whatever_happens(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    server = Server(case.answers)
    async with serving(server) as origin:
        printed = await run(tmp_path, origin, KEY, TOPICS, case.options, case.behaviour)
        if case.answers[-1].hangs:
            async with asyncio.timeout(20):
                await server.gone.wait()

    assert printed == [*case.reads, case.ends]
    assert [each.headers.get("Last-Event-ID", "") for each in server.requests] == case.ids
    for each in server.requests:
        assert each.query.getall("topic") == TOPICS
        assert each.headers["Authorization"] == f"Bearer {KEY}"


WHOLE_CRLF = (RETRY + message(1) + message(2)).replace(b"\n", b"\r\n")
IN_PIECES = {
    "lf": (WHOLE, OF_WHOLE),
    "crlf": (WHOLE_CRLF, read(1, 2)),
    "utf-8": (RETRY + UMLAUTS, OF_UMLAUTS),
    "byte order mark": (b"\xef\xbb\xbf" + message(1) + RETRY, read(1)),
}


@pytest.mark.parametrize("name", IN_PIECES)
async def test_it_reads_pieces_of_one_byte(name: str, tmp_path: Path) -> None:
    content, reads = IN_PIECES[name]
    printed = await run(tmp_path, "http://gateway", KEY, TOPICS, {}, "", content.decode())
    assert printed == [*reads, [True, "401 "]]


async def test_it_waits_as_long_as_it_is_told_and_longer_after_each_failure(tmp_path: Path) -> None:
    [waits] = await run(tmp_path, 8, driver=WAITS)
    least = [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]
    assert all(ms <= waited <= 1.5 * ms for ms, waited in zip(least, waits, strict=True)), waits
    assert len(set(waits)) == len(waits), "by chance, so that readers do not come back together"
