"""POST /v1/events does not go through the router, and answers as if it did."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import fakeredis
import orjson
import pytest
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message

from services.gateway import app as gateway
from services.gateway import bodies
from services.gateway.authenticator import Authenticator
from services.gateway.context import Context
from services.gateway.idempotency import Once
from shared.model.api_keys import ApiKey, Scope, hash_of, new_id, new_secret
from shared.runtime.http.responses import REQUEST_ID
from shared.store.idempotency import Idempotency
from tests.store.stores import NOW_MS, Stores, fake_backend

EVENT = {"topic": "orders", "data": 1}


@dataclass
class Answered:
    """What one request was answered."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def error(self) -> Any:
        """All that an error says, but whose it is."""
        return {**orjson.loads(self.body), "request_id": ""}

    @property
    def what_counts(self) -> tuple[Any, ...]:
        headers = {name: value for name, value in self.headers.items() if name != "content-length"}
        headers.pop(REQUEST_ID, None)
        return self.status, headers, self.error


@dataclass
class Asking:
    """A publisher: who it is, and how its body arrives. None: it never goes on."""

    secret: str = ""
    parts: Sequence[bytes | None] = ()
    method: str = "POST"
    has_all: bool = True
    breaks_off: bool = False

    async def at(self, app: ASGIApp) -> Answered:
        answered = Answered()
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
                answered.status = message["status"]
                answered.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                answered.body += message.get("body", b"")

        await app(self._scope(), receive, send)
        return answered

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


class Both:
    """A gateway's app, and the same without its shortcut."""

    def __init__(self, context: Context) -> None:
        self.app = gateway.gateway_app(context, more=[])
        self.router = Starlette(routes=gateway.ROUTES, exception_handlers=gateway._ANSWERS)
        self.router.state.context = context

    async def answer(self, asking: Asking) -> Answered:
        """What both answer."""
        by_shortcut = await asking.at(self.app)
        by_router = await asking.at(self.router)
        assert by_shortcut.what_counts == by_router.what_counts
        return by_shortcut


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
async def stores(server: fakeredis.FakeServer) -> AsyncIterator[Stores]:
    backend = fake_backend(server)
    async with backend.connect() as redis:
        yield Stores(redis, backend)


@pytest.fixture
def context(stores: Stores) -> Context:
    return cast(
        Context,
        SimpleNamespace(
            authenticator=Authenticator(stores.api_keys, admin_token="operator"),
            queues=stores.queues,
            receipts=stores.receipts,
            routing=stores.routing,
            sessions=stores.sessions,
            once=Once(Idempotency(stores.calls)),
        ),
    )


@pytest.fixture
def both(context: Context) -> Both:
    return Both(context)


async def secret_of(stores: Stores, scope: Scope) -> str:
    key_id = new_id()
    secret = new_secret(key_id)
    key = ApiKey(
        id=key_id,
        account_id=stores.account_id,
        name="publisher",
        scopes=frozenset({scope}),
        created_at_ms=NOW_MS,
        secret_hash=hash_of(secret),
    )
    await stores.api_keys.create(key)
    return secret


@pytest.fixture
async def secret(stores: Stores) -> str:
    return await secret_of(stores, Scope.PUBLISH)


async def test_a_publish_is_answered(both: Both, secret: str) -> None:
    answered = await Asking(secret, [orjson.dumps({**EVENT, "id": "a"})]).at(both.app)

    assert answered.status == 202
    assert orjson.loads(answered.body) == {"events": [{"id": "a", "channels": 0}]}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, ""),
        (b'{"data":1}', 400, "topic"),
        (b'{"topic":"orders","data":1,"to":"0123456789abcdef0123456789abcdef"}', 400, "to"),
        (b'[{"topic":"a","data":1},{"topic":5,"data":1}]', 400, "[1].topic"),
        (b"x" * (bodies.MAX_BODY_BYTES + 1), 413, ""),
    ],
)
async def test_what_is_wrong_with_the_events(
    both: Both, secret: str, body: bytes, status: int, field: str
) -> None:
    answered = await both.answer(Asking(secret, [body]))

    assert answered.status == status
    assert [each["name"] for each in answered.error["fields"]] == ([field] if field else [])


async def test_who_may_not_publish(both: Both, stores: Stores) -> None:
    body = [orjson.dumps(EVENT)]

    nobody = await both.answer(Asking("", body))
    assert (nobody.status, nobody.headers["www-authenticate"]) == (401, "Bearer")
    receiver = await both.answer(Asking(await secret_of(stores, Scope.RECEIVE), body))
    assert receiver.status == 403


async def test_a_store_that_is_away(both: Both, secret: str, server: fakeredis.FakeServer) -> None:
    server.connected = False

    answered = await both.answer(Asking(secret, [orjson.dumps(EVENT)]))

    assert (answered.status, answered.headers["retry-after"]) == (503, "1")


async def test_what_nobody_foresaw_is_answered_and_raised_for_the_log(
    both: Both, secret: str, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(*_: Any) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(stores.routing, "tables_for_publish", breaks)
    answers: list[Message] = []

    async def send(message: Message) -> None:
        answers.append(message)

    for app in (both.app, both.router):
        asking = Asking(secret, [orjson.dumps(EVENT)])

        async def receive() -> Message:
            return {"type": "http.request", "body": orjson.dumps(EVENT), "more_body": False}

        with pytest.raises(RuntimeError, match="a fault of ours"):
            await app(asking._scope(), receive, send)

    assert [message["status"] for message in answers[::2]] == [500, 500]
    assert {orjson.loads(message["body"])["message"] for message in answers[1::2]} == {
        "something went wrong here; it was logged"
    }


async def test_other_methods_find_the_route(both: Both, secret: str) -> None:
    answered = await both.answer(Asking(secret, method="GET"))

    assert answered.status == 405
    assert answered.headers["allow"] == "POST"


@pytest.mark.parametrize("has_all", [True, False])
async def test_a_body_in_pieces_is_put_together(both: Both, secret: str, has_all: bool) -> None:
    body = orjson.dumps([{**EVENT, "id": str(n)} for n in range(50)])
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)]

    answered = await Asking(secret, [*pieces, b""], has_all=has_all).at(both.app)

    assert answered.status == 202
    assert [event["id"] for event in orjson.loads(answered.body)["events"]] == [str(n) for n in range(50)]


async def test_a_body_that_does_not_arrive_in_time(
    both: Both, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "_BODY_S", 0.01)

    answered = await both.answer(Asking(secret, [b'{"topic"', None], has_all=False))

    assert (answered.status, answered.headers["connection"]) == (408, "close")


async def test_a_body_that_breaks_off(both: Both, secret: str) -> None:
    answered = await both.answer(Asking(secret, [b'{"topic"', b""], has_all=False, breaks_off=True))

    assert answered.status == 400


async def test_nothing_is_logged_of_what_is_the_publishers_fault(
    both: Both, secret: str, caplog: pytest.LogCaptureFixture
) -> None:
    await both.answer(Asking(secret, [b"{"]))

    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
