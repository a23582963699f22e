"""Crossbar's envelopes and the socket object."""

import orjson
import pytest

from shared.model.sessions import Dialect, Session
from shared.wire.kazoo.crossbar import EnvelopeContext, error_body, gregorian_s, socket_object, success_body

CONTEXT = EnvelopeContext(request_id="r", node="gateway-1", version="0.1.0", now_ms=1_582_680_225_999)
COMMON = {"timestamp": "2020-02-26T01:23:45Z", "version": "0.1.0", "node": "gateway-1", "request_id": "r"}
SESSION = Session(
    id="5" * 32,
    dialect=Dialect.KAZOO,
    account_id="a" * 32,
    owner="edge/instance",
    source="192.0.2.1",
    destination="edge-1",
    connected_at_ms=1_582_680_225_999,
    bindings=("object.doc_created.user",),
)


def test_success_envelope() -> None:
    assert orjson.loads(success_body([1], CONTEXT)) == {"data": [1], "status": "success", **COMMON}


def test_error_envelope_has_its_status_as_text() -> None:
    assert orjson.loads(error_body(404, "bad_identifier", {"cause": "x"}, CONTEXT)) == {
        "data": {"cause": "x"},
        "error": "404",
        "message": "bad_identifier",
        "status": "error",
        **COMMON,
    }


def test_envelope_returns_the_token() -> None:
    context = EnvelopeContext("r", "gateway-1", "0.1.0", 0, auth_token="t")

    assert orjson.loads(success_body({}, context))["auth_token"] == "t"
    assert orjson.loads(error_body(401, "m", {}, context))["auth_token"] == "t"


@pytest.mark.parametrize("pretty", [True, False])
def test_pretty_printing(pretty: bool) -> None:
    body = success_body({}, EnvelopeContext("r", "n", "v", 0, pretty=pretty))
    assert (b"\n" in body) is pretty


@pytest.mark.parametrize(
    ("ms", "seconds"), [(0, 62167219200), (1999, 62167219201), (1_582_680_225_999, 63749899425)]
)
def test_gregorian_seconds(ms: int, seconds: int) -> None:
    assert gregorian_s(ms) == seconds


def test_socket_object() -> None:
    assert socket_object(SESSION) == {
        "bindings": ["object.doc_created.user"],
        "websocket_session_id": "5" * 32,
        "timestamp": 63749899425,
        "destination": "edge-1",
        "source": "192.0.2.1",
    }


def test_socket_object_with_name_and_metadata() -> None:
    named = Session(
        **{name: getattr(SESSION, name) for name in SESSION.__slots__ if name not in ("name", "metadata")},
        name="desk",
        metadata=b'{"floor":3}',
    )
    shown = orjson.loads(orjson.dumps(socket_object(named)))
    assert shown == {**socket_object(SESSION), "name": "desk", "metadata": {"floor": 3}}
