"""A trigger whose handshake fails."""

from typing import Any, cast

import pytest
from starlette.types import Message

from services.socket_edge.cognism_socket import open_cognism_socket
from services.socket_edge.handshakes import serve_socket
from tests.socket_edge.conftest import edge_of
from tests.store.stores import Stores


async def test_a_bug_in_a_handshake_leaves_no_socket_behind(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, secret = await stores.api_key()
    edge = edge_of(stores)

    async def fail(*_: Any) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(stores.sessions, "put", fail)
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    control = dict.fromkeys(("unread_bytes", "last_ping_s", "write"), lambda *_: 0)
    scope = {
        "type": "websocket",
        "client": ("192.0.2.1", 1),
        "query_string": b"",
        "headers": [(b"x-api-accesstoken", key.id.encode()), (b"x-api-secretkey", secret.encode())],
        "extensions": {"websocket.control": {**control, "hear_pongs": lambda _: None}},
        "state": {"request_id": "1"},
    }
    await serve_socket(open_cognism_socket, edge, cast(Any, scope), receive, send)

    assert sent[0]["status"] == 500
    assert len(edge.registry) == 0
