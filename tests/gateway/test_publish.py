"""POST /v1/events: how a body may arrive, and the response to each kind of error."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import fakeredis
import orjson
import pytest
from starlette.types import ASGIApp, Message

from services.gateway import bodies
from services.gateway.app import gateway_app
from services.gateway.authenticator import Authenticator
from services.gateway.context import Context
from shared.model.api_keys import Scope
from shared.native_tokens import NativeTokens
from shared.publish.idempotency import IdempotentRequests
from shared.publish.publisher import Publisher
from shared.publish.publishing import Publishing
from shared.publish.stores import PublishStores
from shared.runtime.settings import Settings
from shared.runtime.stranger_limits import StrangerLimits
from shared.store.idempotency import Idempotency
from tests.store.stores import Stores

EVENT = {"topic": "orders", "data": 1}


@dataclass
class Reply:
    """What one request got."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class Caller:
    """A client, and how its body arrives: in these parts, a None standing for silence."""

    secret: str = ""
    parts: Sequence[bytes | None] = ()
    method: str = "POST"
    has_all: bool = True
    breaks_off: bool = False
    reply: Reply = field(default_factory=Reply)

    async def call(self, app: ASGIApp) -> Reply:
        parts = list(self.parts)

        async def receive() -> Message:
            await asyncio.sleep(0)
            part = parts.pop(0) if parts else b""
            if part is None:
                await asyncio.Event().wait()
            if self.breaks_off and not parts:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": part, "more_body": bool(parts)}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.reply.status = message["status"]
                self.reply.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                self.reply.body += message.get("body", b"")

        await app(self._scope(), receive, send)
        return self.reply

    def _scope(self) -> dict[str, Any]:
        return {
            "type": "http",
            "method": self.method,
            "path": "/v1/events",
            "raw_path": b"/v1/events",
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "server": ("localhost", 80),
            "headers": [(b"authorization", b"Bearer " + self.secret.encode())],
            "extensions": {"http.connection": {"has_all": lambda: self.has_all}},
        }


@pytest.fixture
def app(stores: Stores) -> ASGIApp:
    context = SimpleNamespace(
        authenticator=Authenticator(
            stores.api_keys,
            NativeTokens(stores.token_keys),
            admin_token="operator",
            limits=StrangerLimits(Settings()),
        ),
        stores=stores,
        publishing=Publishing(
            Publisher(PublishStores(stores.routing, stores.queues, stores.sessions, stores.receipts)),
            IdempotentRequests(Idempotency(stores.calls)),
            stored_bytes=cast(Any, None),
        ),
    )
    return gateway_app(cast(Context, context), more=[])


@pytest.fixture
async def secret(stores: Stores) -> str:
    _, secret = await stores.api_key(Scope.PUBLISH)
    return secret


@pytest.mark.parametrize("has_all", [True, False])
async def test_a_body_in_pieces_is_put_together(app: ASGIApp, secret: str, has_all: bool) -> None:
    body = orjson.dumps([{**EVENT, "id": str(n)} for n in range(50)])
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)]

    reply = await Caller(secret, [*pieces, b""], has_all=has_all).call(app)

    assert reply.status == 202
    assert reply.json == {"events": [{"id": str(n), "channels": 0} for n in range(50)]}


async def test_a_body_that_does_not_arrive_in_time(
    app: ASGIApp, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = bodies.BodyLimit(bodies.MAX_BODY_BYTES, 0.01)
    monkeypatch.setattr(bodies.body_of, "__defaults__", (limit,))

    reply = await Caller(secret, [b'{"topic"', None], has_all=False).call(app)

    assert (reply.status, reply.headers["connection"]) == (408, "close")


async def test_a_body_that_breaks_off(app: ASGIApp, secret: str) -> None:
    reply = await Caller(secret, [b'{"topic"', b""], has_all=False, breaks_off=True).call(app)

    assert reply.status == 400


async def test_an_unreachable_store(app: ASGIApp, secret: str, server: fakeredis.FakeServer) -> None:
    server.connected = False

    reply = await Caller(secret, [orjson.dumps(EVENT)]).call(app)

    assert (reply.status, reply.headers["retry-after"]) == (503, "1")


async def test_other_methods_find_the_route(app: ASGIApp, secret: str) -> None:
    reply = await Caller(secret, method="GET").call(app)

    assert (reply.status, reply.headers["allow"]) == (405, "POST")


async def test_an_unexpected_error_gets_a_500_and_is_raised_for_the_log(
    app: ASGIApp, secret: str, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(stores.routing.tables, "read", breaks)
    publisher = Caller(secret, [orjson.dumps(EVENT)])

    with pytest.raises(RuntimeError, match="a bug"):
        await publisher.call(app)

    assert publisher.reply.status == 500
    assert publisher.reply.json["type"] == "internal_error"


async def test_a_publishers_mistake_is_not_logged(
    app: ASGIApp, secret: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await Caller(secret, [b"{"]).call(app)).status == 400

    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
