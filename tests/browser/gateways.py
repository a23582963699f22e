"""A gateway of native sockets that does what a test says, for the client of docs/native.md."""

import json
from collections.abc import Callable
from typing import Any, TypeAlias

from aiohttp import web

Frame: TypeAlias = dict[str, Any]
Answer: TypeAlias = Callable[["Connection", int, Any], list[Frame]]
CHANNEL = "ch_1"
# What a page has told us, and the delays that it has asked for, the client's own among them.
PAGE = """<!doctype html>
<script type="module">
  const real = setTimeout;
  [window.delays, window.told, window.seen] = [[], [], []];
  // A second is a hundredth of one; between heartbeats only if it is said, or a busy machine would be silent.
  window.setTimeout = (then, ms, ...rest) => (delays.push(ms), real(then, ms / 100, ...rest));
  const faster = location.hash ? 100 : 1;
  window.setInterval = ((interval) => (then, ms) => interval(then, ms / faster))(setInterval);
  const { NativeSocket } = await import("./native.mjs");
  const getToken = async () => ({ token: "t", ttl_s: 3600 });
  window.client = new NativeSocket(`ws://${location.host}/v1/socket`, getToken, (...said) => told.push(said));
  window.fails = new Set();
  client.subscribe("a", {
    event: (event) => seen.push(event.id),
    gap: (reason) => seen.push(reason),
    ended: (reason) => seen.push(`ended: ${reason}`),
  });
  client.open("kitchen", {
    handle: async ({ id }) => {
      seen.push(id);
      if (fails.delete(id)) throw new Error("too hot");
    },
    lost: (reason) => seen.push(`lost: ${reason}`),
  });
</script>"""


class Connection:
    """One socket of the page."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket
        self.requests: list[Frame] = []

    async def say(self, *frames: Frame) -> None:
        for frame in frames:
            await self.socket.send_str(json.dumps(frame))

    def asked(self, operation: str) -> list[Any]:
        """The bodies of all such requests."""
        return [each[operation] for each in self.requests if operation in each]


def begun(_: Connection, ref: int, body: Any) -> list[Frame]:
    place = {"epoch": body.get("epoch", "e"), "offset": body.get("after", "0-0")}
    return [{"ref": ref, "subscribed": {"topic": body["topic"], **place, "recovered": True}}]


class FakeGateway:
    """Answers as a gateway does, and `answers` in place of that, by operation; notes what it hears."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.answers: dict[str, Answer] = {
            "auth": lambda _, ref, __: [{"ref": ref, "authenticated": {}}],
            "refresh": lambda _, ref, __: [{"ref": ref, "refreshed": {"expires_at": "2026-11-29T06:10:00Z"}}],
            "subscribe": begun,
            "open": lambda _, ref, __: [{"ref": ref, "opened": {"channel": CHANNEL, "name": "kitchen"}}],
            "ping": lambda _, ref, __: [{"ref": ref, "pong": {}}],
            "nack": lambda _, ref, body: [{"ref": ref, "nacked": body}],
            "ack": lambda _, __, ___: [],
        }

    @property
    def routes(self) -> list[web.RouteDef]:
        return [web.get("/v1/socket", self._serve)]

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=["notify.v1"])
        await socket.prepare(request)
        connection = Connection(socket)
        self.connections.append(connection)
        await connection.say({"hello": {"session": "s", "limits": {}}})
        async for message in socket:
            frame = json.loads(message.data)
            connection.requests.append(frame)
            [operation] = set(frame) - {"ref"}
            answer = self.answers[operation]
            await connection.say(*answer(connection, frame.get("ref", 0), frame[operation]))
        return socket


def event(offset: int) -> Frame:
    """Of the topic."""
    return {"topic": "a", "offset": f"{offset}-0", "event": {"id": f"a{offset}"}}


def delivery(entry: int) -> Frame:
    """Of the channel."""
    return {"channel": CHANNEL, "entry": f"{entry}-0", "event": {"id": f"k{entry}"}}


def refusal(code: str, **more: Any) -> Answer:
    return lambda _, ref, __: [{"ref": ref, "error": {"code": code, "message": "m", **more}}]
